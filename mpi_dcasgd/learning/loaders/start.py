"""Start of a loader process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading

from mpi_dcasgd.learning.loaders.process import IGNORED

_PROGRAM = """\
import sys
descriptor, rank, tied = map(int, sys.argv[1:4])
sys.path[:] = sys.argv[4:]
from mpi_dcasgd.learning.loaders.process import serve
serve(descriptor, rank, tied=bool(tied))
"""

_LAUNCHERS = ("OMPI_", "PMIX_", "PMI_", "PRTE_", "MPICH_", "HYDRA_", "HOROVOD_")
"""Variables by which MPI would take the process for its rank."""


def start_process() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a loader, and return it with this end of its socket.

    This is safe beside MPI, before and after it has started. The new process is not a fork, which
    would share the memory that a network card writes to, copied or not, and MPI's descriptors and
    locks in the middle of whatever its threads did. On Linux Python starts it by vfork and exec:
    no page is copied or marked to be copied, and nothing but exec happens until the memory is
    another. All descriptors but the socket are closed. ``multiprocessing`` would start it in the
    same way, but then import the user's main program, which may well begin to train.

    Raises:
        OSError: The system refuses.
    """
    mine, theirs = socket.socketpair()
    tied = threading.current_thread() is threading.main_thread()
    arguments = (theirs.fileno(), os.getpid(), int(tied))
    env = {key: value for key, value in os.environ.items() if not key.startswith(_LAUNCHERS)}
    env["CUDA_VISIBLE_DEVICES"] = ""  # or each of them could take hundreds of MiB of the rank's GPU
    # What is sent to all processes of a terminal or of a SLURM step is held back until the new
    # process ignores it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *map(str, arguments), *sys.path],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            env=env,
        )
    except BaseException:
        mine.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
    return process, mine

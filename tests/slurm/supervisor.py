"""Keep a local SLURM's daemons, and leave nothing of them or their jobs behind.

``python supervisor.py COMMANDS.json`` starts each command line of the JSON list and ends them all
when its standard input ends, which happens when the tests are over and also when they were killed.
slurmd's job steps make themselves orphans in sessions of their own: as their subreaper, this
process inherits them and can find every one. Needs no rights that a container may not have.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

_PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>
_PR_SET_CHILD_SUBREAPER = 36


def _dies_with_parent(libc: ctypes.CDLL) -> Callable[[], None]:
    def ask_kernel() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))

    return ask_kernel


def _reap() -> None:
    """Take the exit statuses of inherited processes, so that they do not stay as zombies."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def main(commands: Path) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)  # only the end of standard input counts
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    prepare = _dies_with_parent(libc)
    for argv in json.loads(commands.read_text()):
        subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=prepare)
    while not select.select([sys.stdin], [], [], 0.5)[0]:
        _reap()
    while processes := psutil.Process().children(recursive=True):
        for process in processes:
            process.kill()
        _reap()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

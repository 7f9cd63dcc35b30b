"""Worlds started by a real mpirun: exit statuses, aborts, signals, and Horovod in them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mpi_dcasgd.tools.doctor.ask import ask_probe
from mpi_dcasgd.tools.launch import world as launch
from mpi_dcasgd.tools.launch.mpirun import detect_flavour, find_mpirun

pytestmark = pytest.mark.mpi

SESSIONS = "PRTE_MCA_prte_tmpdir_base"  # conftest.py says what for

LAUNCHER = """
import sys
from mpi_dcasgd.tools.launch.world import run
from mpi_dcasgd.tools.launch.mpirun import MpirunCommand
sys.exit(run(MpirunCommand(tuple(sys.argv[1:]))))
"""


def test_every_rank_starts_and_the_status_is_passed_on(mpirun: Callable[..., object]) -> None:
    # Gathered, because MPICH's mpirun may mix what several ranks print within a line.
    code = (
        "import sys; from mpi4py import MPI; comm = MPI.COMM_WORLD; "
        "ranks = comm.gather((comm.Get_rank(), comm.Get_size()));"
        "comm.Get_rank() == 0 and print(ranks, flush=True); sys.exit(2)"
    )
    finished = mpirun(3, "-c", code)
    assert finished.stdout == "[(0, 3), (1, 3), (2, 3)]\n", str(finished)
    assert finished.status == 2


def test_doctor_sees_this_mpi_whole() -> None:
    answer = ask_probe("mpi", limit_s=60, env=os.environ)
    # What MPICH 5 is asked before it is initialised ends the process.
    assert not answer.trouble
    assert {"library", "paths", "threads", "cuda", "alone"} <= answer.facts.keys()


def test_no_mpirun_meets_what_a_killed_one_has_left(mpirun: Callable[..., object]) -> None:
    if detect_flavour(find_mpirun()).name != "Open MPI":
        pytest.skip("Open MPI's mpirun alone keeps a folder by its process number")
    code = "import os; print(os.environ['PMIX_SERVER_TMPDIR'])"
    folder = Path(mpirun(1, "-c", code).stdout.strip())
    # base / of this test / of this mpirun
    assert folder.parent.parent == Path(os.environ[SESSIONS])


def test_an_abort_ends_every_rank_with_its_status(mpirun: Callable[..., object]) -> None:
    code = (
        "from mpi4py import MPI; comm = MPI.COMM_WORLD; "
        "comm.Abort(3) if comm.Get_rank() == 1 else comm.recv(source=1)"
    )
    assert mpirun(3, "-c", code, timeout=30).status == 3


# A signal's byte stays in the pipe until it is read, however early the signal comes.
RANK = """
import os, signal, sys
from mpi4py import MPI
comm = MPI.COMM_WORLD
heard, told = os.pipe()
os.set_blocking(told, False)
signal.set_wakeup_fd(told)
signal.signal(signal.SIGUSR1, lambda *_: None)
comm.Barrier()
if comm.Get_rank() == 0:
    print("ready", flush=True)
stopped = comm.gather(os.read(heard, 1)[0])
if comm.Get_rank() == 0:
    print(*stopped, flush=True)
sys.exit(7)
"""


@pytest.mark.timeout(60)
def test_an_interrupt_reaches_every_rank_as_a_request_to_stop(processes) -> None:
    command = launch.plan(2, [sys.executable, "-c", RANK])
    process = processes.start(
        [sys.executable, "-c", LAUNCHER, *command.argv], env=dict(command.env)
    )
    processes.wait_for(process, 1)
    process.send_signal(signal.SIGINT)
    finished = processes.finish(process)
    assert finished.stdout.split() == ["ready", *2 * [str(int(signal.SIGUSR1))]], str(finished)
    assert finished.status == 7


@pytest.mark.horovod
def test_what_was_built_reduces_over_mpi(mpirun) -> None:
    code = (
        "from mpi4py import MPI; import torch, horovod.torch as hvd; hvd.init(comm=MPI.COMM_WORLD);"
        "total = hvd.allreduce(torch.ones(3) * (hvd.rank() + 1), op=hvd.Sum);"
        "found = hvd.mpi_built(), hvd.mpi_threads_supported(), total.tolist();"
        "ranks = MPI.COMM_WORLD.gather(found);"
        "hvd.rank() == 0 and print(*ranks, sep='\\n', flush=True);"
        "hvd.shutdown()"
    )
    finished = mpirun(2, "-c", code)
    assert finished.stdout == "(True, True, [3.0, 3.0, 3.0])\n" * 2, str(finished)

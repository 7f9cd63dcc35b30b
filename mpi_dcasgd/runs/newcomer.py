"""A process that takes the place of a worker that is gone: from its start to the run's end.

The server starts it by MPI, as ``python -m mpi_dcasgd.runs.newcomer``; it is no command for people.
It starts MPI first, before whatever takes time to import, since the server's thread waits for that.
"""

from __future__ import annotations

import ctypes
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from logging import Logger

    from mpi4py import MPI

    from mpi_dcasgd.config.schema import Job
    from mpi_dcasgd.drivers.mpi_worker import Link
    from mpi_dcasgd.drivers.notes import ServerWatch
    from mpi_dcasgd.learning.learner import Learner
    from mpi_dcasgd.learning.loaders.pool import Loaders


class _NotNeededError(Exception):
    """The server has no use for this process."""


def main() -> NoReturn:
    """Join the run that has started this process, and train until its server says stop."""
    from mpi_dcasgd.drivers.orphan import launcher
    from mpi_dcasgd.drivers.signals import StopFlag, leave

    launcher.end_with_launcher()
    comm, brief = _meet_server()

    StopFlag().listen(insist=True)  # the server decides when to stop
    with suppress(Exception):  # it is in the log, and the server has been told
        _take_part(comm, brief)
    _tell_launcher()
    leave(0)  # another status would become the run's


def _meet_server() -> tuple[MPI.Intracomm, dict[str, Any]]:
    for signum in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):  # for all ranks, not for this
        signal.signal(signum, signal.SIG_IGN)
    import mpi4py

    mpi4py.rc.thread_level = "funneled"
    from mpi_dcasgd.drivers import mpi_variables

    with mpi_variables.for_start(asynchronous=True):
        from mpi4py import MPI

    from mpi_dcasgd.drivers.signals import leave

    parent = MPI.Comm.Get_parent()
    if parent == MPI.COMM_NULL:
        print("this is started by the server of a run, and by nobody else", file=sys.stderr)
        leave(2)
    comm = parent.Merge(high=True)
    brief: dict[str, Any] = comm.recv(source=0)
    _hold_lifeline(brief)
    return comm, brief


_held: list[socket.socket] = []


def _hold_lifeline(brief: Mapping[str, Any]) -> None:
    """Hold a socket that tells the server of the end of this process (``drivers.lifelines``)."""
    word, host = brief["lifeline"], brief["server_host"]
    with suppress(OSError, KeyError):  # there is no way, or no port
        near = host == socket.gethostname()
        line = socket.create_connection(("127.0.0.1" if near else host, word["port"]), 3.0)
        line.sendall(word["token"] + int(brief["worker"]).to_bytes(4, "big"))
        _held.append(line)


def _tell_launcher() -> None:
    """Tell Open MPI's launcher that this process ends as it should.

    MPI cannot be finalized: of five such processes (Open MPI 5.0.11) two hung in MPI_Finalize, as
    their server had left. Without a word the launcher takes it for a crash, and says so at length.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libpmix.so.2").PMIx_Finalize(None, ctypes.c_size_t(0))


def _take_part(comm: MPI.Intracomm, brief: Mapping[str, Any]) -> None:
    """Set this process up, and train."""
    from mpi4py import MPI

    from mpi_dcasgd.errors import RanksLostError
    from mpi_dcasgd.record.logs import close_logger, rank_logger
    from mpi_dcasgd.record.run_folder import RunFolder
    from mpi_dcasgd.runs.build import start_loaders
    from mpi_dcasgd.runs.jobs import load_job

    logger = rank_logger(RunFolder(brief["folder"]), brief["rank"], brief["number"])
    seat = _Seat(comm, brief, logger)
    try:
        job = load_job(brief["job"])
        with job.importing(), start_loaders(job) as loaders:
            link, learner = seat.set_up(job, loaders)
            seat.train(job, link, learner)
    except _NotNeededError as reason:
        logger.info("not needed: %s", reason)
    except (MPI.Exception, RanksLostError) as error:
        logger.warning("the server has left: %s", error)
    except BaseException as error:
        logger.error("failed", exc_info=True)
        seat.tell_failure(f"{type(error).__name__}: {error}")
        raise
    finally:
        close_logger(logger)


class _Seat:
    """Place of a worker in a run, which a new process takes."""

    def __init__(self, comm: MPI.Intracomm, brief: Mapping[str, Any], logger: Logger) -> None:
        self._comm = comm
        self._brief = brief
        self._logger = logger
        self._watch: ServerWatch | None = None
        self.taken = False

    def say(self, said: Mapping[str, Any]) -> None:
        """Tell the server that this process is ready, or why not."""
        from mpi_dcasgd.server.message import Tag

        self._comm.send(dict(said), dest=0, tag=Tag.HELLO)

    def tell_failure(self, text: str) -> None:
        """Tell the server of this process's own exception."""
        from mpi4py import MPI

        from mpi_dcasgd.drivers.notes import tell_failure

        if self.taken:
            tell_failure(self._comm, text)
            return
        with suppress(MPI.Exception):  # there is no server any more
            self.say({"error": text})

    def set_up(self, job: Job, loaders: Loaders) -> tuple[Link, Learner]:
        """Load data and model, and try a gradient out."""
        from mpi_dcasgd.drivers.mpi_worker import Link
        from mpi_dcasgd.drivers.notes import ServerWatch
        from mpi_dcasgd.drivers.world import pick_device
        from mpi_dcasgd.runs.build import Workshop
        from mpi_dcasgd.runs.respawn import facts_of
        from mpi_dcasgd.server.wire import Wire

        self._go_home_if_told()
        device = pick_device(job.device, self._brief["local_rank"])
        workshop = Workshop.open(job, device, loaders=loaders)
        self._go_home_if_told()
        layout = workshop.flat_model(_cpu()).layout
        self._watch = ServerWatch(self._comm, job.faults, self._brief["server_host"])
        wire = Wire.of(job.wire, layout.num_params, layout.num_stats)
        cuts = job.cuts(layout.num_params)
        link = Link(self._comm, wire, device, self._brief["spin_s"], self._watch, cuts=cuts)
        views = () if link.staged else (link.weights, link.grad)
        flat = workshop.flat_model(device, *views)
        facts = facts_of(job, workshop, flat)
        learner = workshop.learner(flat)
        link.expect()
        self._take(facts, device)
        return link, learner

    def train(self, job: Job, link: Link, learner: Learner) -> None:
        """Compute gradients until the server says stop, and leave when it has finished."""
        from mpi_dcasgd.drivers.farewell import await_leave
        from mpi_dcasgd.drivers.mpi_worker import run_worker
        from mpi_dcasgd.drivers.simulation.injection import Injection
        from mpi_dcasgd.drivers.simulation.slowed_learner import SlowedLearner

        brief = self._brief
        if job.inject.active:
            injection = Injection(job.inject, brief["worker"], brief["num_workers"], job.seed)
            injection.begin()
            learner = SlowedLearner(learner, injection)
        run_worker(link, learner, background=job.tickets_ahead > 0)
        assert self._watch is not None  # from set_up
        await_leave(self._comm, brief["spin_s"], self._watch)

    def _take(self, facts: Mapping[str, str], device: Any) -> None:
        """Offer to take the place, and wait for the server's answer."""
        import socket

        from mpi_dcasgd.drivers.backoff import wait_until
        from mpi_dcasgd.server.message import Tag

        host = socket.gethostname()
        self.say({"facts": dict(facts), "host": host, "device": str(device)})
        self._logger.info(
            "replacement %d of worker %d on %s, %s",
            *(self._brief["number"], self._brief["worker"], host, device),
        )
        wait_until(lambda: self._comm.iprobe(source=0, tag=Tag.HELLO), self._brief["spin_s"])
        self._go_home_if_told()
        self.taken = True

    def _go_home_if_told(self) -> None:
        from mpi_dcasgd.server.message import Tag

        if self._comm.iprobe(source=0, tag=Tag.HELLO):
            answer = self._comm.recv(source=0, tag=Tag.HELLO)
            if answer:
                raise _NotNeededError(answer)


def _cpu() -> Any:
    import torch

    return torch.device("cpu")


if __name__ == "__main__":
    main()

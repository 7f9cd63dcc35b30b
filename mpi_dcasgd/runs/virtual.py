"""Runs of one process in virtual time on their way into a run folder: simulated and replayed."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from mpi_dcasgd.drivers.signals import StopFlag
from mpi_dcasgd.drivers.simulation.asynchronous import Simulator
from mpi_dcasgd.drivers.simulation.virtual_run import VirtualRun
from mpi_dcasgd.record.environment import RankPlace
from mpi_dcasgd.record.settings import RecordSettings
from mpi_dcasgd.runs.build import Workshop
from mpi_dcasgd.runs.recording import Recording
from mpi_dcasgd.runs.run_end import reason_of
from mpi_dcasgd.server.server import ParameterServer

_SLICE = 32  # pushes between two looks at signals and checkpoints


@dataclass(frozen=True)
class VirtualSetup:
    """A virtual run that is about to begin.

    Attributes:
        run: Nobody has pulled yet.
        server: The run's.
        workshop: Where both come from.
        driver: ``simulator`` or ``replay``.
        num_workers: Without the server.
        world_size: With it.
        settings: How often it is written down, in virtual seconds.
    """

    run: VirtualRun
    server: ParameterServer
    workshop: Workshop
    driver: str
    num_workers: int
    world_size: int
    settings: RecordSettings


def run_virtually(
    recording: Recording,
    setup: VirtualSetup,
    stop: StopFlag,
    started: float,
    *,
    beginning: str = "",
    ending: Callable[[float], str],
) -> None:
    """Make a virtual run to its end, or until a stop is asked for, and write it down.

    Args:
        recording: Of the run; has the checkpoint that it resumes from, if there is one.
        setup: The run.
        stop: Looked at every few pushes.
        started: When the program began, in ``time.monotonic``'s seconds.
        beginning: The first line to show.
        ending: Gives the last line to show, if any, from the real seconds that it took.
    """
    run, server, workshop = setup.run, setup.server, setup.workshop
    place = RankPlace(
        rank=0, role="trainer", host=socket.gethostname(), device=str(workshop.device)
    )
    recording.check_data(workshop)
    recorder = recording.recorder(
        setup.driver,
        setup.num_workers,
        [place],
        server,
        workshop=workshop,
        settings=setup.settings,
        world_size=setup.world_size,
    )
    if isinstance(run, Simulator):
        recorder.follow(run.spent, lambda: run.busy_s)
    conductor = recording.conductor(workshop, server, recorder, run)
    run.told = conductor.told
    recording.begin(conductor, time.monotonic() - started)
    if beginning:
        conductor.message(beginning)
    began = time.monotonic()
    with recording.at_work(conductor):
        while not run.done:
            run.run(_SLICE)
            conductor.checkpoint()
            # Nobody has to be told to stop: virtual workers can be left as they are.
            if stop:
                break
    if told := ending(time.monotonic() - began):
        conductor.message(told)
    reason = "" if run.done else reason_of(stop)
    recording.finish(conductor, workshop, server, run.accounts(), reason)

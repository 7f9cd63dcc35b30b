"""Compute the pushes of a recorded run again, from one start of it to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from mpi_dcasgd.drivers.simulation.close_look import CloseLook
from mpi_dcasgd.drivers.simulation.recorded_order import Difference, RecordedLedger, replay
from mpi_dcasgd.record.trace import TraceRecord
from mpi_dcasgd.runs.build import Workshop
from mpi_dcasgd.runs.recorded_run import RecordedRun
from mpi_dcasgd.server.records import UpdateRecord
from mpi_dcasgd.server.server import ParameterServer


def recompute(
    run: RecordedRun,
    workshop: Workshop,
    pushes: Sequence[TraceRecord],
    look: CloseLook | None = None,
    told: Callable[[UpdateRecord], None] = lambda record: None,
) -> tuple[ParameterServer, Difference | None]:
    """Put the pushes of a run to a server again.

    Args:
        run: The run.
        workshop: Of its job.
        pushes: All pushes of its trace.
        look: Looks at pushes on their way; gradients whose fingerprints differ are then its
            business and end nothing.
        told: Called with what the server says of each push.

    Returns:
        The server after the last push, or after the first that differs; and how that differs.
    """
    learner = workshop.learner(workshop.flat_model(workshop.device))
    simulated = run.trace.meta.get("driver") == "simulator"
    # The server of a real run, and of one in a recorded order, is on the CPU.
    device = workshop.device if simulated else torch.device("cpu")
    state: dict[str, Any] | None = None
    for stretch in run.stretches:
        mine = pushes[stretch.begin : stretch.end]
        finished = run.trace.status == "completed" and stretch.end == len(pushes)
        ledger = RecordedLedger(mine, stretch.num_workers, finished=finished)
        server = workshop.server(stretch.num_workers, device, ledger)
        if state is not None:
            server.take_over(state, tickets=False)
        difference = replay(
            server,
            learner,
            mine,
            [push.mark for push in mine] if look is None else None,
            told,
            deliver=ParameterServer.push if look is None else look.push,
            simulated=simulated,
        )
        if difference is not None:
            number = stretch.begin + difference.number
            return server, difference._replace(number=number)
        state = server.lasting_state()
    return server, None

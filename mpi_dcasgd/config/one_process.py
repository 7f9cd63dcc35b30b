"""Memory of a run that is one process: sequential, simulated or replayed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpi_dcasgd.config.needs import ELEMENT_BYTES, Need, check_need
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.server.header import HEADER_BYTES
from mpi_dcasgd.wording import counted

if TYPE_CHECKING:
    from mpi_dcasgd.learning.layout import FlatLayout


def check_one_process(
    job: Job, layout: FlatLayout, num_workers: int, available: int | None
) -> None:
    """Refuse a run that does not fit into this host's memory beside its data, which are there.

    Args:
        job: Checked.
        layout: Of the model, which need not have been built.
        num_workers: Slots of the server: the simulated workers, or 1.
        available: Bytes, or None to check nothing.

    Raises:
        ConfigError: With what each thing takes.
    """
    vector = layout.size * ELEMENT_BYTES
    copies = job.rule.state_vectors(num_workers)
    best = job.checkpoint.best
    items = (
        ("the weights", vector),
        ("the model's weights and gradient", 2 * vector),
        (
            f"the rule's state, {counted(copies, 'vector')}",
            copies * layout.num_params * ELEMENT_BYTES,
        ),
        (f"snapshots of {counted(num_workers, 'worker')}", num_workers * (vector + HEADER_BYTES)),
        ("weights in 16 bits", 2 * layout.num_params if job.wire.reply != "float32" else 0),
        ("evaluation", (3 + best) * vector),
    )
    remedy = "use a smaller model, fewer simulated workers, or a host with more memory"
    need = Need("the process", tuple(item for item in items if item[1]))
    check_need(need, available, job.name, remedy)

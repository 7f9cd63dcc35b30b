"""Settings that a run's own model leaves without effect.

Those that a job alone disarms are refused when it is checked (``config.effects``). Whether a model
has what a setting is about is known only once there is one, often a user's own, and one job file
serves several models: so this is told at the start, and not refused.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.learning.layout import statistics_of


def idle_beside(job: Job, build: Callable[[], nn.Module]) -> list[str]:
    """Find the settings that the model leaves without effect.

    Args:
        job: Checked.
        build: Makes the job's model, whose parameters may be on the meta device; called only if
            there is such a setting.

    Returns:
        A line each, beginning with the key.
    """
    if job.batchnorm == "average" and not job.compute.channels_last:
        return []
    model, lines = build(), []
    if job.batchnorm != "average" and not statistics_of(model):
        lines.append(
            f"batchnorm: {job.batchnorm} has no effect: the model has no running statistics"
        )
    if job.compute.channels_last and not any(p.dim() == 4 for p in model.parameters()):
        lines.append(
            "compute.channels_last: true has no effect: the model has no convolution over images "
            "(no parameter of four dimensions)"
        )
    return lines

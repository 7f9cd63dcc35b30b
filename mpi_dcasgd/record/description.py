"""Description of a run, known before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mpi_dcasgd.learning.measures import PERCENT, Measures


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDescription:
    """Description of a run, known before it starts; part of its summary.

    Attributes:
        name: The job's.
        algorithm: The job's.
        driver: ``"sequential"``, ``"mpi"``, ``"horovod"``, ...
        num_workers: Without the server.
        world_size: With it.
        epochs: Passes over the training data.
        seed: The job's.
        model, data: Their names in the job.
        batch_size: Of one worker.
        num_samples: Training samples.
        primary_metric: The task's metric that says how good weights are.
        higher_is_better: Its direction.
        units: Unit of each metric that has one; a metric in ``%`` is a fraction of 1.
        kernel: How updates were computed (``rules.fuse``); a replay must do the same.
    """

    name: str
    algorithm: str
    driver: str
    num_workers: int
    world_size: int
    epochs: int
    seed: int
    model: str
    data: str
    batch_size: int
    num_samples: int
    primary_metric: str = "error"
    higher_is_better: bool = False
    units: Mapping[str, str] = field(default_factory=lambda: {"error": PERCENT})
    kernel: str = "blocks"

    @property
    def measures(self) -> Measures:
        """The metric that runs are chosen by, its direction, and the units of all."""
        return Measures(self.primary_metric, self.higher_is_better, self.units)

    @property
    def virtual(self) -> bool:
        """True if seconds are virtual: nobody waits for them."""
        return self.driver in ("simulator", "replay")

    @property
    def total_samples(self) -> int:
        return self.epochs * self.num_samples

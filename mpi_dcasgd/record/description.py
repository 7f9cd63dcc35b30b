"""What is known of a run before it starts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDescription:
    """What is known of a run before it starts; it goes into the summary as it is.

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
    kernel: str = "blocks"

    @property
    def virtual(self) -> bool:
        """Whether its seconds are not those of a clock: nobody waits for them."""
        return self.driver in ("simulator", "replay")

    @property
    def total_samples(self) -> int:
        return self.epochs * self.num_samples

"""Find what delay does to the largest stable learning rate of a job's rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.runs.jobs import JobSource, load_job
from mpi_dcasgd.tools.stability import Stable, stable_rates


@dataclass(frozen=True)
class Stability:
    """Largest stable learning rates of a job's rule.

    Attributes:
        job: The job.
        rates: One for each number of workers.
    """

    job: Job
    rates: tuple[Stable, ...]

    def lr(self, stable: Stable) -> float:
        """The learning rate that has the margin which the job's has with one worker."""
        return stable.factor * self.job.lr


def stability(
    job: JobSource,
    workers: Sequence[int] = (1, 2, 4, 8, 16, 32),
    *,
    words: Sequence[str] = (),
    **overrides: Any,
) -> Stability:
    """Find the largest stable learning rate for each of several numbers of workers.

    Args:
        job: A job's file, its content as a mapping, or a job.
        workers: Numbers of workers.
        words: Changes as on the command line, ``key=value``.
        **overrides: Changes by key.

    Raises:
        ConfigError: The job is wrong, or no gradient of its algorithm is stale.

    Example:
        >>> found = stability("jobs/digits.yaml", [1, 2], algorithm="asgd")
        >>> [stable.workers for stable in found.rates]
        [1, 2]
    """
    checked = load_job(job, words=words, **overrides)
    if checked.mode != "asynchronous":
        raise ConfigError(
            f"job {checked.name}",
            [f"algorithm: no gradient of {checked.algorithm} is stale; set algorithm=asgd, say"],
        )
    rates = stable_rates(checked.rule, list(workers), checked.algorithm)
    return Stability(checked, tuple(rates))

"""Content of the messages between a rank and its loaders."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpi_dcasgd.errors import ConfigError, DataError, UserError
from mpi_dcasgd.learning.data.source import DataSource
from mpi_dcasgd.learning.models.base import ModelSource
from mpi_dcasgd.learning.tasks.source import TaskSource


@dataclass(frozen=True)
class Opening:
    """Everything from which a process makes a task and its data.

    Attributes:
        job: The job's name, for messages.
        task, model, data: The job's sections.
        seed: The job's.
        threads: PyTorch's, as many as in the rank: a sum over several is rounded differently.
    """

    job: str
    task: TaskSource
    model: ModelSource
    data: DataSource
    seed: int
    threads: int


class Begin(NamedTuple):
    """First message to a loader.

    Attributes:
        path: ``sys.path`` of the rank.
        opening: A pickled ``Opening``. To read it imports a user's modules, from this path.
    """

    path: list[str]
    opening: bytes


class Request(NamedTuple):
    """Request for batches that draw from one generator, one after the other.

    Attributes:
        split: ``train``, ``test`` or ``validation``.
        parts: Sample numbers of each batch.
        rng: For all of them, as in ``Split.batch``.
    """

    split: str
    parts: Sequence[NDArray[np.int64]]
    rng: np.random.Generator | None

    def __str__(self) -> str:
        indices = np.concatenate(self.parts)
        if len(indices) == 1:
            return f"{self.split} sample {indices[0]}"
        return f"{len(indices)} {self.split} samples, {indices[0]} .. {indices[-1]}"


class Opened(NamedTuple):
    """Answer to ``Begin``: the number of samples of each split that is read sample by sample."""

    lengths: dict[str, int]


class Loaded(NamedTuple):
    """Answer to a request: nests of tensors on the CPU."""

    batches: list[Any]


class Refusal(NamedTuple):
    """An exception in place of an answer.

    Attributes:
        where: Of a ``ConfigError``, else None.
        lines: Its problems, or the message.
        trace: Traceback, for the log.
    """

    where: str | None
    lines: list[str]
    trace: str

    @classmethod
    def of(cls, error: Exception, doing: str) -> Refusal:
        """Describe an exception.

        Args:
            error: What was raised.
            doing: What the process did, for an exception that nobody has explained.
        """
        trace = "".join(traceback.format_exception(error))
        if isinstance(error, ConfigError):
            return cls(error.where, error.problems, trace)
        if isinstance(error, UserError):
            return cls(None, [str(error)], trace)
        reason = f"{type(error).__name__}: {error}"
        return cls(None, [f"a loader process could not {doing}: {reason}"], trace)

    def error(self) -> UserError:
        """Make the exception to raise in the rank."""
        if self.where is not None:
            return ConfigError(self.where, self.lines)
        return DataError("\n".join(self.lines))

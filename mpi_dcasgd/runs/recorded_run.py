"""The record of an asynchronous run over MPI, to be computed again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mpi_dcasgd.config.load import parse_overrides
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.trace import Trace
from mpi_dcasgd.runs.jobs import resolve_job


class Stretch(NamedTuple):
    """Pushes ``begin`` to ``end``, by so many workers."""

    begin: int
    end: int
    num_workers: int


@dataclass(frozen=True)
class RecordedRun:
    """Recorded run that is to be replayed.

    Attributes:
        folder: The run's.
        job: The run's, or a changed one.
        trace: Every push.
        num_workers: At the start of the run.
        weights_sha256: Name of the final weights; empty if there are none.
    """

    folder: RunFolder
    job: Job
    trace: Trace
    num_workers: int
    weights_sha256: str

    @property
    def digest(self) -> str:
        """A name for this trace."""
        return hashlib.sha256(self.folder.trace_bin.read_bytes()).hexdigest()[:16]

    @property
    def stretches(self) -> list[Stretch]:
        """The pushes from one start of the run to the next, by the workers of then."""
        starts = [(0, self.num_workers), *self.trace.restarts]
        ends = [begin for begin, _ in starts[1:]] + [len(self.trace)]
        return [
            Stretch(begin, end, workers) for (begin, workers), end in zip(starts, ends, strict=True)
        ]

    @classmethod
    def open(
        cls, path: Path, words: Sequence[str] = (), overrides: dict[str, Any] | None = None
    ) -> RecordedRun:
        """Read a run with its trace, and change its job.

        Raises:
            RunFolderError: There is no such run, its trace was changed, or it has no order.
            ConfigError: The changed job is wrong.
        """
        folder = RunFolder.open(path)
        trace = folder.trace()
        pairs, problems = parse_overrides(words)
        # A compiled update and one in blocks round alike only nearly.
        kernel = ("fuse", trace.meta.get("kernel", "blocks"))
        job = resolve_job(folder.job_yaml, [kernel, *pairs, *(overrides or {}).items()], problems)
        if trace.meta.get("driver") != "mpi":
            raise RunFolderError(
                f"{path}: a {trace.meta.get('driver')} run; only asynchronous runs over MPI have "
                "an order of pushes to replay (the others repeat themselves when run again)"
            )
        sha = str(folder.summary().get("weights_sha256") or "")
        return cls(folder, job, trace, int(trace.meta["num_workers"]), sha)

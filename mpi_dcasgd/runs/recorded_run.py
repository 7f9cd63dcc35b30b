"""The record of an asynchronous run over MPI, to be computed again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mpi_dcasgd.config.load import parse_overrides
from mpi_dcasgd.config.own_code import OwnCode
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.errors import ConfigError, RunFolderError
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.trace import Trace
from mpi_dcasgd.runs.jobs import resolve_job
from mpi_dcasgd.sources import MAIN

RECORDED = "recorded"
"""In place of a folder of modules: the copies in the run folder."""


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

    def code_changes(self) -> list[str]:
        """Say which of the user's own modules are not what the run was made with, one line each."""
        return OwnCode.of(self.job).changes(self.folder.own_code())

    @classmethod
    def open(
        cls,
        path: Path,
        words: Sequence[str] = (),
        overrides: dict[str, Any] | None = None,
        code: Path | str | None = None,
        *,
        drivers: Sequence[str] = ("mpi",),
    ) -> RecordedRun:
        """Read a run with its trace, and change its job.

        Args:
            path: The run's folder.
            words: Changes of the job, ``key=value``.
            overrides: Changes by key.
            code: Where the user's own modules are looked for first: a folder, ``recorded`` for the
                copies in the run folder, or None for where the run had them from.
            drivers: Kinds of runs that are taken.

        Raises:
            RunFolderError: There is no such run, its trace was changed, or it has no order.
            ConfigError: The changed job is wrong.
        """
        folder = RunFolder.open(path)
        trace = folder.trace()
        pairs, problems = parse_overrides(words)
        # A compiled update and one in blocks round alike only nearly.
        changes = [("fuse", trace.meta.get("kernel", "blocks"))]
        if code is not None:
            changes.append(("code", str(_code_folder(folder, code))))
        try:
            job = resolve_job(
                folder.job_yaml, [*changes, *pairs, *(overrides or {}).items()], problems
            )
        except ConfigError as error:
            raise ConfigError(error.where, [*error.problems, *_missing_code(folder)]) from error
        if trace.meta.get("driver") not in drivers:
            raise RunFolderError(
                f"{path}: a {trace.meta.get('driver')} run; only asynchronous runs over MPI have "
                "an order of pushes to replay (the others repeat themselves when run again)"
            )
        sha = str(folder.summary().get("weights_sha256") or "")
        return cls(folder, job, trace, int(trace.meta["num_workers"]), sha)


def _code_folder(folder: RunFolder, code: Path | str) -> Path:
    if str(code) != RECORDED:
        return Path(code).absolute()
    if not folder.code.is_dir():
        raise RunFolderError(f"{folder.path}: has no copies of modules, {folder.code.name}/")
    return folder.code.absolute()


def _missing_code(folder: RunFolder) -> list[str]:
    """Say where the user's own modules were, if they are not there any more."""
    recorded = folder.own_code()
    main = [each for each in recorded if each.get("module") == MAIN]
    if main:
        return [
            f"code: {MAIN} was {main[-1].get('file') or 'a notebook'}; call "
            f"replay({str(folder.path)!r}) there, or put the class into a module and give it: "
            "replay(..., task=...)"
        ]
    files = [str(each.get("file") or "") for each in recorded]
    gone = [file for file in dict.fromkeys(files) if file and not Path(file).is_file()]
    if not gone:
        return []
    copies = f"; {folder.code} has copies: --code {RECORDED}" if folder.code.is_dir() else ""
    return [f"code: the run had its modules from {', '.join(gone)}, not there any more{copies}"]

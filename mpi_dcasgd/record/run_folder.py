"""Everything about one run lies in one folder, which this module makes, reads and writes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record import own_files
from mpi_dcasgd.record.atomic import write_atomic
from mpi_dcasgd.record.metrics import RunProgress, read_metrics
from mpi_dcasgd.record.restarts import Restart, read_restarts
from mpi_dcasgd.record.run_files import JOB_YAML, RUNS, RunFiles

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from mpi_dcasgd.record.closeup import Closeup
    from mpi_dcasgd.record.trace import Trace


class RunFolder(RunFiles):
    """The files of one run and their content. Making the object touches nothing.

    Example:
        >>> folder = RunFolder("runs/digits-asgd-20240506-070809")
        >>> folder.summary_json.name, folder.summary()
        ('summary.json', {})
    """

    @classmethod
    def create(
        cls,
        path: Path | str | None,
        *,
        name: str,
        algorithm: str,
        now: datetime,
        root: Path = RUNS,
        overwrite: bool = False,
        keep: bool = False,
        ours: bool = False,
    ) -> RunFolder:
        """Make the folder of a new run. Only rank 0 does this, and tells the others where it is.

        Args:
            path: The folder that the user asked for, or None to name one after the run:
                ``root/<name>-<algorithm>-<YYYYmmdd-HHMMSS>``, with ``-2``, ``-3``, ... if taken.
            name: The job's name.
            algorithm: The job's algorithm.
            now: When the run starts.
            root: Where folders that are named after their run go.
            overwrite: Replace a finished run that ``path`` holds. What an unfinished one left
                is always replaced, a simulation's checkpoint excepted.
            keep: Go on with what ``path`` holds; only its summary goes, for it is no longer true.
            ours: ``path`` is known to be a run's. If not, and if it holds files that a run would
                replace and that no run is known to have written, it is refused.

        Raises:
            RunFolderError: The folder holds a finished run, or files of somebody else's, or cannot
                be made.
        """
        try:
            if path is None:
                plain = plain_name(f"{name}-{algorithm}")
                return cls(_make_unique(root / f"{plain}-{now:%Y%m%d-%H%M%S}"))
            folder = cls(path)
            folder.path.mkdir(parents=True, exist_ok=True)
            own_files.refuse_strangers(folder, ours=ours)
            if not overwrite and folder.is_finished():
                raise RunFolderError(
                    f"{folder.path}: already holds a finished run ({folder.summary_json.name} says"
                    " completed); name another folder, or replace it with --overwrite"
                )
            own_files.reopen(folder) if keep else own_files.clear(folder)
        except OSError as error:
            where = error.filename or path or root
            raise RunFolderError(
                f"{where}: cannot be made or emptied for a run: {error.strerror};"
                " name a folder that you can write to with --run-dir"
            ) from error
        return folder

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """The folder of a run that exists, finished or not.

        Raises:
            RunFolderError: There is no folder, or it is not one of ours.
        """
        folder = cls(path)
        if not folder.path.is_dir():
            raise RunFolderError(f"{folder.path}: no such run folder")
        if not folder.is_run():
            raise RunFolderError(f"{folder.path}: not a run folder: it has no {JOB_YAML}")
        return folder

    def is_finished(self) -> bool:
        """Return whether the run completed."""
        return self.summary(lenient=True).get("status") == "completed"

    def restarts(self) -> list[Restart]:
        """Return the restarts by the launcher, oldest first."""
        return read_restarts(self.restarts_jsonl)

    def restarts_told(self) -> int:
        """Return how many of them the last start knew of, and has in its events."""
        told = self.environment().get("restarts")
        return told if isinstance(told, int) else 0

    def job(self, *, lenient: bool = False) -> dict[str, Any]:
        """The resolved job as plain values, as the run wrote it.

        Args:
            lenient: Return an empty mapping where there is no job, or a damaged one.

        Raises:
            RunFolderError: There is no job, or it is not a mapping in YAML.
        """
        try:
            return _mapping(self.job_yaml, yaml.safe_load)
        except RunFolderError:
            if lenient:
                return {}
            raise

    def summary(self, *, lenient: bool = False) -> dict[str, Any]:
        """The outcome of the run; empty for one that has not ended, or was killed.

        Args:
            lenient: Return an empty mapping for a damaged file, too.

        Raises:
            RunFolderError: The file cannot be read, or is damaged.
        """
        try:
            return _mapping(self.summary_json, json.loads)
        except RunFolderError as error:
            if lenient or isinstance(error.__cause__, FileNotFoundError):
                return {}
            raise

    def environment(self) -> dict[str, Any]:
        """The software and hardware of the last start; empty if that cannot be read."""
        try:
            return _mapping(self.environment_json, json.loads)
        except RunFolderError:
            return {}  # it explains a run; nothing is computed from it

    def data(self) -> dict[str, Any]:
        """Read what the data were that the run began with; empty if nobody wrote it down."""
        try:
            return _mapping(self.data_json, json.loads)
        except RunFolderError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return {}  # an earlier version's
            raise

    def own_code(self) -> list[dict[str, Any]]:
        """Return ``module``, ``file`` and ``sha256`` of the user's own sources, of every start."""
        found: list[Any] = []
        for file in (*sorted(self.path.glob("environment-*.json")), self.environment_json):
            try:
                found += _mapping(file, json.loads).get("code") or []
            except RunFolderError:
                continue
        return [each for each in found if isinstance(each, dict)]

    def write_code(self, texts: Mapping[Path, bytes]) -> None:
        """Write copies of source files into the folder ``code``.

        Args:
            texts: Path within that folder to content.
        """
        for place, text in texts.items():
            file = self.code / place
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(file, text)

    def metrics(self) -> list[dict[str, Any]]:
        """Return the events, oldest first; a last line that was cut short is left out.

        Raises:
            RunFolderError: There are none, or a line that is not the last is damaged.
        """
        return read_metrics(self.metrics_jsonl)

    def progress(self) -> RunProgress:
        """The epoch and the result so far, as far as they can be read."""
        try:
            return RunProgress.of(self.metrics())
        except RunFolderError:
            return RunProgress.of(())  # not there yet

    def trace(self, *, strict: bool = False) -> Trace:
        """Every push of the run.

        Args:
            strict: Refuse a trace that is cut short.

        Raises:
            RunFolderError: There is no trace, or it was changed.
        """
        from mpi_dcasgd.record.trace import read_trace  # loads NumPy

        return read_trace(self.trace_bin, strict=strict)

    def steps(self, records: int) -> NDArray[np.float32] | None:
        """Read where the time of each push went; None where nobody wrote it down.

        Args:
            records: Pushes of the trace.

        Raises:
            RunFolderError: The file cannot be read, or is another's.
        """
        from mpi_dcasgd.record.steps import read_steps  # loads NumPy

        return read_steps(self.steps_bin, records)

    def sharpness(self) -> dict[str, Any]:
        """Read what ``sharpness`` found at the run's weights; empty if it was not used.

        Raises:
            RunFolderError: The file is damaged.
        """
        try:
            return _mapping(self.sharpness_json, json.loads)
        except RunFolderError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return {}
            raise

    def closeup(self) -> Closeup:
        """Read what was found when the run was looked at closer.

        Raises:
            RunFolderError: Nobody has, the file is damaged, or the run has changed since.
        """
        from mpi_dcasgd.record.closeup import read_closeup  # loads NumPy

        again = f"`mpi-dcasgd closeup {self.path}`"
        if not self.closeup_jsonl.is_file():
            raise RunFolderError(f"{self.closeup_jsonl}: no such file; {again} makes it")
        found = read_closeup(self.closeup_jsonl)
        if self.trace_bin.is_file() and not found.is_of(self.trace_bin):
            raise RunFolderError(
                f"{self.closeup_jsonl}: is of pushes that the run has not kept; {again} makes it "
                "again"
            )
        return found

    def write_sharpness(self, found: dict[str, Any]) -> None:
        """Replace sharpness.json."""
        write_atomic(self.sharpness_json, _json_text(found))

    def write_closeup(self, closeup: Closeup) -> None:
        """Replace closeup.jsonl."""
        from mpi_dcasgd.record.closeup import write_closeup  # loads NumPy

        write_closeup(self.closeup_jsonl, closeup)

    def weights(self, *, best: bool = False) -> dict[str, Tensor]:
        """The weights of the run, a ``state_dict`` of tensors on the CPU.

        Args:
            best: Those of the best evaluation, in place of the final ones.

        Raises:
            RunFolderError: There are none, for the run has not ended; or the file is damaged.
        """
        from mpi_dcasgd.record.weights_file import read_weights  # loads PyTorch

        path = self.best_pt if best else self.weights_pt
        if path.is_file():
            return read_weights(path)
        if best:
            raise RunFolderError(
                f"{path}: no such file; the best weights are written beside training from the "
                "first evaluation on, unless the job has checkpoint.best: false"
            )
        raise RunFolderError(f"{path}: no such file; a run has weights once it has ended")

    def copy_records(self, other: RunFolder) -> None:
        """Copy the records of another run, to resume it here.

        Raises:
            RunFolderError: It is not there, or cannot be copied.
        """
        try:
            shutil.copyfile(other.metrics_jsonl, self.metrics_jsonl)
            beside = other.path.glob("environment-*.json")
            records = (other.trace_bin, other.steps_bin, other.metrics_csv, other.data_json)
            for file in (*records, *beside):
                if file.is_file():
                    shutil.copyfile(file, self.path / file.name)
            if other.environment_json.is_file():
                shutil.copyfile(other.environment_json, self.environment_json)
        except OSError as error:
            raise RunFolderError(
                f"{error.filename}: cannot be copied to {self.path}: {error.strerror}; a run "
                "resumes from a checkpoint with the records beside it"
            ) from error
        own_files.reopen(self)

    def refuse_strange_output(self) -> None:
        """Refuse a folder whose output.log a comparison would replace and none has begun.

        Raises:
            RunFolderError: It does not begin with a command, as ours do.
        """
        try:
            with open(self.output_log, "rb") as file:
                begin = file.read(2)
        except OSError:
            return
        if begin not in (b"", b"+ "):
            raise RunFolderError(
                f"{self.output_log}: would be replaced, and no comparison is known to have written "
                "it; nothing was changed, name another folder with -o"
            )

    def write_environment(self, environment: dict[str, Any]) -> None:
        """Replace environment.json."""
        write_atomic(self.environment_json, _json_text(environment))

    def write_data(self, data: dict[str, Any]) -> None:
        """Replace data.json."""
        write_atomic(self.data_json, _json_text(data))

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Replace summary.json."""
        write_atomic(self.summary_json, _json_text(summary))


def plain_name(text: str) -> str:
    """Return a name as a file may have it, without blanks, slashes and the like.

    Example:
        >>> plain_name("lr/0.1 again")
        'lr_0.1_again'
    """
    return re.sub(r"[^\w.+-]+", "_", text)


def _make_unique(wanted: Path) -> Path:
    wanted.parent.mkdir(parents=True, exist_ok=True)
    path, number = wanted, 1
    while True:
        try:
            # Two jobs started in the same second race for the name; mkdir decides who has it.
            path.mkdir()
        except FileExistsError:
            number += 1
            path = wanted.with_name(f"{wanted.name}-{number}")
        else:
            return path


def _mapping(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    try:
        value = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RunFolderError(f"{path}: cannot be read: {reason}") from error
    if not isinstance(value, dict):
        raise RunFolderError(f"{path}: cannot be read: {path.name} is not a mapping")
    return value


def _json_text(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()

"""Tell a run's own files in a folder from somebody else's, which are left alone.

A name proves nothing: a user's project has a job.yaml, a weights.pt and a folder logs, too. What a
run of ours has left proves itself by its content, or by the lock of a run that is no more.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpi_dcasgd.errors import RunFolderError

if TYPE_CHECKING:
    from mpi_dcasgd.record.run_folder import RunFolder

_EVENTS = ("start", "resume", "message")
_NUMBERED = {
    "environment": re.compile(r"environment-\d+\.json"),
    "checkpoint": re.compile(r"update-\d+\.pt(\.tmp)?"),
    "log": re.compile(r"rank-\d+(-\d+)?\.log"),
    "events": re.compile(r"events\.out\.tfevents\..+"),
    "code": re.compile(r"code(-\d+)?"),
}


def refuse_strangers(folder: RunFolder, *, ours: bool) -> None:
    """Refuse a folder in which a run would replace files that no run of ours has written.

    Args:
        folder: The folder, which exists.
        ours: It is known to be a run's.

    Raises:
        RunFolderError: With the names of the files; nothing has been changed.
    """
    if ours or is_ours(folder):
        return
    names = [path.relative_to(folder.path).as_posix() for path in _files(folder)]
    names += [f"{path.name}/" for path in _code(folder)]
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise RunFolderError(
            f"{folder.path}: holds {', '.join(names[:5])}{more}, which a run would replace and "
            "which no run of mpi-dcasgd is known to have written; nothing was changed, name "
            "another folder with --run-dir"
        )


def is_ours(folder: RunFolder) -> bool:
    """Return whether a folder holds what only a run leaves behind."""
    environment, summary = _mapping(folder.environment_json), _mapping(folder.summary_json)
    if "mpi_dcasgd" in environment or summary.get("status") in (
        "completed",
        "interrupted",
        "failed",
    ):
        return True
    try:
        with open(folder.metrics_jsonl, encoding="utf-8") as file:
            event = json.loads(file.readline())
    except (OSError, ValueError):
        return False
    return isinstance(event, dict) and event.get("event") in _EVENTS


def clear(folder: RunFolder) -> None:
    """Remove what an earlier run left, and nothing else; copies of code that changed stay aside."""
    copies = {str(each.get("sha256")) for each in folder.own_code()}
    if 0 < len(folder.restarts()) <= folder.restarts_told():  # not of the start that is to come
        folder.restarts_jsonl.unlink()
    for path in list(_files(folder)):
        path.unlink(missing_ok=True)
    remove_logs(folder)
    for code in _code(folder):
        for file in [file for file in code.rglob("*") if file.is_file()]:
            if hashlib.sha256(file.read_bytes()).hexdigest() in copies:
                file.unlink()
        inside = sorted(code.rglob("*"), reverse=True)
        for empty in [path for path in (*inside, code) if path.is_dir()]:
            if not any(empty.iterdir()):
                empty.rmdir()
    if folder.code.exists():
        _move_code_aside(folder)


def reopen(folder: RunFolder) -> None:
    """Keep the account of where the run took place before; its summary is out of date.

    A checkpoint that a start has left half-written is removed: nothing will ever complete it.
    """
    folder.summary_json.unlink(missing_ok=True)
    for path in list(_matching(folder.checkpoints, "checkpoint")):
        if path.suffix == ".tmp":
            path.unlink(missing_ok=True)
    if folder.environment_json.is_file():
        number = 1
        while (earlier := folder.path / f"environment-{number}.json").exists():
            number += 1
        folder.environment_json.rename(earlier)
        if folder.code.is_dir():
            folder.code.rename(folder.path / f"code-{number}")


def remove_logs(folder: RunFolder) -> None:
    """Remove the ranks' logs, and their folder if there is nothing else in it."""
    for path in _matching(folder.logs, "log"):
        path.unlink(missing_ok=True)
    if folder.logs.is_dir() and not any(folder.logs.iterdir()):
        folder.logs.rmdir()


def _files(folder: RunFolder) -> Iterator[Path]:
    """The files that a run would replace, or remove."""
    single = (
        folder.job_yaml,
        folder.data_json,
        folder.environment_json,
        folder.metrics_jsonl,
        folder.metrics_csv,
        folder.trace_bin,
        folder.steps_bin,
        folder.closeup_jsonl,
        folder.sharpness_json,
        folder.summary_json,
        folder.weights_pt,
        folder.best_pt,
        folder.cluster_yaml,
    )
    yield from (path for path in single if path.exists() or path.is_symlink())
    yield from _matching(folder.path, "environment")
    yield from _matching(folder.checkpoints, "checkpoint")
    yield from _matching(folder.logs, "log")
    yield from _matching(folder.tensorboard, "events")


def _code(folder: RunFolder) -> list[Path]:
    return [path for path in _matching(folder.path, "code") if path.is_dir()]


def _matching(folder: Path, kind: str) -> list[Path]:
    try:
        return [path for path in sorted(folder.iterdir()) if _NUMBERED[kind].fullmatch(path.name)]
    except OSError:
        return []


def _move_code_aside(folder: RunFolder) -> None:
    number = 1
    while (aside := folder.path / f"code-{number}").exists():
        number += 1
    folder.code.rename(aside)


def _mapping(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}

"""How far runs are: what their folders say, and what SLURM says of the jobs that make them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.metrics import read_metrics
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.tools.comparison import OUTPUT, REPLACED
from mpi_dcasgd.tools.launch.failure_reason import last_words
from mpi_dcasgd.tools.slurm.states import JobState, job_states
from mpi_dcasgd.tools.slurm.submissions import FOLDER, submissions

State = Literal["not started", "pending", "running", "interrupted", "unfinished", "done", "failed"]

_RUNNING = ("RUNNING", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SUSPENDED")
_LIVELY_S = 60.0


@dataclass(frozen=True)
class RunStatus:
    """Of one run.

    Attributes:
        name: Its folder's.
        state: ``unfinished``: it was begun, and nothing says whether anybody is at it.
        epoch: Epochs done; None before the first record.
        test_error: The last that was measured.
        reason: Why it is not running, or what is wrong.
        restarts: How often it went on from a checkpoint or was requeued.
        job_id: SLURM's number, with the element of an array.
    """

    name: str
    state: State
    epoch: float | None = None
    test_error: float | None = None
    reason: str = ""
    restarts: int = 0
    job_id: str | None = None


def folder_status(folder: Path) -> list[RunStatus]:
    """The status of a run, or of all runs of a study.

    Raises:
        RunFolderError: There is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise RunFolderError(f"{folder}: no such folder")
    names, of_study = _names(folder)
    if not names:
        raise RunFolderError(
            f"{folder}: neither a run folder nor a study's: it has no job.yaml, no jobs and no runs"
        )
    jobs = _jobs(folder, names if of_study else [folder.name])
    states = job_states(job_id.partition("_")[0] for ids in jobs.values() for job_id in ids)
    found = []
    for name in names:
        ids = jobs.get(name, [])
        # The newest submission that SLURM knows of tells.
        known = [job_id for job_id in reversed(ids) if job_id in states]
        job_id = known[0] if known else (ids[-1] if ids else None)
        where = folder / name if of_study else folder
        log = _log(folder, job_id)
        found.append(run_status(name, where, states.get(job_id or ""), job_id, log))
    return found


def run_status(
    name: str, path: Path, job: JobState | None, job_id: str | None, log: Path | None = None
) -> RunStatus:
    """What is to be said of one run.

    Args:
        name: Of the run.
        path: Its folder, which may not exist.
        job: What SLURM says of the job that makes it.
        job_id: That job.
        log: What the job printed.
    """
    run = RunFolder(path)
    summary = _json(run.summary_json)
    epoch, error = _progress(run)
    restarts = max(summary.get("restarts") or 0, (job.restarts if job else None) or 0)

    def told(state: State, reason: str = "") -> RunStatus:
        return RunStatus(name, state, epoch, error, reason, restarts, job_id)

    if summary.get("status") == "completed":
        return told("done")
    if job and job.active:
        if job.state not in _RUNNING:
            return told("pending", job.reason)
        begun = run.job_yaml.exists() and not summary
        return told("running", "" if begun else "starting")
    if summary.get("status") == "failed":
        return told("failed", str(summary.get("reason", "")))
    if job and job.state not in ("COMPLETED", *_RUNNING):
        return told("failed", _because(job, path, log))
    if summary.get("status") == "interrupted":
        return told("interrupted", str(summary.get("reason", "")))
    if not run.job_yaml.exists():
        words = _last_words(path / OUTPUT)
        return told("failed", words) if words else told("not started")
    return _silent(told, run, path)


def _silent(told: Callable[[State, str], RunStatus], run: RunFolder, path: Path) -> RunStatus:
    """A run that was begun, has not ended, and is in no queue that can be asked."""
    try:
        silent_s = time.time() - run.metrics_jsonl.stat().st_mtime
    except OSError:
        silent_s = float("inf")
    if silent_s < _LIVELY_S:
        return told("running", "")
    since = f"no word for {silent_s:.0f} s" if silent_s != float("inf") else "no record"
    words = _last_words(path / OUTPUT)
    return told("unfinished", f"{since}; {words}" if words else since)


def _because(job: JobState, path: Path, log: Path | None) -> str:
    words = _last_words(path / OUTPUT) or _last_words(log)
    told = [job.state, job.reason if job.reason not in ("None", job.state) else "", words]
    return ": ".join(word for word in told if word)


def _names(folder: Path) -> tuple[list[str], bool]:
    """The runs in a folder, and whether it is a study's."""
    if (folder / "job.yaml").is_file():
        return [folder.name], False
    names = dict.fromkeys(sorted(file.stem for file in (folder / "jobs").glob("*.yaml")))
    for submission in submissions(folder):
        names |= dict.fromkeys(name for part in submission.parts for name in part)
    runs = sorted(file.parent.name for file in folder.glob("*/job.yaml"))
    names |= dict.fromkeys(name for name in runs if name not in (REPLACED, FOLDER))
    if not names and submissions(folder):
        return [folder.name], False
    return list(names), bool(names)


def _jobs(folder: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """The jobs that make each run, oldest first."""
    found: dict[str, list[str]] = {name: [] for name in names}
    for submission in submissions(folder):
        if not submission.parts:
            for ids in found.values():
                ids.append(submission.job_id)
        for index in range(len(submission.parts)):
            for name in submission.names_of(index):
                found.setdefault(name, []).append(f"{submission.job_id}_{index}")
    for name, ids in found.items():
        if not ids:  # `sbatch slurm/compare.sbatch` leaves no note
            where = folder if (folder / "job.yaml").is_file() else folder / name
            ids += _own_job(_json(RunFolder(where).environment_json).get("variables"))
    return found


def _own_job(variables: Any) -> list[str]:
    if not isinstance(variables, Mapping):
        return []
    if "SLURM_ARRAY_JOB_ID" in variables and "SLURM_ARRAY_TASK_ID" in variables:
        return [f"{variables['SLURM_ARRAY_JOB_ID']}_{variables['SLURM_ARRAY_TASK_ID']}"]
    return [str(variables["SLURM_JOB_ID"])] if "SLURM_JOB_ID" in variables else []


def _log(folder: Path, job_id: str | None) -> Path | None:
    if job_id is None:
        return None
    return next(iter((folder / FOLDER).glob(f"*-{job_id}.out")), None)


def _progress(run: RunFolder) -> tuple[float | None, float | None]:
    try:
        events = read_metrics(run.metrics_jsonl)
    except RunFolderError:
        return None, None
    epochs = [event["epoch"] for event in events if isinstance(event.get("epoch"), (int, float))]
    errors = [event["test_error"] for event in events if event.get("test_error") is not None]
    return (max(epochs) if epochs else None), (errors[-1] if errors else None)


def _last_words(file: Path | None) -> str:
    try:
        text = file.read_text(encoding="utf-8", errors="replace") if file else ""
    except OSError:
        return ""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("+ ")]
    return last_words("\n".join(lines)) if lines else ""


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}

"""Status of runs, from their folders and from SLURM's word on the jobs that make them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.learning.measures import Measures
from mpi_dcasgd.record.results import no_result
from mpi_dcasgd.record.run_files import JOB_YAML
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.run_lock import holder, is_held
from mpi_dcasgd.record.study_folder import StudyFolder
from mpi_dcasgd.tools.launch.failure_reason import last_words
from mpi_dcasgd.tools.slurm.states import Answer, JobState, job_states

State = Literal[
    "not started", "pending", "running", "interrupted", "unfinished", "done", "failed", "unknown"
]

_RUNNING = ("RUNNING", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SUSPENDED")
_LIVELY_S = 60.0


@dataclass(frozen=True)
class RunStatus:
    """Status of one run.

    Attributes:
        name: Its folder's name.
        state: ``unfinished``: it was begun, and nothing says whether anybody is at it. ``unknown``:
            it was submitted and has not begun, and SLURM does not say what has become of its job.
        epoch: Epochs done; None before the first record.
        result: The primary metric of the test split at the last evaluation; None before it, and if
            it was NaN or infinite.
        reason: The cause, where it is not running; why it has no result, where it is done.
        restarts: Number of times that it resumed from a checkpoint, was requeued, or was started
            again by its launcher.
        job_id: SLURM's number, with the element of an array.
        measures: The primary metric, its direction and its unit.
    """

    name: str
    state: State
    epoch: float | None = None
    result: float | None = None
    reason: str = ""
    restarts: int = 0
    job_id: str | None = None
    measures: Measures = field(default_factory=Measures)

    @property
    def shown(self) -> str:
        """The result in words, ``test error 4.17 %``; empty before there is one."""
        return self.measures.shown_on_test(self.result)

    def plain(self) -> dict[str, Any]:
        """All of it in plain values; the result has its metric's name, as in summary.json."""
        values = asdict(self) | self.measures.as_recorded()
        del values["measures"]
        return values | {f"test_{self.measures.primary}": values.pop("result")}


class FolderRuns:
    """The run in a folder, or the runs of a study, with the jobs that make them.

    Args:
        folder: The folder.

    Raises:
        RunFolderError: There is no such folder, or nothing in it.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise RunFolderError(f"{folder}: no such folder")
        self._study = StudyFolder(folder)
        self._runs = _runs(self._study)
        if not self._runs:
            raise RunFolderError(
                f"{folder}: neither a run folder nor a study's: it has no {JOB_YAML}, no jobs and "
                "no runs"
            )
        self._jobs = _jobs(self._study, self._runs)

    def open_jobs(self) -> set[str]:
        """Return the numbers of the jobs of runs that are not finished: SLURM is to tell them."""
        return {
            job_id.partition("_")[0]
            for name, run in self._runs.items()
            if not run.is_finished()
            for job_id in self._jobs.get(name, [])
        }

    def statuses(self, answer: Answer) -> list[RunStatus]:
        """Return the status of each run.

        Args:
            answer: SLURM's word on `open_jobs`.
        """
        found = []
        for name, run in self._runs.items():
            ids = self._jobs.get(name, [])
            # The newest submission that SLURM knows of tells.
            known = [job_id for job_id in reversed(ids) if job_id in answer.states]
            job_id = known[0] if known else (ids[-1] if ids else None)
            log = self._study.slurm.log(job_id) if job_id else None
            silence = answer.silence if ids and not known else ""
            job = answer.states.get(job_id or "")
            found.append(run_status(name, run, job, job_id, log, silence))
        return found


def folder_status(folder: Path) -> list[RunStatus]:
    """Return the status of a run, or of all runs of a study.

    Raises:
        RunFolderError: There is no such folder, or nothing in it.
    """
    runs = FolderRuns(folder)
    return runs.statuses(job_states(runs.open_jobs()))


def run_status(
    name: str,
    run: RunFolder,
    job: JobState | None,
    job_id: str | None,
    log: Path | None = None,
    silence: str = "",
) -> RunStatus:
    """Return the status of one run.

    Args:
        name: Its name.
        run: Its folder, which may not exist.
        job: SLURM's word on the job that makes it.
        job_id: The number of that job.
        log: The output of that job.
        silence: Why SLURM does not say whether that job is in the queue; empty if it did say.
    """
    summary = run.summary(lenient=True)
    progress = run.progress()
    requeued = (job.restarts if job else None) or 0
    restarts = max(summary.get("restarts") or 0, requeued, len(run.restarts()))

    def told(state: State, reason: str = "") -> RunStatus:
        if silence and state not in ("done", "running"):
            unknown = f"SLURM does not say whether it is in the queue: {silence}"
            reason = f"{reason}; {unknown}" if reason else unknown
        return RunStatus(
            name,
            state,
            progress.epoch,
            progress.result,
            reason,
            restarts,
            job_id,
            progress.measures,
        )

    if summary.get("status") == "completed":
        return told("done", no_result(summary.get("not_numbers") or ()))
    if job and job.active:
        if job.state not in _RUNNING:
            return told("pending", job.reason)
        begun = run.is_run() and not summary
        return told("running", "; ".join(progress.missing) if begun else "starting")
    if summary.get("status") == "failed":
        return told("failed", str(summary.get("reason", "")))
    if job and job.state not in ("COMPLETED", *_RUNNING):
        return told("failed", _because(job, run, log))
    if summary.get("status") == "interrupted":
        return told("interrupted", str(summary.get("reason", "")))
    if run.summary_json.is_file() and not summary:
        return told("failed", f"{run.summary_json} cannot be read; rerun the command to resume")
    if not run.is_run():
        words = _last_words(run.output_log)
        if words:
            return told("failed", words)
        return told("unknown" if silence else "not started")
    return _silent(told, run, "; ".join(progress.missing))


def _silent(told: Callable[[State, str], RunStatus], run: RunFolder, missing: str) -> RunStatus:
    """A run that was begun, has not ended, and is in no queue that can be asked."""
    try:
        silent_s = time.time() - run.metrics_jsonl.stat().st_mtime
    except OSError:
        silent_s = float("inf")
    held = is_held(run.path)
    if held or (silent_s < _LIVELY_S and held is None):
        return told("running", missing)
    since = f"no sign of life for {silent_s:.0f} s" if silent_s != float("inf") else "no record"
    if held is False:
        since = f"its {holder(run.path)} is no more"
    words = _last_words(run.output_log)
    return told("unfinished", f"{since}; {words}" if words else since)


def _because(job: JobState, run: RunFolder, log: Path | None) -> str:
    words = _last_words(run.output_log) or _last_words(log)
    told = [job.state, job.reason if job.reason not in ("None", job.state) else "", words]
    return ": ".join(word for word in told if word)


def _runs(study: StudyFolder) -> dict[str, RunFolder]:
    """The runs of a study's folder by name, or the one that the folder itself is."""
    alone = RunFolder(study.path)
    names = [] if alone.is_run() else study.names()
    if names:
        return {name: study.run(name) for name in names}
    return {study.path.name: alone} if alone.is_run() or study.slurm.submissions() else {}


def _jobs(study: StudyFolder, runs: Mapping[str, RunFolder]) -> dict[str, list[str]]:
    """The jobs that make each run, oldest first."""
    found: dict[str, list[str]] = {name: [] for name in runs}
    for submission in study.slurm.submissions():
        if not submission.parts:
            for ids in found.values():
                ids.append(submission.job_id)
        for index in range(len(submission.parts)):
            for name in submission.names_of(index):
                found.setdefault(name, []).append(f"{submission.job_id}_{index}")
    for name, ids in found.items():
        if not ids and name in runs:  # `sbatch slurm/compare.sbatch` leaves no note
            ids += _own_job(runs[name].environment().get("variables"))
    return found


def _own_job(variables: Any) -> list[str]:
    if not isinstance(variables, Mapping):
        return []
    if "SLURM_ARRAY_JOB_ID" in variables and "SLURM_ARRAY_TASK_ID" in variables:
        return [f"{variables['SLURM_ARRAY_JOB_ID']}_{variables['SLURM_ARRAY_TASK_ID']}"]
    return [str(variables["SLURM_JOB_ID"])] if "SLURM_JOB_ID" in variables else []


def _last_words(file: Path | None) -> str:
    try:
        text = file.read_text(encoding="utf-8", errors="replace") if file else ""
    except OSError:
        return ""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("+ ")]
    return last_words("\n".join(lines)) if lines else ""

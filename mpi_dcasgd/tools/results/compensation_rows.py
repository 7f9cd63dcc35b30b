"""Runs of studies of delay compensation as rows: a study file's runs, and its tuning runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import mpi_dcasgd
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.study_folder import StudyFolder
from mpi_dcasgd.tools.results.kept import Kept
from mpi_dcasgd.tools.results.runs import compared, finite, row_of, seconds_of
from mpi_dcasgd.tools.results.studies import Row

_METRICS = ("error", "loss")


def part_rows(
    kept: Kept,
    name: str,
    part: str,
    *,
    tuned: bool,
    changes: Mapping[str, Any] | None = None,
    only: Sequence[str] | None = None,
) -> list[Row]:
    """Make the runs of a study file that are missing, and return a row for each.

    Args:
        kept: Where rows and runs are.
        name: Of the file in jobs/studies, without ``.yaml``.
        part: What rows have under ``part``; those of tuning runs have ``PART-tuning``.
        tuned: The file tunes its algorithms; a row of a tuning run ends with its error on the
            validation split.
        changes: Keys of the file that are others in a short form.
        only: Names or patterns of runs; None for all.

    Raises:
        DcasgdError: A run failed for another reason than that it diverged.
    """
    found = compared(
        kept,
        name,
        _METRICS,
        changes=changes,
        only=only,
        points=100,
        more=_settings,
        in_process=True,
        show=kept.show,
    )
    tuning = _tuning_rows(kept, name, part) if tuned else []
    return tuning + [{"part": part, **row} for row in found]


def _tuning_rows(kept: Kept, name: str, part: str) -> list[Row]:
    """A row for each tuning run, which ends with its error on the validation split."""
    rows = []
    tuning = StudyFolder(kept.folder / name).tuning
    for run_name in tuning.names():
        path = tuning.run(run_name).path
        if not tuning.run(run_name).summary(lenient=True):
            continue  # of another form of the study, and not at its end

        def make(path: Any = path) -> Row:
            run = mpi_dcasgd.Run(path)
            completed = run.status == "completed"
            error = finite(run.summary.get("validation_error")) if completed else None
            seconds = seconds_of(RunFolder(path))
            settings = _settings(run) | {"validation_error": error, "seconds": seconds}
            return row_of(run, ()) | settings

        row = kept.row({"study": name, "tuning": run_name}, make)
        rows.append({"part": f"{part}-tuning", **row})
    return rows


def _settings(run: mpi_dcasgd.Run) -> Row:
    """Settings of a run that its row has beside the learning rate."""
    rule = RunFolder(run.path).job()["rule"]
    found: Row = {
        key: rule["compensation"][key]
        for key in ("dc_lambda", "mean_square")
        if key in rule["compensation"]
    }
    if "momentum" in rule["momentum"]:
        found["momentum"] = rule["momentum"]["momentum"]
    if run.job.schedule.warmup_epochs:
        found["warmup_epochs"] = run.job.schedule.warmup_epochs
    if run.status != "completed":
        # What diverged has the error of an evaluation on its way, and no number of workers.
        found |= dict.fromkeys(_METRICS)
        if named := re.search(r"-w(\d+)", run.path.name):
            found["workers"] = int(named[1])
    return found

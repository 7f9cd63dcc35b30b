"""A report's section "Looking closer": staleness over time and by worker, and what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_runs import synthetic_run

from mpi_dcasgd import closeup, report, simulate
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.trace import Trace
from mpi_dcasgd.reporting.closer import course_of, look_closer
from mpi_dcasgd.server.records import Action

JOB: dict[str, Any] = {
    "algorithm": "dcasgd-c",
    "epochs": 2,
    "batch_size": 1,
    "lr": 0.02,
    "task": {"name": "quadratic", "dimension": 3, "samples": 40},
}


def trace_of(staleness: list[int], workers: list[int], action: Action = Action.APPLIED) -> Trace:
    """One push a second; every third is dropped, and counts for nothing."""
    n = len(staleness)
    actions = np.array([Action.DROPPED if k % 3 == 2 else action for k in range(n)], np.uint8)
    whole = [np.array(values, np.int64) for values in (workers, range(n), range(n), staleness)]
    times_us = 1_000_000 * np.arange(1, n + 1)
    return Trace({}, *whole, actions, times_us, np.zeros(n, np.int64), False, "completed")


def section_of(markdown: Path) -> str:
    """The section's text."""
    return markdown.read_text().partition("## Looking closer")[2].partition("\n## ")[0]


def test_staleness_is_followed_over_time_and_by_worker() -> None:
    # Worker 0 is always 1 behind; worker 1 is 2 behind in the first half and 8 in the second.
    workers = [k % 2 for k in range(120)]
    stale = [(1, 2 if k < 60 else 8)[k % 2] for k in range(120)]
    stale = [99 if k % 3 == 2 else one for k, one in enumerate(stale)]
    course = course_of(trace_of(stale, workers))
    assert course is not None
    # 80 entered: with two workers 10 points, of which each has 8 pushes.
    assert len(course.times_s) == 10
    np.testing.assert_allclose(course.mean, [1.5] * 5 + [4.5] * 5)
    np.testing.assert_allclose(course.low, 1)
    np.testing.assert_allclose(course.high, [2] * 5 + [8] * 5)
    assert course.times_s[0] == pytest.approx(5.95)
    assert course.workers == {0: (1.0, 1.0, 1.0, 1), 1: (5.0, 2.0, 8.0, 8)}


def test_a_stretch_without_pushes_has_no_value() -> None:
    trace = trace_of([1] * 48, [0] * 48)
    trace.time_us[24:] += 40_000_000
    course = course_of(trace)
    assert course is not None
    assert np.isnan(course.mean).any()
    np.testing.assert_allclose(course.mean[np.isfinite(course.mean)], 1)


def test_without_staleness_there_is_nothing_to_follow() -> None:
    assert course_of(trace_of([0] * 9, [0] * 9)) is None


@pytest.mark.slow
def test_the_report_shows_what_was_measured_and_says_what_could_be(tmp_path: Path) -> None:
    runs = [
        simulate(JOB, workers=2, algorithm=name, delays="gamma", run_dir=tmp_path / name)
        for name in ("asgd", "dcasgd-c")
    ]
    paths = [run.path for run in runs]
    markdown = report(paths, tmp_path / "a").markdown
    section = section_of(markdown)
    assert "closer_staleness_over_time.png" in section
    assert "closer_staleness_by_worker.png" in section
    assert "`mpi-dcasgd closeup RUN`" in section
    assert "closer_" not in markdown.read_text().partition("## Plots")[2].partition("\n## ")[0]

    for run in runs:
        closeup(run)
    written = report(paths, tmp_path / "b")
    section = section_of(written.markdown)
    assert "closer_gap_and_steps.png" in section
    rows = [line for line in section.splitlines() if line.startswith(("| asgd", "| dcasgd-c"))]
    assert [row.split("|")[2].strip() for row in rows] == ["80", "80"]
    assert rows[0].split("|")[-2].strip() == "-"  # nothing compensates
    assert float(rows[1].split("|")[-2]) > 0
    assert "closeup RUN" not in section
    assert "<summary>Looking closer</summary>" in written.html.read_text()

    file = RunFolder(runs[1].path).closeup_jsonl
    file.write_text(file.read_text().replace('"gap": 0.0,', '"gap": 9.0,', 1))
    section = (
        report([run.path for run in runs], tmp_path / "c")
        .markdown.read_text()
        .partition("## Looking closer")[2]
    )
    assert "Left out: " in section
    assert "do not match their digest" in section


def test_of_runs_without_a_trace_only_warnings_are_shown(tmp_path: Path) -> None:
    folder = synthetic_run(tmp_path, "ssgd")
    RunFolder(folder).trace_bin.unlink(missing_ok=True)
    assert look_closer(RunFolder(folder), None, []).course is None
    section = section_of(report([folder], tmp_path / "out").markdown)
    assert "Runs warned of:" in section
    assert "- ssgd: the training loss does not fall" in section
    assert "Staleness over time" not in section


def test_a_warning_says_of_which_runs_it_is(tmp_path: Path) -> None:
    lags, common = "worker 1 lags: 60 ms a step, 3.0 times the usual 20 ms", "the server is busy"
    folders = [synthetic_run(tmp_path, seed=seed) for seed in (1, 2, 3)]
    for folder, texts in zip(folders, ([common], [lags, common, lags], []), strict=True):
        events = [{"event": "warning", "time_s": 0, "kind": t, "text": t} for t in texts]
        with open(RunFolder(folder).metrics_jsonl, "a") as file:
            file.writelines(json.dumps(event) + "\n" for event in events)
    names = [folder.name for folder in folders]
    told = [
        f"- asgd ({names[0]}, {names[1]}): {common}",
        f"- asgd ({names[1]}): {lags}",
    ]
    section = section_of(report(folders, tmp_path / "out").markdown)
    of_all, *others = [line for line in section.splitlines() if line.startswith("- ")]
    assert of_all.startswith(f"- asgd ({', '.join(names)}): the training loss does not fall")
    assert others == told
    alone = section_of(report(folders[1], tmp_path / "alone").markdown)
    assert f"- asgd: {lags}\n" in alone

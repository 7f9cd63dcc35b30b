"""More workers than minibatches: how many get none is told before they wait for nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mpi_dcasgd.config.load import make_job
from mpi_dcasgd.runs.dry_run import describe_needs
from mpi_dcasgd.runs.idle_workers import idle_workers
from mpi_dcasgd.runs.result import Run
from mpi_dcasgd.runs.simulate import simulate

JOB: dict[str, Any] = {
    "algorithm": "asgd",
    "epochs": 1,
    "batch_size": 8,
    "lr": 0.1,
    "model": {"name": "mlp", "hidden": [4]},
    "data": {"name": "synthetic", "num_train": 40, "num_test": 8, "shape": [3]},
    "record": {"progress": "off"},
}


def warned_by(run: Run) -> list[str]:
    return [event["text"] for event in run.metrics("warning") if event["kind"] == "idle workers"]


@pytest.mark.parametrize(
    ("changes", "workers", "told"),
    [
        ({}, 5, ""),
        ({}, 6, "1 of 6 workers gets no minibatch: the run has only 5; use fewer workers, a "),
        ({}, 8, "3 of 8 workers get no minibatch: the run has only 5; use fewer workers, a "),
        ({"epochs": 2}, 8, ""),
        ({"ahead": 2}, 2, ""),
        (
            {"ahead": 2},
            4,
            "2 of 4 workers get no minibatch: the run has only 5, and a worker is given 3 at a "
            "time (ahead); use fewer workers, a smaller batch_size or more epochs",
        ),
        (
            {"algorithm": "ssgd", "epochs": 3},
            7,
            "2 of 7 workers get no minibatch: an epoch has only 5; use fewer workers or a smaller "
            "batch_size",
        ),
        ({"algorithm": "ssgd", "sync": {"accumulate": 2}}, 6, "1 of 6 workers gets no minibatch"),
        ({"algorithm": "ssgd"}, 5, ""),
    ],
)
def test_as_many_workers_are_idle_as_is_told(
    changes: dict[str, Any], workers: int, told: str, tmp_path: Path
) -> None:
    job = {**JOB, **changes}
    run = simulate(job, workers=workers, delays="constant", run_dir=tmp_path / "run")
    texts = warned_by(run)
    assert [text.startswith(told) for text in texts] == [True] * bool(told)
    steps = [event["updates"] for event in run.metrics("worker")]
    assert sum(count == 0 for count in steps) == (int(told.partition(" ")[0]) if told else 0)


def test_a_run_that_resumes_tells_of_what_is_left() -> None:
    job = make_job({**JOB, "epochs": 9}, Path("x.yaml"))
    told = idle_workers(job, num_workers=4, tickets=3, num_samples=40, resumed=True)
    assert told.startswith("1 of 4 workers gets no minibatch: the run has only 3 left; use")
    assert idle_workers(job, num_workers=4, tickets=0, num_samples=40, resumed=True) == ""


def test_a_dry_run_tells_it_too() -> None:
    job = make_job(JOB, Path("x.yaml"))
    assert "\n\nwarning: 3 of 8 workers get no minibatch: " in describe_needs(job, 9)
    assert "warning" not in describe_needs(job, 6)

"""Learning rates held against the largest stable one, where the curvature of the loss is known."""

from __future__ import annotations

import doctest
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import mpi_dcasgd.record.rate_limit
import mpi_dcasgd.tools.largest_rate
from mpi_dcasgd import Run, report, sharpness, simulate
from mpi_dcasgd.cli import main
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning.task import Task
from mpi_dcasgd.learning.tasks.least_squares import LeastSquares
from mpi_dcasgd.learning.tasks.quadratic import Quadratic
from mpi_dcasgd.record.rate_limit import RateLimit, exceeded_at_the_end
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.warnings import RATE, Warnings
from mpi_dcasgd.rules.algorithms import resolve_rule
from mpi_dcasgd.runs.rate_limit import rate_limit
from mpi_dcasgd.tools.largest_rate import LargestRate

JOB: dict[str, Any] = {
    "algorithm": "asgd",
    "epochs": 1,
    "batch_size": 1,
    "lr": 0.5,
    "task": {"name": "quadratic", "dimension": 20, "samples": 200, "noise": 0.001},
}


def run_of(folder: Path, **changes: Any) -> Run:
    return simulate(JOB, workers=6, delays="constant", run_dir=folder / "run", **changes)


def warned(run: Run) -> list[str]:
    return [event["text"] for event in run.metrics("warning") if event["kind"] == RATE]


@pytest.mark.parametrize("module", [mpi_dcasgd.record.rate_limit, mpi_dcasgd.tools.largest_rate])
def test_examples_run(module: Any) -> None:
    failed, tried = doctest.testmod(module)
    assert tried
    assert not failed


def test_tasks_know_their_largest_curvature() -> None:
    task: Task = Quadratic(dimension=7, noise=0.0)
    x = torch.zeros(7, dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(lambda x: task.loss(lambda: x, [0]), x)
    assert task.curvature() == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-9)

    task = LeastSquares(samples=50, dimension=9)
    rows = task.train_data()[0].double().numpy()
    expected = np.linalg.eigvalsh(rows.T @ rows / len(rows))[-1]
    assert task.curvature() == pytest.approx(expected, rel=1e-9)
    assert Task().curvature() is None


def test_the_limit_between_two_delays_and_beyond_the_computed_ones() -> None:
    largest = LargestRate(resolve_rule("asgd"), "asgd")

    def giladi(tau: int) -> float:
        return 2 * math.sin(math.pi / (2 * (2 * tau + 1)))

    assert largest.between(3.0) == pytest.approx(giladi(3), rel=1e-4)
    assert giladi(4) < largest.between(3.5) < giladi(3)
    assert largest.between(200.25) == pytest.approx(math.pi / 401.5, rel=1e-3)


def test_a_rate_beyond_the_limit_is_told_once_with_the_delay_that_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path)
    (text,) = warned(run)
    assert "times the largest stable one" in text
    assert "0.9944 (which the task knows)" in text
    assert f"warning: {text}" in (run.path / "logs" / "rank-0.log").read_text()
    # It was right: the run has diverged.
    assert run.metrics("evaluation")[-1]["test_f_gap"] > 1e6
    assert main(["watch", str(run.path)]) == 0
    assert f"warning: {text}" in capsys.readouterr().out
    markdown = report([run.path], tmp_path / "report").markdown.read_text()
    assert f"beyond the stability limit of the delay. asgd: {text}" in markdown


@pytest.mark.parametrize(
    "changes",
    [
        {"lr": 0.2},  # 2 sin(pi / 22) is 0.285
        {"algorithm": "ssgd"},  # nothing is stale
        {"schedule": {"warmup_epochs": 1.0, "warmup_from": 0.0}, "lr": 0.25},
        # Its steps are not linear near a minimum, and nothing is known of it.
        {"lr": 0.01, "rule": {"momentum": {"name": "adam"}}},
    ],
)
def test_a_rate_within_the_limit_or_without_one_is_no_news(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    assert warned(run_of(tmp_path, **changes)) == []


def test_momentum_lowers_the_limit(tmp_path: Path) -> None:
    changes = {"rule": {"momentum": {"name": "heavy-ball", "momentum": 0.9}}}
    assert warned(run_of(tmp_path, lr=0.2, **changes))


def test_few_delays_prove_nothing() -> None:
    limit = RateLimit(1.0, "", lambda samples: 0.9, lambda staleness: 1.0 - staleness / 4)
    warnings = Warnings()
    assert not warnings.of_rate(limit, 10, {1: 31}, 4)
    (told,) = warnings.of_rate(limit, 10, {1: 32}, 4)
    assert told.kind == RATE
    assert not Warnings(warnings.state_dict()).of_rate(limit, 10, {1: 99}, 4)
    assert not Warnings().of_rate(limit, 10, {0: 99}, 4)


def test_sharpness_is_kept_and_the_rate_held_against_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = JOB | {"lr": 6.0, "task": {"name": "logistic", "samples": 100, "dimension": 5}}
    run = simulate(job, workers=12, delays="constant", run_dir=tmp_path / "run")
    assert not warned(run)  # its curvature is another everywhere
    found = sharpness(run)
    kept = RunFolder(run.path).sharpness()
    assert kept["curvature"] == found.found.value
    mean = next(row for row in kept["allowed"] if row["what"].startswith("mean"))
    assert mean["share"] > 1
    text = exceeded_at_the_end(kept)
    assert text.startswith(f"lr 6 at the end is {mean['share']:.2g} times the largest stable one")
    assert main(["watch", str(run.path)]) == 0
    assert f"warning: {text}" in capsys.readouterr().out
    markdown = report([run.path], tmp_path / "report").markdown.read_text()
    assert f"beyond the stability limit of the delay. asgd: {text}" in markdown

    sharpness(run, workers=[2])  # of delays that the run did not have
    assert exceeded_at_the_end(RunFolder(run.path).sharpness()) == ""
    # The run is not lost with a file that says nothing about it.
    RunFolder(run.path).sharpness_json.write_text("{")
    assert main(["watch", str(run.path)]) == 0
    assert "do" in report([run.path], tmp_path / "again").markdown.read_text()


def test_only_a_rule_whose_limit_is_known_is_held_against_it() -> None:
    row = {"what": "mean staleness 3", "used_lr": 2.0, "stable_lr": 1.0, "formula": False}
    assert exceeded_at_the_end({"allowed": [row], "curvature": 1.0})
    assert not exceeded_at_the_end({"allowed": [row | {"formula": True}], "curvature": 1.0})
    assert not exceeded_at_the_end({"allowed": [row], "curvature": 1.0, "last_lr": 0.5})
    assert not exceeded_at_the_end({"allowed": [row | {"stable_lr": None}], "curvature": 1.0})
    assert not exceeded_at_the_end({})


class Sharp(Task):
    """A task that says what it is told to."""

    def __init__(self, found: Any = None) -> None:
        self._found = found

    def curvature(self) -> Any:
        if isinstance(self._found, Exception):
            raise self._found
        return self._found


def limit_of(folder: Path, found: Any, stretches: tuple[Any, ...] = ()) -> RateLimit | None:
    workshop: Any = SimpleNamespace(
        subject=SimpleNamespace(task=Sharp(found)), job=SimpleNamespace(algorithm="asgd")
    )
    server: Any = SimpleNamespace(
        layout=SimpleNamespace(stretches=stretches),
        rule=resolve_rule("asgd"),
        schedule=lambda samples: 0.1,
    )
    return rate_limit(RunFolder(folder), workshop, server)


def test_a_run_that_is_resumed_has_what_sharpness_found(tmp_path: Path) -> None:
    assert limit_of(tmp_path, None) is None
    RunFolder(tmp_path).write_sharpness({"curvature": 25.0})
    limit = limit_of(tmp_path, None)
    assert limit is not None
    assert limit.curvature == 25.0
    assert "2.5 times" in limit.exceeded(10, {1: 5})
    task = limit_of(tmp_path, 3)  # knows better
    assert task is not None
    assert task.curvature == 3.0
    assert limit_of(tmp_path, 3, stretches=("a group",)) is None
    for content in ("{", json.dumps({"curvature": -1.0}), json.dumps({"curvature": "x"})):
        RunFolder(tmp_path).sharpness_json.write_text(content)
        assert limit_of(tmp_path, None) is None


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (-1.0, r"Sharp\.curvature returned -1\.0; allowed: a number > 0"),
        (math.inf, "returned inf"),
        ("steep", "returned 'steep'"),
        (ValueError("no idea"), r"Sharp\.curvature.*\n?.*raised ValueError: no idea"),
    ],
)
def test_a_task_that_gets_its_curvature_wrong_is_told(
    tmp_path: Path, found: Any, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        limit_of(tmp_path, found)

"""Arguments of the Python API: refused by name before anything begins, or taken."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mpi_dcasgd
from mpi_dcasgd.cli import main
from mpi_dcasgd.errors import ConfigError, UserError
from mpi_dcasgd.learning.settings import Count, Finite
from mpi_dcasgd.runs.arguments import check_arguments, several
from mpi_dcasgd.runs.compare import plan_comparison, report_study
from mpi_dcasgd.tools.launch import world as launch
from mpi_dcasgd.tools.launch.srun import MPIRUN_VARIABLE, SRUN_VARIABLE, srun_command

JOB = {
    "algorithm": "asgd",
    "epochs": 1,
    "batch_size": 16,
    "lr": 0.1,
    "model": {"name": "mlp"},
    "data": {"name": "digits"},
}
FUNCTIONS = [
    *(
        found
        for name in mpi_dcasgd.__all__
        if inspect.isfunction(found := getattr(mpi_dcasgd, name))
    ),
    *(plan_comparison, report_study),
]
METHODS = [
    *(mpi_dcasgd.Run.__init__, mpi_dcasgd.Run.metrics, mpi_dcasgd.Run.weights),
    mpi_dcasgd.Calibration.write,
]


class Alien:
    """An object that is of use for nothing."""

    def __repr__(self) -> str:
        return "Alien()"


@pytest.mark.parametrize("function", [*FUNCTIONS, *METHODS], ids=lambda f: f.__qualname__)
def test_every_argument_is_refused_by_name_and_all_of_them_at_once(
    function: Callable[..., Any],
) -> None:
    parameters = inspect.signature(function).parameters.values()
    fixed = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name != "self"]
    first = [None] if function in METHODS else []
    with pytest.raises(ConfigError) as caught:
        list(function(*first, **{name: Alien() for name in fixed}))  # a generator begins late
    assert caught.value.where == function.__qualname__.removesuffix(".__init__")
    starts = [line.partition("; allowed: ")[0] for line in caught.value.problems]
    # A task is a setting of the job, and is checked with it.
    assert starts == [f"{name}: got Alien()" for name in fixed if name != "task"]


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda api: api.train(JOB, 3), "comm: got 3 (a whole number); allowed: a communicator"),
        (lambda api: api.train(None), "job: got None; allowed: a Job, a path or a mapping"),
        (lambda api: api.simulate(3), "job: got 3 (a whole number); allowed: a Job, a path or a"),
        (lambda api: api.compare({}), "study: got {} (a mapping); allowed: a Study or a path"),
        (lambda api: api.replay(None), "run: got None; allowed: a Run or a path"),
        (lambda api: api.Run(None), "path: got None; allowed: a path"),
        (lambda api: api.report("a", "b", target="x"), "target: got 'x' (text); allowed: a number"),
        (lambda api: api.report("a", "b", target=math.nan), "target: got nan (not a finite num"),
        (lambda api: api.report("a", "b", target_error=5), "target_error: got 5 (a whole number)"),
        (lambda api: api.report(["a", 3], "b"), "runs: got ['a', 3] (a list); allowed: a path or"),
        (lambda api: api.advise(JOB, cluster=5), "cluster: got 5 (a whole number); allowed: a pat"),
        (lambda api: api.train(JOB, on_error="x"), "on_error: got 'x' (text); allowed: one of ab"),
        (lambda api: api.compare("s", part=(1,)), "part: got (1,) (a list); allowed: a pair of w"),
        (lambda api: api.compare("s", rerun=1), "rerun: got 1 (a whole number); allowed: True or"),
        (lambda api: next(api.watch("r", -1)), "every_s: got -1 (a whole number); allowed: a num"),
        (lambda api: api.sharpness(JOB, workers=[2, 0]), "workers: got [2, 0] (a list); allowed:"),
    ],
)
def test_a_wrong_argument_is_told_with_what_is_allowed(
    call: Callable[[Any], Any], told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        call(mpi_dcasgd)
    [line] = caught.value.problems
    assert line.startswith(told)


def test_numbers_of_other_libraries_and_paths_of_other_kinds_are_taken() -> None:
    def function(
        count: Count, share: float, several: Sequence[Count] | None, place: Path | str
    ) -> None:
        check_arguments(function, locals())

    class Place:
        def __fspath__(self) -> str:
            return "place"

    function(np.int64(3), np.float32(0.5), np.array([1, 2]), Place())  # type: ignore[arg-type]
    function(3, 1, None, "place")
    for wrong in (0, 2.5, True, "3"):
        with pytest.raises(ConfigError, match=r"count: got .*; allowed: a whole number >= 1"):
            function(wrong, 0.5, (1,), "place")  # type: ignore[arg-type]


def test_what_is_nearly_a_number_or_a_list_is_refused_by_name() -> None:
    def function(counts: Sequence[Count], share: float, finite: Finite) -> None:
        check_arguments(function, locals())

    wrong: dict[str, Any] = {
        "counts": (np.array(4), b"\x04", "4", {4: 4}),
        "share": (math.nan, 10**400),
        "finite": (math.inf, 10**400),
    }
    right: dict[str, Any] = {"counts": [4], "share": math.inf, "finite": 1.5}
    function(**right)
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(ConfigError) as caught:
                function(**{**right, name: value})
            [line] = caught.value.problems
            assert line.startswith(f"{name}: got ")


def test_paths_of_other_kinds_are_followed(tmp_path: Path) -> None:
    mpi_dcasgd.train(JOB, algorithm="sgd", run_dir=tmp_path / "runs/one")
    [entry] = os.scandir(tmp_path / "runs")
    report = mpi_dcasgd.report(entry, tmp_path / "report")  # type: ignore[arg-type]
    assert "sgd " in report.table
    found = (tmp_path / "runs").glob("*")
    assert mpi_dcasgd.report(found, tmp_path / "report").table == report.table  # type: ignore[arg-type]
    (tmp_path / "cluster.yaml").write_text("{delays: constant}")
    [cluster] = [each for each in os.scandir(tmp_path) if each.name == "cluster.yaml"]
    timing = mpi_dcasgd.simulate_timing(
        JOB, algorithm="asgd", workers=2, cluster=cluster, updates=4
    )
    assert timing.time_s > 0


def _compare(place: Path) -> None:
    mpi_dcasgd.compare("jobs/compare_digits.yaml", place, mpirun_args="--x 'y")


def _plan(place: Path) -> None:
    launch.plan(2, ["true"], mpirun="/bin/true")


@pytest.mark.parametrize(
    ("call", "source"),
    [
        (_compare, "compare: mpirun_args"),
        (_plan, MPIRUN_VARIABLE),
        (lambda place: srun_command(2, ["true"]), SRUN_VARIABLE),
    ],
)
def test_arguments_of_the_launcher_with_an_open_quotation_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[[Path], None], source: str
) -> None:
    if source in (MPIRUN_VARIABLE, SRUN_VARIABLE):
        monkeypatch.setenv(source, "--x 'y")
    told = r"got \"--x 'y\"; allowed: words as in a shell \(no closing quotation\)"
    with pytest.raises(UserError, match=rf"^{source}: {told}"):
        call(tmp_path)


@pytest.mark.parametrize(
    "words", [["run", "-n", "2", "jobs/digits.yaml"], ["compare", "jobs/compare_digits.yaml"]]
)
def test_commands_refuse_an_open_quotation(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--mpirun-args=--x 'y"]) == 2
    assert '--mpirun-args: got "--x \'y"; allowed: words as in' in capsys.readouterr().err


def test_a_communicator_that_is_none_is_refused_without_asking_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mpi_dcasgd.runs.train.fail_together", pytest.fail)
    with pytest.raises(ConfigError, match="comm: got 'world'"):
        mpi_dcasgd.train(JOB, comm="world")  # type: ignore[arg-type]


def test_one_name_is_a_list_of_one(tmp_path: Path) -> None:
    assert several("asgd") == ("asgd",)
    assert mpi_dcasgd.load_job(JOB, words="lr=0.5").lr == 0.5
    (tmp_path / "job.yaml").write_text(
        "{algorithm: asgd, epochs: 1, batch_size: 16, lr: 0.1, model: {name: mlp}, "
        "data: {name: digits}}"
    )
    study = tmp_path / "study.yaml"
    study.write_text("{job: job.yaml, algorithms: [sgd, asgd], workers: [2]}")
    plan = plan_comparison(study, tmp_path / "out", only="asgd*")
    assert [element.name for element in plan.elements] == ["asgd-w2-s0"]
    with pytest.raises(ConfigError) as caught:
        mpi_dcasgd.compare(study, tmp_path / "out", only="bsgd")
    assert len(caught.value.problems) == 1


def test_a_task_that_is_none_is_refused_by_a_study_as_by_a_job(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("{algorithm: sgd, epochs: 1, batch_size: 16, lr: 0.1}")
    study = tmp_path / "study.yaml"
    study.write_text("{job: job.yaml, algorithms: [sgd]}")
    with pytest.raises(ConfigError, match=r"task: got 5 \(a whole number\); allowed: a mapping"):
        mpi_dcasgd.compare(study, task=5)  # type: ignore[arg-type]

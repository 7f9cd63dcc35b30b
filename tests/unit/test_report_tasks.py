"""Reports of runs whose task is not classification: names, units, directions, validation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from synthetic_runs import synthetic_run

from mpi_dcasgd.cli import main
from mpi_dcasgd.config.study import load_study
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning.measures import Measures
from mpi_dcasgd.reporting.collect import collect
from mpi_dcasgd.reporting.content import setting_of
from mpi_dcasgd.reporting.curves import draw_curves
from mpi_dcasgd.reporting.document import Table
from mpi_dcasgd.reporting.groups import Group, group_runs
from mpi_dcasgd.reporting.prediction import prediction_table
from mpi_dcasgd.reporting.remarks import remarks
from mpi_dcasgd.reporting.table import Matching, metrics_table, result_table, target_table
from mpi_dcasgd.reporting.time_to_error import sooner_note, sooner_table
from mpi_dcasgd.reporting.write import Report, write_report

ACCURACY = Measures("accuracy", higher_is_better=True, units={"accuracy": "%", "top5": "%"})
GAP = Measures("f_gap", units={})
OWN: dict[str, Any] = {"measures": ACCURACY, "first_error": 0.4, "final_error": 0.8}
CONVEX: dict[str, Any] = {"measures": GAP, "first_error": 2.0, "final_error": 2e-7}


def job(task: str) -> dict[str, Any]:
    return {"task": {"name": task}}


def groups_in(folder: Path) -> list[Group]:
    return group_runs(collect([folder]).runs)


def row(table: Table, number: int = 0) -> dict[str, str]:
    return dict(zip(table.header, table.rows[number], strict=True))


def result(groups: list[Group]) -> Table:
    return result_table(groups, Matching.of(groups))


def change(run: Path, summary: dict[str, Any], *events: dict[str, Any]) -> None:
    """Change a run's summary, and its evaluations from the first on."""
    path = run / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | summary))
    path = run / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    left = list(events)
    for line in lines:
        if line["event"] == "evaluation" and left:
            line |= left.pop(0)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_columns_have_the_metrics_name_and_unit(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path, **OWN)
    value = json.loads((run / "summary.json").read_text())["test_accuracy"]
    assert row(result(groups_in(tmp_path)))["test accuracy %"] == f"{100 * value:.2f}"


def test_a_metric_without_a_unit_has_digits_that_are_worth_reading(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        run = synthetic_run(tmp_path, seed=seed, **CONVEX)
        change(run, {"test_f_gap": seed * 1.2345678e-7, "best_test_f_gap": seed * 1.2345678e-7})
    assert row(result(groups_in(tmp_path)))["test f_gap"] == "2.469e-07 ± 1.2e-07"


def test_a_run_that_diverged_leaves_no_mean_to_believe_in(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        run = synthetic_run(tmp_path, "dcasgd-a", seed=seed, **CONVEX)
        synthetic_run(tmp_path, "asgd", seed=seed, **CONVEX)
    change(run, {"test_f_gap": None}, *[{}] * 3, {"test_f_gap": None}, {"test_f_gap": None})
    groups = groups_in(tmp_path)
    table = result(groups)
    assert row(table, 0)["test f_gap"] != "-"
    assert row(table, 1)["algorithm"] == "dcasgd-a"
    assert row(table, 1)["test f_gap"] == "-"
    found = [text for text in remarks(groups, groups[1].runs) if "not a finite number" in text]
    assert [text.partition(":")[0] for text in found] == [
        "Runs whose final test f_gap is not a finite number (dcasgd-a"
    ]
    assert "1 of 3)" in found[0]
    curve = groups[1].curve()
    assert [point.value == point.value for point in curve] == [True, True, True, False, False]
    draw_curves(Figure(), groups, "convex", "f_gap")


def test_the_value_at_equal_time_is_not_that_of_the_runs_that_did_not_diverge(
    tmp_path: Path,
) -> None:
    for seed in (1, 2):
        slow = synthetic_run(tmp_path, "ssgd", seed=seed, rate=5_000, **CONVEX)
        synthetic_run(tmp_path, "asgd", seed=seed, **CONVEX)
    change(slow, {}, *[{"test_f_gap": None}] * 5)
    table = result(groups_in(tmp_path))
    [name] = [name for name in table.header if name.startswith("f_gap at ")]
    assert row(table, 0)["algorithm"] == "ssgd"
    assert row(table, 0)[name] == "-"
    assert row(table, 1)[name] != "-"


def test_all_metrics_have_a_table_unless_the_result_has_them_all(tmp_path: Path) -> None:
    more = {"top5": 0.95, "loss": 0.7}
    synthetic_run(tmp_path / "own", more=more, validation=0.5, **OWN)
    table = metrics_table(groups_in(tmp_path / "own"))
    assert table is not None
    assert table.header == (
        *("algorithm", "workers", "test accuracy %", "test top5 %", "test loss"),
        *("validation accuracy %", "validation top5 %", "validation loss", "train loss"),
    )
    assert (row(table)["test top5 %"], row(table)["test loss"]) == ("95.00", "0.7")
    synthetic_run(tmp_path / "plain")
    assert metrics_table(groups_in(tmp_path / "plain")) is None
    synthetic_run(tmp_path / "loss", measures=Measures("loss", units={}), more={})
    assert metrics_table(groups_in(tmp_path / "loss")) is None
    synthetic_run(tmp_path / "gap", more={"loss": 0.7}, **CONVEX)
    assert metrics_table(groups_in(tmp_path / "gap")) is not None


@pytest.mark.parametrize(("options", "target"), [(OWN, 0.6), (CONVEX, 1e-4)])
def test_a_target_is_reached_in_the_metrics_direction(
    tmp_path: Path, options: dict[str, Any], target: float
) -> None:
    synthetic_run(tmp_path, epochs=9, **options)
    groups = groups_in(tmp_path)
    [run] = groups[0].runs
    higher = run.measures.higher_is_better
    there = [p for p in run.points if (p.value >= target if higher else p.value <= target)]
    assert 0 < len(there) < len(run.points) - 1
    assert row(target_table(groups, target))["epochs"] == f"{there[0].epoch:.1f}"


def test_a_validation_split_decides_when_a_target_was_reached_and_what_is_best(
    tmp_path: Path,
) -> None:
    run = synthetic_run(tmp_path, validation=1.0, **OWN)
    change(
        run,
        {"best_test_accuracy": 0.55, "best_validation_accuracy": 0.9},
        {"test_accuracy": 0.99, "validation_accuracy": 0.5},
        {"test_accuracy": 0.55, "validation_accuracy": 0.9},
    )
    groups = groups_in(tmp_path)
    assert row(target_table(groups, 0.85))["epochs"] == "2.0"
    assert row(result(groups))["best %"] == "55.00"
    assert "validation accuracy %" in result(groups).header
    told = " ".join(remarks(groups, groups[0].runs))
    assert (
        '"Best" is the test accuracy of the weights with the highest validation accuracy; the test'
        " set chose nothing." in told
    )
    assert "flattering" not in told


def test_best_by_the_test_set_is_told_in_its_direction(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path, **OWN)
    change(run, {"best_test_accuracy": 0.99})
    groups = groups_in(tmp_path)
    told = " ".join(remarks(groups, groups[0].runs))
    assert '"Best" is the highest of all evaluations, chosen by the test set itself' in told


def test_a_validation_split_in_some_of_the_runs_is_told(tmp_path: Path) -> None:
    synthetic_run(tmp_path, "asgd", validation=1.0, **OWN)
    synthetic_run(tmp_path, "dcasgd-a", **OWN)
    groups = groups_in(tmp_path)
    told = " ".join(remarks(groups, [run for group in groups for run in group.runs]))
    assert "Some runs have a validation split that chose their best weights, others none" in told


def test_sooner_or_later_is_told_at_the_best_that_all_reached(tmp_path: Path) -> None:
    synthetic_run(tmp_path, "ssgd", **OWN)
    synthetic_run(tmp_path, "asgd", **OWN)
    groups = groups_in(tmp_path)
    table = sooner_table(groups)
    assert table is not None
    worst = min(max(p.value for p in run.points) for group in groups for run in group.runs)
    assert row(table)["at accuracy %"] == f"{100 * worst:.2f}"
    assert sooner_note(groups).startswith("Each row at the highest test accuracy that all its runs")


def test_a_prediction_is_of_the_primary_metric(tmp_path: Path) -> None:
    synthetic_run(tmp_path, **CONVEX)
    twin = synthetic_run(tmp_path, driver="simulator", **CONVEX)
    change(twin, {"test_f_gap": 0.25})
    table = prediction_table(groups_in(tmp_path))
    assert table is not None
    place = table.header.index("test f_gap measured")
    assert table.rows[0][place + 1] == "0.25"
    assert table.rows[0][place] != "0.25"


def test_a_log_axis_of_many_decades_has_few_ticks_and_an_accuracy_no_zero(tmp_path: Path) -> None:
    synthetic_run(tmp_path / "gap", **CONVEX)
    synthetic_run(tmp_path / "own", **OWN)
    figure = Figure()
    draw_curves(figure, groups_in(tmp_path / "gap"), "convex", "f_gap")
    assert figure.axes[0].get_yscale() == "log"
    figure.canvas.draw()
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert "0.01" in shown
    assert len(shown) < 15
    figure = Figure()
    draw_curves(figure, groups_in(tmp_path / "own"), "own", "accuracy")
    assert figure.axes[0].get_ylim()[0] > 0
    figure.canvas.draw()
    assert all(label.get_text().endswith(" %") for label in figure.axes[0].get_yticklabels())


# The report as a whole


@pytest.fixture
def reported(tmp_path: Path) -> Callable[..., Report]:
    """``reported(**options)`` reports runs of two tasks."""
    for seed in (1, 2):
        synthetic_run(tmp_path, seed=seed, job=job("my_task:Char"), **OWN)
        synthetic_run(tmp_path, seed=seed, job=job("quadratic"), **CONVEX)
    return lambda **options: write_report([tmp_path], tmp_path / "report", **options)


def test_runs_of_different_tasks_are_compared_apart(reported: Callable[..., Report]) -> None:
    report = reported()
    assert [len(group.runs) for group in report.groups] == [2, 2]
    text = report.markdown.read_text()
    assert "## my_task:Char (accuracy): Result" in text
    assert "## quadratic (f_gap): Result" in text
    assert "nothing is averaged over several" in text
    assert "nothing is averaged over several" in report.table
    assert {path.name for path in report.plots if "_vs_time" in path.name} in (
        {"task-1-accuracy_vs_time.png", "task-2-f_gap_vs_time.png"},
        {"task-1-f_gap_vs_time.png", "task-2-accuracy_vs_time.png"},
    )
    assert all(path.is_file() for path in report.plots)
    # The list of runs has both, each with its own name and unit.
    [*_, runs] = text.partition("## Runs\n")
    assert runs.count("| test accuracy ") == 2
    assert runs.count("| test f_gap ") == 2


def test_equal_metrics_of_two_tasks_are_two_tasks(tmp_path: Path) -> None:
    for task in ("my_task:A", "my_task:B"):
        synthetic_run(tmp_path, job=job(task), **OWN)
    report = write_report([tmp_path], tmp_path / "report")
    assert "my_task:A (accuracy):" in report.table
    assert "my_task:B (accuracy):" in report.table


def test_a_target_is_of_the_primary_metric_and_a_target_error_only_of_errors(
    reported: Callable[..., Report],
) -> None:
    text = reported(target=0.5).markdown.read_text()
    assert "my_task:Char (accuracy): Until 50 % test accuracy" in text
    assert "quadratic (f_gap): Until test f_gap 0.5" in text
    assert "at or above it" in text
    assert "at or below it" in text
    report = reported(target_error=0.05)
    assert "Until" not in report.markdown.read_text()
    for place in (report.markdown.read_text(), report.table):
        assert "No time to a target_error is shown, since the primary metric of these runs" in place


def test_the_setting_names_a_task_that_is_not_classification(tmp_path: Path) -> None:
    [plain] = collect([synthetic_run(tmp_path / "plain")]).runs
    assert setting_of([plain]) == "digits, mlp, batch 50 a worker"
    path = synthetic_run(tmp_path / "own", job=job("my_task:Char"), **OWN)
    [own] = collect([path]).runs
    assert setting_of([own]) == "my_task:Char, digits, mlp, batch 50 a worker"
    change(path, {"data": "task", "model": "task"})
    [own] = collect([path]).runs
    assert setting_of([own]) == "my_task:Char, batch 50 a worker"


def test_every_metric_but_the_loss_is_drawn(tmp_path: Path) -> None:
    synthetic_run(tmp_path, more={"top5/ %": 0.9, "loss": 1.0}, **OWN)
    report = write_report([tmp_path], tmp_path / "report")
    names = {path.name for path in report.plots}
    assert {"accuracy_vs_epochs.png", "accuracy_vs_time.png", "top5__vs_epochs.png"} <= names
    assert not any("loss" in name for name in names)


def test_the_command_takes_a_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthetic_run(tmp_path, **CONVEX)
    words = ["report", str(tmp_path), "-o", str(tmp_path / "report")]
    assert main([*words, "--target", "1e-3"]) == 0
    assert "until test f_gap 0.001:" in capsys.readouterr().out
    for wrong in (["--target", "nan"], ["--target", "1", "--target-error", "0.1"]):
        assert main([*words, *wrong]) == 2
        assert "allowed" in capsys.readouterr().err


def test_a_target_in_per_cent_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic_run(tmp_path / "runs")
    words = ["report", str(tmp_path / "runs"), "-o", str(tmp_path / "report"), "--target"]
    assert main([*words, "95"]) == 2
    told = "got 95; allowed: up to 1, a fraction (error is shown in %); did you mean 0.95?"
    assert told in capsys.readouterr().err
    assert main([*words, "1"]) == 0
    capsys.readouterr()
    assert main([*words, "1000"]) == 2
    assert "did you mean" not in capsys.readouterr().err
    # What runs have cost is not lost for it.
    write_report([tmp_path / "runs"], tmp_path / "report", target=95)
    (tmp_path / "job.yaml").write_text(Path("jobs/digits.yaml").read_text())
    study = tmp_path / "study.yaml"
    study.write_text("job: job.yaml\nalgorithms: [sgd]\ntarget: 95\n")
    with pytest.raises(ConfigError, match=r"target: got 95; allowed: .*; did you mean 0\.95"):
        load_study(study)


@pytest.mark.parametrize(
    ("name", "target", "told"),
    [
        (
            "Tensors",
            "target: 95",
            "target: got 95; allowed: up to 1, a fraction (inside is shown in",
        ),
        ("Tensors", "target: 0.95", None),
        (
            "Tensors",
            "target_error: 0.05",
            "target_error: got 0.05, but the primary metric of the task line_tasks:Tensors is "
            "inside; set target instead, a value of that",
        ),
        ("Tensors", "target_error: 5 %", "target_error: got '5 %' (text); allowed: a number > 0"),
        ("Unmeasured", "target: 95", None),
        ("Unmeasured", "target: 5 %", "target: got '5 %' (text); allowed: a number or null"),
        ("Unmeasured", "target_error: 0.05", "target_error: got 0.05, but the primary metric of t"),
        ("Unready", "target: 95", None),
    ],
)
def test_a_target_is_held_against_the_metric_of_a_task_of_ones_own(
    tmp_path: Path, name: str, target: str, told: str | None
) -> None:
    (tmp_path / "job.yaml").write_text(
        f"{{algorithm: sgd, epochs: 1, batch_size: 4, lr: 0.1, task: {{name: line_tasks:{name}}}}}"
    )
    study = tmp_path / "study.yaml"
    study.write_text(f"job: job.yaml\nalgorithms: [sgd, asgd]\nworkers: [2]\n{target}\n")
    if told is None:
        load_study(study)
        return
    with pytest.raises(ConfigError) as caught:
        load_study(study)
    [line] = caught.value.problems
    assert line.startswith(told)


def test_a_study_has_a_target_of_one_kind(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(Path("jobs/digits.yaml").read_text())
    study = tmp_path / "study.yaml"
    study.write_text("job: job.yaml\nalgorithms: [sgd]\ntarget: -2.5\n")
    assert load_study(study).target == -2.5
    study.write_text("job: job.yaml\nalgorithms: [sgd]\ntarget: 0.3\ntarget_error: 0.1\n")
    with pytest.raises(ConfigError, match="target, target_error: both are there; omit one"):
        load_study(study)
    study.write_text("job: job.yaml\nalgorithms: [sgd]\ntarget: .inf\n")
    with pytest.raises(ConfigError, match=r"target: .*finite"):
        load_study(study)

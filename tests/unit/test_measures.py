"""Metrics of a task: direction, units, and what is recorded of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from synthetic_runs import synthetic_run

from mpi_dcasgd.cli import main
from mpi_dcasgd.drivers.observer import Evaluation
from mpi_dcasgd.learning.measures import Measures
from mpi_dcasgd.learning.task import Task
from mpi_dcasgd.record.results import Results, event_of
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.tools.comparison import _figures
from mpi_dcasgd.tools.run_status import folder_status
from mpi_dcasgd.tools.status_line import progress_text

ACCURACY = Measures("accuracy", higher_is_better=True, units={"accuracy": "%", "delay": "ms"})
GAP = Measures("f_gap", units={})


def evaluation(
    epoch: int, test: dict[str, float], validation: dict[str, float] | None = None
) -> Evaluation:
    return Evaluation(
        time_s=float(epoch),
        eval_s=0.1,
        version=4 * epoch,
        samples=40 * epoch,
        epoch=epoch,
        test=test,
        validation=validation,
        train_loss=0.4,
        lr=0.1,
    )


@pytest.mark.parametrize(
    ("measures", "values", "best"),
    [
        (ACCURACY, [0.5, 0.9, 0.9, 0.4], 1),
        (GAP, [0.5, 0.2, 0.2, 0.4], 1),
        (GAP, [math.nan, 0.7, math.nan], 1),
        (ACCURACY, [0.7, math.nan, 0.6], 0),
        (ACCURACY, [-math.inf, -3.0], 1),
        (GAP, [math.nan, math.nan], None),
        (GAP, [], None),
    ],
)
def test_the_best_follows_the_direction_and_is_a_number(
    measures: Measures, values: list[float], best: int | None
) -> None:
    assert measures.best(range(len(values)), lambda place: values[place]) == best


def test_values_are_shown_with_their_units() -> None:
    assert ACCURACY.shown("accuracy", 0.97654) == "97.65 %"
    assert ACCURACY.shown("accuracy", 0.97654, digits=1) == "97.7 %"
    assert ACCURACY.shown("delay", 12.3456) == "12.35 ms"
    assert GAP.shown("f_gap", 3.25e-8) == "3.25e-08"
    assert GAP.shown("f_gap", math.nan) == "-"
    assert ACCURACY.shown("accuracy", None) == "- %"


def test_they_are_recorded_and_read_again_and_default_to_classification() -> None:
    for measures in (Measures(), ACCURACY, GAP):
        assert Measures.recorded(json.loads(json.dumps(measures.as_recorded()))) == measures
    assert Measures.recorded({"test_error": 0.1}) == Measures("error", False, {"error": "%"})


def test_a_task_says_them() -> None:
    class Own(Task):
        primary_metric = "accuracy"
        higher_is_better = True
        units = {"accuracy": "%", "delay": "ms"}  # noqa: RUF012

    assert Measures.of(Own()) == ACCURACY
    assert Measures.of(Task()) == Measures("loss", units={})


# What a run records


def results(measures: Measures, *evaluations: Evaluation) -> Results:
    found = Results(measures)
    for one in evaluations:
        found.add(one)
    return found


def test_without_a_validation_split_the_test_split_chooses() -> None:
    found = results(
        ACCURACY,
        evaluation(1, {"accuracy": 0.9, "loss": 2.0}),
        evaluation(2, {"accuracy": 0.8, "loss": 1.0}),
    )
    assert found.summary() == {
        "test_accuracy": 0.8,
        "test_loss": 1.0,
        "train_loss": 0.4,
        "best_test_accuracy": 0.9,
        "best_epoch": 1,
    }


def test_a_validation_split_chooses_and_the_test_split_only_reports() -> None:
    found = results(
        ACCURACY,
        evaluation(1, {"accuracy": 0.99}, {"accuracy": 0.5}),
        evaluation(2, {"accuracy": 0.7}, {"accuracy": 0.6}),
        evaluation(3, {"accuracy": 0.8}, {"accuracy": math.nan}),
    )
    summary = found.summary()
    assert math.isnan(summary.pop("validation_accuracy"))
    assert summary == {
        "test_accuracy": 0.8,
        "train_loss": 0.4,
        "best_test_accuracy": 0.7,
        "best_validation_accuracy": 0.6,
        "best_epoch": 2,
    }


def test_where_nothing_is_a_number_nothing_is_best() -> None:
    found = results(GAP, evaluation(1, {"f_gap": math.nan}))
    assert found.summary()["best_test_f_gap"] is None
    assert found.summary()["best_epoch"] is None


def test_before_an_evaluation_the_keys_are_there() -> None:
    assert Results(Measures()).summary() == dict.fromkeys(
        ("test_error", "test_loss", "train_loss", "best_test_error", "best_epoch")
    )


def test_an_event_has_a_key_for_each_metric_of_each_split() -> None:
    event = event_of(evaluation(1, {"f_gap": 0.1, "loss": 0.2}, {"f_gap": 0.3, "loss": 0.4}))
    assert event == {
        "eval_s": 0.1,
        "version": 4,
        "samples": 40,
        "epoch": 1,
        "test_f_gap": 0.1,
        "test_loss": 0.2,
        "validation_f_gap": 0.3,
        "validation_loss": 0.4,
        "train_loss": 0.4,
        "lr": 0.1,
    }


def test_the_line_of_an_evaluation_begins_with_what_counts() -> None:
    one = evaluation(1, {"delay": 3.0, "accuracy": 0.5}, {"delay": 4.0, "accuracy": 0.25})
    assert results(ACCURACY, one).text(one) == (
        "validation accuracy 25.00 %, validation delay 4 ms, test accuracy 50.00 %, test delay 3 ms"
    )
    plain = evaluation(1, {"error": 0.0167, "loss": 0.12345})
    assert results(Measures(), plain).text(plain) == "test error 1.67 %, test loss 0.1235"
    assert results(Measures(), plain).latest() == "test error 1.7 %"
    assert results(GAP, evaluation(1, {"f_gap": 2e-9})).latest() == "test f_gap 2e-09"


def test_an_evaluation_of_version_0_1_is_one_of_classification() -> None:
    values: dict[str, Any] = {"time_s": 1.0, "eval_s": 0.1, "version": 4, "samples": 40, "epoch": 1}
    values |= {"test_error": 0.1, "test_loss": 0.5, "train_loss": 0.4, "lr": 0.1}
    assert Evaluation.of(values) == evaluation(1, {"error": 0.1, "loss": 0.5})


# What is shown of it


def run(folder: Path, measures: Measures = ACCURACY, **options: Any) -> RunFolder:
    options = {"first_error": 0.5, "final_error": 0.9, "more": {"delay": 3.0}} | options
    return RunFolder(synthetic_run(folder, measures=measures, **options))


def test_progress_and_status_show_the_primary_metric(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tmp_path)
    value = folder.summary()["test_accuracy"]
    shown = f"test accuracy {100 * value:.2f} %"
    assert progress_text(folder.progress()) == f"epoch 5.0  {shown}"
    [found] = folder_status(folder.path)
    assert (found.result, found.shown) == (value, shown)
    assert main(["status", str(folder.path)]) == 0
    assert shown in capsys.readouterr().out
    assert main(["status", "--json", str(folder.path)]) == 0
    [plain] = json.loads(capsys.readouterr().out)[str(folder.path)]
    assert plain["test_accuracy"] == value
    assert (plain["primary_metric"], plain["higher_is_better"]) == ("accuracy", True)
    assert "test_error" not in plain
    assert "result" not in plain


def test_compare_shows_the_primary_metric(tmp_path: Path) -> None:
    assert _figures({"test_error": 0.0167, "wall_s": 3.0}) == "test error   1.67 %   trained 3.0 s"
    gap = run(tmp_path, GAP, first_error=1.0, final_error=1e-7).summary()
    assert _figures(gap).startswith(f"test f_gap {gap['test_f_gap']:.4g}   trained ")


def test_a_run_of_before_there_were_tasks_is_one_of_classification(tmp_path: Path) -> None:
    folder = RunFolder(synthetic_run(tmp_path))
    value = folder.summary()["test_error"]
    lines = [json.loads(line) for line in folder.metrics_jsonl.read_text().splitlines()]
    for values in lines:
        for key in ("primary_metric", "higher_is_better", "units"):
            values.pop(key, None)
    folder.metrics_jsonl.write_text("".join(json.dumps(values) + "\n" for values in lines))
    assert folder.progress().shown == f"test error {100 * value:.2f} %"

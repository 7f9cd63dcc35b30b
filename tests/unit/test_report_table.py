"""Collecting runs, putting them into groups, and the numbers of the tables."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic_runs import synthetic_run

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.restarts import Restart, write_restarts
from mpi_dcasgd.reporting.collect import collect, flatten
from mpi_dcasgd.reporting.document import Table
from mpi_dcasgd.reporting.groups import (
    Group,
    Stat,
    common_settings,
    differing_settings,
    group_runs,
    twins,
)
from mpi_dcasgd.reporting.prediction import prediction_table
from mpi_dcasgd.reporting.remarks import remarks
from mpi_dcasgd.reporting.table import NONE, Matching, result_table, show, target_table, time_table


def groups_in(root: Path) -> list[Group]:
    return group_runs(collect([root]).runs)


def column(table: Table, name: str) -> list[str]:
    return [row[table.header.index(name)] for row in table.rows]


def change_summary(run: Path, **values: Any) -> None:
    path = run / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_run_of_several_sizes_is_told(tmp_path: Path) -> None:
    path = synthetic_run(tmp_path, "asgd", workers=2)
    [run] = collect([path]).runs
    assert run.sizes == (2,)
    again = replace(run, sizes=(4, 2))
    [told] = [line for line in remarks(group_runs([again]), [again]) if "another number" in line]
    assert f"({path.name}: 4, then 2)" in told
    assert not any("another number" in line for line in remarks(group_runs([run]), [run]))


# --- collecting -----------------------------------------------------------------------------


def test_a_run_is_read_as_it_was_recorded(tmp_path: Path) -> None:
    path = synthetic_run(tmp_path, "dcasgd-a", workers=4, seed=3, epochs=2)
    [run] = collect([path]).runs
    assert (run.algorithm, run.driver, run.num_workers, run.seed) == ("dcasgd-a", "mpi", 4, 3)
    assert [point.epoch for point in run.points] == [1, 2]
    assert [point.samples for point in run.points] == [1_000, 2_000]
    assert run.points[0].value > run.points[1].value == run.summary["test_error"]
    assert sum(run.histogram.values()) == run.summary["updates"] == 40
    assert [worker["worker"] for worker in run.workers] == [0, 1, 2, 3]
    assert run.job["rule.compensation.name"] == "none"


def test_a_folder_of_runs_stands_for_them_and_none_counts_twice(tmp_path: Path) -> None:
    first = synthetic_run(tmp_path / "grid" / "runs", seed=1)
    synthetic_run(tmp_path / "grid" / "runs", seed=2)
    found = collect([first, tmp_path / "grid", tmp_path / "grid" / "runs"])
    assert sorted(run.seed for run in found.runs) == [1, 2]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no such folder"):
        collect([tmp_path / "missing"])
    with pytest.raises(RunFolderError, match=r"neither a run folder .* nor a folder of run"):
        collect([tmp_path])
    with pytest.raises(RunFolderError, match="no run folders were named"):
        collect([])


def test_unfinished_runs_are_listed_with_the_reason(tmp_path: Path) -> None:
    synthetic_run(tmp_path, status=None, seed=1, epochs=3)
    synthetic_run(tmp_path, status="failed", seed=2)
    synthetic_run(tmp_path, status="completed", seed=3)
    found = collect([tmp_path])
    assert [run.seed for run in found.runs] == [3]
    reasons = {u.label: (u.status, u.reason) for u in found.unfinished}
    assert reasons["asgd, seed 1"][0] == "unfinished"
    assert reasons["asgd, seed 1"][1].startswith("no summary.json: killed, or still running")
    assert "reached epoch 2" in reasons["asgd, seed 1"][1]
    assert reasons["asgd, seed 2"] == ("failed", "rank 2 on c7: out of memory; reached epoch 5")


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("summary.json", "{", "Expecting property name"),
        ("summary.json", "[]", "summary.json is not a mapping"),
        ("summary.json", '{"status": "completed"}', "missing 'algorithm'"),
        ("job.yaml", "a: [", "job.yaml:"),
        ("metrics.jsonl", 'x\n{"event": "end"}\n', "line 1 is not an event"),
    ],
)
def test_a_damaged_run_is_listed_and_the_others_are_compared(
    tmp_path: Path, file: str, content: str, reason: str
) -> None:
    synthetic_run(tmp_path, seed=1)
    (synthetic_run(tmp_path, seed=2) / file).write_text(content)
    found = collect([tmp_path])
    assert [run.seed for run in found.runs] == [1]
    assert found.unfinished[0].status == "unreadable"
    assert reason in found.unfinished[0].reason


def test_flatten_writes_dotted_keys() -> None:
    assert flatten({"a": 1, "b": {"c": {"d": [1]}, "e": None}}) == {
        "a": 1,
        "b.c.d": [1],
        "b.e": None,
    }


# --- groups ---------------------------------------------------------------------------------


def test_runs_that_differ_in_their_seed_only_are_one_group(tmp_path: Path) -> None:
    for algorithm in ("dcasgd-c", "asgd", "sgd", "ssgd"):
        for seed in (2, 1):
            synthetic_run(tmp_path, algorithm, seed=seed)
    groups = groups_in(tmp_path)
    assert [group.label for group in groups] == ["sgd", "ssgd", "asgd", "dcasgd-c"]
    assert [[run.seed for run in group.runs] for group in groups] == [[1, 2]] * 4
    assert [group.num_workers for group in groups] == [1, 4, 4, 4]


def test_workers_are_in_the_label_where_they_differ(tmp_path: Path) -> None:
    for workers in (8, 1):
        synthetic_run(tmp_path, "asgd", workers=workers)
    synthetic_run(tmp_path, "sgd")
    assert [group.label for group in groups_in(tmp_path)] == [
        "sgd",
        "asgd, 1 worker",
        "asgd, 8 workers",
    ]


def test_a_setting_that_varies_within_an_algorithm_makes_groups(tmp_path: Path) -> None:
    for strength in (2.0, 0.04):
        rule = {"compensation": {"name": "dc-constant", "dc_lambda": strength}}
        synthetic_run(tmp_path, "dcasgd-c", job={"rule": rule})
    synthetic_run(tmp_path, "asgd")
    groups = groups_in(tmp_path)
    assert [group.label for group in groups] == [
        "asgd",
        "dcasgd-c, dc_lambda=0.04",
        "dcasgd-c, dc_lambda=2.0",
    ]
    differing = differing_settings(groups)
    assert differing["rule.compensation.dc_lambda"] == [
        (0.04, ["dcasgd-c, dc_lambda=0.04"]),
        (2.0, ["dcasgd-c, dc_lambda=2.0"]),
    ]
    common = common_settings(collect([tmp_path]).runs)
    assert common["batch_size"] == 50
    assert not {"seed", "name", "algorithm", "record.progress"} & (common.keys() | differing.keys())


def test_a_setting_is_named_as_the_job_has_it(tmp_path: Path) -> None:
    for wire in ({"push": "float32", "reply": "float32"}, {"push": "bf16", "reply": "bf16"}):
        synthetic_run(tmp_path, "asgd", job={"wire": wire})
    groups = groups_in(tmp_path)
    assert [group.label for group in groups] == ["asgd, wire=bf16", "asgd, wire=float32"]
    assert [row[0] for row in result_table(groups, Matching.of(groups)).rows] == [
        group.label for group in groups
    ]
    synthetic_run(tmp_path, "asgd", job={"wire": {"push": "bf16", "reply": "float32"}})
    assert "asgd, wire.push=bf16, wire.reply=float32" in [g.label for g in groups_in(tmp_path)]


def test_the_same_algorithm_measured_and_simulated_is_two_groups(tmp_path: Path) -> None:
    synthetic_run(tmp_path, "asgd")
    synthetic_run(tmp_path, "asgd", driver="simulator")
    synthetic_run(tmp_path, "asgd", driver="simulator", job={"batch_size": 7})
    groups = groups_in(tmp_path)
    labels = [
        *("asgd, batch_size=7, simulated", "asgd, batch_size=50", "asgd, batch_size=50, simulated"),
    ]
    assert [group.label for group in groups] == labels
    table = result_table(groups, Matching.of(groups))
    assert column(table, "algorithm") == labels


def test_a_real_group_stands_beside_its_simulated_twin(tmp_path: Path) -> None:
    synthetic_run(tmp_path, "sgd")
    for rate, driver in ((10_000, None), (11_000, "simulator")):
        for workers in (2, 4):
            synthetic_run(tmp_path, "asgd", workers=workers, rate=rate, driver=driver)
    synthetic_run(tmp_path, "ssgd", workers=2)
    synthetic_run(tmp_path, "dcasgd-c", workers=2, driver="simulator")
    groups = groups_in(tmp_path)
    pairs = [(real.label, simulated.label) for real, simulated in twins(groups)]
    assert pairs == [
        ("asgd, 2 workers", "asgd, 2 workers, simulated"),
        ("asgd, 4 workers", "asgd, 4 workers, simulated"),
    ]
    table = prediction_table(groups)
    assert table is not None
    assert [row[:2] for row in table.rows] == [("asgd", "2"), ("asgd", "4")]
    assert table.header[2:5] == ("samples/s measured", "predicted", "%")
    for row in table.rows:
        measured, predicted, apart = (float(cell.replace(",", "")) for cell in row[2:5])
        assert apart == pytest.approx(100 * (predicted / measured - 1), abs=0.1)
        assert apart > 1
    assert prediction_table([group for group in groups if not group.simulated]) is None


def test_a_simulated_run_has_no_speed_up_over_a_real_one(tmp_path: Path) -> None:
    for algorithm, driver in (("sgd", None), ("asgd", None), ("asgd", "simulator")):
        synthetic_run(tmp_path, algorithm, driver=driver)
    groups = groups_in(tmp_path)
    ours = column(result_table(groups, Matching.of(groups)), "speed-up")
    assert ours[0] == "1.00"
    assert float(ours[1]) > 0
    assert ours[2] == NONE
    told = remarks(groups, collect([tmp_path]).runs)
    assert any("seconds are virtual" in remark for remark in told)


def test_a_curve_has_the_epochs_that_all_runs_have(tmp_path: Path) -> None:
    synthetic_run(tmp_path, seed=1, epochs=4)
    longer = synthetic_run(tmp_path, seed=2, epochs=6)
    text = (longer / "job.yaml").read_text()
    (longer / "job.yaml").write_text(text.replace("epochs: 6", "epochs: 4"))
    [group] = groups_in(tmp_path)
    curve = group.curve()
    assert [point.epoch for point in curve] == [1, 2, 3, 4]
    errors = [run.points[3].value for run in group.runs]
    assert (curve[3].low, curve[3].high) == (min(errors), max(errors))
    assert curve[3].value == pytest.approx(sum(errors) / 2)


def test_stat_is_mean_and_sample_standard_deviation() -> None:
    assert Stat.of([1.0, None, 3.0]) == Stat(2.0, 2**0.5, 2, 3.0)
    assert Stat.of([4.0]) == Stat(4.0, None, 1, 4.0)
    assert Stat.of([None, float("nan")]) is None
    assert show(Stat.of([0.031, 0.033]), 2, 100) == "3.20 ± 0.14"
    assert show(Stat.of([1234.5]), 0) == "1,234"
    assert show(None, 2) == "-"


# --- tables ---------------------------------------------------------------------------------


def test_the_result_is_in_per_cent_with_the_speed_up_over_sequential(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path, "sgd", rate=5_000)
    change_summary(run, test_error=0.05, best_test_error=0.04, samples_per_s=5_000.0)
    for seed, error in ((1, 0.031), (2, 0.033)):
        run = synthetic_run(tmp_path, "asgd", seed=seed)
        change_summary(run, test_error=error, best_test_error=error, samples_per_s=15_000.0)
    groups = groups_in(tmp_path)
    table = result_table(groups, Matching.of(groups))
    assert column(table, "test error %") == ["5.00", "3.20 ± 0.14"]
    assert column(table, "best %") == ["4.00", "3.20 ± 0.14"]
    assert column(table, "workers") == ["-", "4"]
    assert column(table, "runs") == ["1", "2"]
    assert column(table, "speed-up") == ["1.00", "3.00"]
    assert column(table, "samples/s") == ["5,000", "15,000 ± 0"]
    assert column(table, "max")[0] == "-"


def test_columns_without_a_number_are_left_out(tmp_path: Path) -> None:
    synthetic_run(tmp_path, "asgd")
    groups = groups_in(tmp_path)
    header = result_table(groups, Matching.of(groups)).header
    assert "speed-up" not in header  # there is no sequential run
    assert "best %" not in header  # it is the last
    assert not [name for name in header if name.startswith("error % at")]


def test_groups_are_compared_at_equal_time(tmp_path: Path) -> None:
    slow = synthetic_run(tmp_path, "sgd", rate=4_000, epochs=4)
    quick = synthetic_run(tmp_path, "asgd", rate=10_000, epochs=4)
    groups = groups_in(tmp_path)
    matching = Matching.of(groups)
    assert matching.epoch is None
    assert matching.time_s == json.loads((quick / "summary.json").read_text())["wall_s"]
    table = result_table(groups, matching)
    [name] = [name for name in table.header if name.startswith("error % at")]
    assert name.endswith(" s")
    [slow_run] = collect([slow]).runs
    [quick_run] = collect([quick]).runs
    reached = [p for p in slow_run.points if p.time_s <= matching.time_s]
    assert 0 < len(reached) < 4
    assert column(table, name) == [
        f"{100 * reached[-1].value:.2f}",
        f"{100 * quick_run.points[-1].value:.2f}",
    ]


def test_a_row_without_an_evaluation_by_that_time_has_no_error_there(tmp_path: Path) -> None:
    synthetic_run(tmp_path, "sgd", rate=100, epochs=1)
    synthetic_run(tmp_path, "asgd", rate=10_000, epochs=1)
    groups = groups_in(tmp_path)
    table = result_table(groups, Matching.of(groups))
    [name] = [name for name in table.header if name.startswith("error % at")]
    assert column(table, name)[0] == "-"


def test_groups_of_unequal_length_are_compared_at_equal_epochs(tmp_path: Path) -> None:
    synthetic_run(tmp_path, "sgd", epochs=3)
    synthetic_run(tmp_path, "asgd", epochs=6)
    groups = groups_in(tmp_path)
    matching = Matching.of(groups)
    assert matching.epoch == 3
    table = result_table(groups, matching)
    error = groups[1].runs[0].points[2].value
    assert column(table, "error % at epoch 3")[1] == f"{100 * error:.2f}"


def test_time_to_a_target_counts_only_the_runs_that_reached_it(tmp_path: Path) -> None:
    synthetic_run(tmp_path, "asgd", seed=1, final_error=0.02)
    synthetic_run(tmp_path, "asgd", seed=2, final_error=0.2)
    synthetic_run(tmp_path, "dcasgd-a", seed=1, final_error=0.2)
    groups = groups_in(tmp_path)
    table = target_table(groups, 0.05)
    first = next(p for p in groups[0].runs[0].points if p.value <= 0.05)
    assert column(table, "reached it") == ["1 of 2", "0 of 1"]
    assert column(table, "epochs") == [f"{first.epoch}.0", "-"]
    assert column(table, "samples") == [f"{first.samples:,}", "-"]
    assert column(table, "seconds") == [f"{first.time_s:.2f}", "-"]


def test_where_the_time_went_is_in_shares(tmp_path: Path) -> None:
    synthetic_run(tmp_path, "asgd")
    table = time_table(groups_in(tmp_path))
    assert table is not None
    assert table.rows == (("asgd", "4", "80", "5", "10", "5"),)
    [run] = tmp_path.iterdir()
    metrics = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join(m for m in metrics if '"worker"' not in m) + "\n")
    assert time_table(groups_in(tmp_path)) is None


def test_a_table_for_a_terminal_is_aligned() -> None:
    table = Table(("name", "n"), (("a", "1,000"), ("long name", "2")))
    assert (
        table.to_text() == "name           n\n---------  -----\na          1,000\nlong name      2"
    )


# --- remarks --------------------------------------------------------------------------------


def remarks_in(root: Path) -> str:
    found = collect([root])
    return "\n".join(remarks(group_runs(found.runs), found.runs))


def test_too_few_seeds_are_named(tmp_path: Path) -> None:
    synthetic_run(tmp_path, "sgd", seed=1)
    assert "Fewer than 3 runs (every row)" in remarks_in(tmp_path)
    for seed in (2, 3):
        synthetic_run(tmp_path, "sgd", seed=seed)
    assert "sample standard deviation" in remarks_in(tmp_path)
    assert "Fewer" not in remarks_in(tmp_path)
    synthetic_run(tmp_path, "sgd", seed=3)
    assert "One seed was used more than once in sgd" in remarks_in(tmp_path)


def test_the_servers_rank_is_counted(tmp_path: Path) -> None:
    synthetic_run(tmp_path, "asgd", workers=4)
    assert "server takes a rank" not in remarks_in(tmp_path)
    synthetic_run(tmp_path, "ssgd", workers=4)
    assert "(here 4 workers: 5 ranks against 4)" in remarks_in(tmp_path)


def test_a_crowded_machine_is_admitted(tmp_path: Path) -> None:
    path = synthetic_run(tmp_path, "asgd", workers=4, cpus=8)
    assert "shared" not in remarks_in(tmp_path)
    shutil.rmtree(path)
    synthetic_run(tmp_path, "asgd", workers=4, cpus=2)
    assert "Up to 5 ranks shared 2 processors" in remarks_in(tmp_path)
    # Its hardware is not what the other run had, either.
    synthetic_run(tmp_path, "ssgd", workers=4, cpus=8)
    assert "not made on equal hardware" in remarks_in(tmp_path)


def test_runs_that_were_started_again_are_told(tmp_path: Path) -> None:
    path = synthetic_run(tmp_path, "asgd")
    assert "started again" not in remarks_in(tmp_path)
    told = {"allowed": 3, "at": "now", "version": 7, "ranks": 5, "cause": "lost host h3"}
    write_restarts(path / "restarts.jsonl", [Restart(restart=n, **told) for n in (1, 2)])
    assert f"({path.name}: 2 times, for the last time after lost host h3)" in remarks_in(tmp_path)


def test_refused_gradients_unequal_epochs_and_other_code_are_told(tmp_path: Path) -> None:
    synthetic_run(tmp_path, "asgd", dropped=7)
    longer = synthetic_run(tmp_path, "ssgd", epochs=9)
    environment = json.loads((longer / "environment.json").read_text())
    environment["git"] = {"commit": "f" * 40, "dirty": True, "changes": "1 file changed"}
    (longer / "environment.json").write_text(json.dumps(environment))
    text = remarks_in(tmp_path)
    assert "asgd: 7 a run dropped by the rule" in text
    assert "not trained for equally many epochs" in text
    assert "different commits (0123456789ab, ffffffffffff)" in text
    assert "1 of 2 runs were made by code that was not committed" in text


def test_the_best_evaluation_is_called_flattering(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path, "asgd")
    assert "flattering" not in remarks_in(tmp_path)
    change_summary(run, best_test_error=0.001)
    assert "flattering" in remarks_in(tmp_path)

"""Tuning of studies: the same budget for all, refusals, and the choice from recorded results."""

from __future__ import annotations

import io
import json
import shutil
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from mpi_dcasgd.cli import main
from mpi_dcasgd.config.frozen_study import freeze_study
from mpi_dcasgd.config.load import job_as_text
from mpi_dcasgd.config.study import Study, load_study
from mpi_dcasgd.config.tuning import Tuning
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.record.study_folder import StudyFolder, find_runs
from mpi_dcasgd.runs.compare import plan_comparison
from mpi_dcasgd.runs.comparison_plan import ComparisonResult
from mpi_dcasgd.runs.study_tuning import tune_study
from mpi_dcasgd.runs.tuning import (
    choose_values,
    if_tuned,
    left_to_run,
    require_tuned,
    write_choices,
)
from mpi_dcasgd.tools.comparison import Comparison, Outcome, PlannedRun

JOB = """\
algorithm: asgd
epochs: 3
batch_size: 16
lr: 0.1
model: {name: mlp, hidden: [8]}
data: {name: digits, validation: 0.1}
"""
HEAD = "job: digits.yaml\nalgorithms: [ssgd, asgd, dcasgd-a]\nworkers: [2]\nseeds: [0, 1]\n"
GRID = "{lr: {base: 0.1, factor: 2, steps: 4}, rule.compensation.dc_lambda: [1.0, 2.0]}"


def study(
    folder: Path, tune: str = f"{{grid: {GRID}}}", more: str = "", job: str = JOB, head: str = HEAD
) -> Study:
    (folder / "digits.yaml").write_text(job)
    (folder / "grid.yaml").write_text(f"{head}{more}tune: {tune}\n")
    return load_study(folder / "grid.yaml")


def tuning_of(found: Study) -> Tuning:
    assert found.tuning is not None
    return found.tuning


def test_every_algorithm_has_the_same_budget_and_only_its_own_keys(tmp_path: Path) -> None:
    tuning = tuning_of(study(tmp_path))
    assert [(g.label, len(g.candidates), list(g.grid)) for g in tuning.groups] == [
        ("ssgd", 4, ["lr"]),
        ("asgd", 4, ["lr"]),
        ("dcasgd-a", 4, ["lr", "rule.compensation.dc_lambda"]),
    ]
    rates = [candidate.element.job.lr for candidate in tuning.groups[1].candidates]
    assert rates == [0.1, 0.2, 0.4, 0.8]
    assert {element.job.seed for element in tuning.elements} == {1000}


def test_a_sample_of_a_larger_grid_has_every_value_equally_often(tmp_path: Path) -> None:
    group = tuning_of(study(tmp_path)).groups[2]
    tried = [dict(candidate.values) for candidate in group.candidates]
    assert Counter(values["lr"] for values in tried) == dict.fromkeys((0.1, 0.2, 0.4, 0.8), 1)
    lambdas = Counter(values["rule.compensation.dc_lambda"] for values in tried)
    assert lambdas == {1.0: 2, 2.0: 2}
    again = tuning_of(study(tmp_path)).groups[2]
    assert again.candidates == group.candidates


def test_each_number_of_workers_is_tuned_unless_one_is_named(tmp_path: Path) -> None:
    head = HEAD.replace("[2]", "[2, 4]")
    each = tuning_of(study(tmp_path, "{grid: {lr: [0.1, 0.2]}}", head=head))
    assert [group.workers for group in each.groups] == [2, 4] * 3
    once = tuning_of(study(tmp_path, "{grid: {lr: [0.1, 0.2]}, workers: 4}", head=head))
    assert [(group.workers, group.for_all) for group in once.groups] == [(4, True)] * 3


@pytest.mark.parametrize(
    ("tune", "line"),
    [
        ("{grid: {rule.compensation.dc_lamda: [1]}}", "did you mean dc_lambda?"),
        ("{grid: {lrr: [0.1]}}", "tune.grid.lrr: no algorithm has it: lrr: unknown; did you mean"),
        ("{grid: {lr: [0.1, -1]}}", "tune.grid: lr: got -1"),
        ("{grid: {lr: {base: 0.1, factor: 1, steps: 3}}}", "factor > 0 other than 1"),
        ("{grid: {lr: [0.1, 0.1]}}", "allowed: each value once"),
        ("{grid: {rule.compensation.dc_lambda: [1.0, 2.0]}}", "no key that ssgd has; add lr"),
        ("{grid: {lr: [0.1, 0.2]}, seed: 1}", "tune.seed: 1 is one of seeds"),
        ("{grid: {lr: [0.1, 0.2]}, runs: 3}", "the grid of ssgd has 2"),
        ("{grid: {lr: [0.1, 0.2]}, by: time-to-target}", "needs a target"),
        ("{grid: {lr: [0.1, 0.2]}, cap_s: 3}", "tune.cap_s: has no effect"),
        ("{grid: {lr: [0.1, 0.2]}, driver: simulated}", "nothing has been measured before"),
        ("{gird: {lr: [0.1, 0.2]}}", "did you mean tune.grid?"),
        ("{grid: {seed: [1]}}", "tune.grid.seed: is what"),
    ],
)
def test_what_cannot_be_tuned_is_refused(tmp_path: Path, tune: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        study(tmp_path, tune)
    assert any(line in problem for problem in caught.value.problems), caught.value.problems


@pytest.mark.parametrize(
    ("head", "more", "expected"),
    [
        (HEAD, "set: {epochs: x}\n", ["epochs: got 'x'"]),
        (HEAD, "set: {lr.x: 3}\n", ["lr.x: cannot be set"]),
        (HEAD.replace("ssgd", "{algorithm: ssgd, epochs: x}"), "", ["ssgd: epochs: got 'x'"]),
        (HEAD.replace("dcasgd-a", "dcasgd-q"), "", ["algorithms[2]: unknown algorithm"]),
        (
            HEAD.replace("dcasgd-a", "{algorithm: dcasgd-a, epochs: x}"),
            "",
            ["dcasgd-a: epochs: got 'x'"],
        ),
    ],
)
def test_a_wrong_job_is_not_told_again_by_its_tuning(
    tmp_path: Path, head: str, more: str, expected: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        study(tmp_path, more=more, head=head)
    told = caught.value.problems
    assert [line[: len(start)] for line, start in zip(told, expected, strict=True)] == expected


def test_wrong_values_of_a_grid_are_told_beside_a_wrong_job(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        study(tmp_path, "{grid: {lr: [-1]}}", more="set: {epochs: x}\n")
    assert [line.partition(";")[0] for line in caught.value.problems] == [
        "epochs: got 'x' (text)",
        "tune.grid: lr: got -1 (a whole number)",
    ]


def test_nothing_is_chosen_on_the_test_split(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.validation: is 0"):
        study(tmp_path, job=JOB.replace("validation: 0.1", "validation: 0"))


def record(folder: StudyFolder, tuning: Tuning, errors: dict[str, list[float | None]]) -> None:
    """Write the results of all tuning runs; None is a run that diverged."""
    for group in tuning.groups:
        for candidate, error in zip(group.candidates, errors[group.label], strict=True):
            run = folder.tuning.run(candidate.element.name)
            run.path.mkdir(parents=True, exist_ok=True)
            run.job_yaml.write_text(job_as_text(candidate.element.job))
            summary: dict[str, Any] = {"status": "failed", "reason": "NonFiniteError: NaN"}
            if error is not None:
                summary = {"status": "completed", "num_workers": candidate.element.num_workers}
                summary |= {"validation_error": error, "test_error": 1 - error}
                time_s = 10 * error  # the better, the sooner
                row = {"event": "evaluation", "time_s": time_s, "validation_error": error}
                run.metrics_jsonl.write_text(json.dumps(row) + "\n")
            run.summary_json.write_text(json.dumps(summary))


BEST: dict[str, list[float | None]] = {
    "ssgd": [0.2, 0.1, 0.3, 0.4],
    "asgd": [0.4, 0.3, None, None],
    "dcasgd-a": [0.05, 0.2, 0.2, None],
}


def test_the_best_on_the_validation_split_is_what_the_other_seeds_run_with(tmp_path: Path) -> None:
    found, folder = study(tmp_path), StudyFolder(tmp_path / "out")
    assert if_tuned(found, folder) is found
    record(folder, tuning_of(found), BEST)
    assert left_to_run(tuning_of(found), folder) == []  # one that diverged is not repeated
    tuned = if_tuned(found, folder)
    assert {(e.label, e.job.seed, e.job.lr) for e in tuned.elements} == {
        (label, seed, lr)
        for label, lr in (("ssgd", 0.2), ("asgd", 0.2), ("dcasgd-a", 0.1))
        for seed in (0, 1)
    }
    write_choices(tuning_of(found), choose_values(found, tuning_of(found), folder), folder)
    told = folder.tuned()
    assert told is not None
    assert [(c["algorithm"], c["runs"], c["edge"], c["diverged"]) for c in told["chosen"]] == [
        ("ssgd", 4, [], 0),
        ("asgd", 4, [], 2),
        ("dcasgd-a", 4, ["lr", *told["chosen"][2]["edge"][1:]], 1),
    ]
    assert find_runs(folder.path) == []  # tuning runs are no results of the study


def test_an_algorithm_whose_runs_all_diverged_is_left_out_and_said_to_be(tmp_path: Path) -> None:
    found, folder = study(tmp_path), StudyFolder(tmp_path / "out")
    record(folder, tuning_of(found), {**BEST, "asgd": [None] * 4})
    assert {e.label for e in if_tuned(found, folder).elements} == {"ssgd", "dcasgd-a"}
    lost = choose_values(found, tuning_of(found), folder)[1]
    assert "nothing to choose (4 runs, 4 diverged); left out" in lost.text()


def test_a_study_of_which_nothing_is_left_says_so(tmp_path: Path) -> None:
    found, folder = study(tmp_path), StudyFolder(tmp_path / "out")
    record(folder, tuning_of(found), {label: [None] * 4 for label in BEST})
    with pytest.raises(ConfigError, match="nothing is left to compare"):
        if_tuned(found, folder)


def test_by_time_to_target_runs_that_were_cut_off_cannot_win(tmp_path: Path) -> None:
    tune = f"{{grid: {GRID}, by: time-to-target, cap_s: 2.5}}"
    found, folder = study(tmp_path, tune, "target_error: 0.35\n"), StudyFolder(tmp_path / "out")
    record(folder, tuning_of(found), BEST)
    ssgd, asgd, _ = choose_values(found, tuning_of(found), folder)
    assert (ssgd.score, ssgd.values, ssgd.cut_off) == (1.0, (("lr", 0.2),), 2)
    assert (asgd.values, asgd.cut_off, asgd.diverged) == (None, 2, 2)


def test_a_tie_in_time_is_decided_by_the_final_value_or_the_order_and_told(tmp_path: Path) -> None:
    tune = f"{{grid: {GRID}, by: time-to-target}}"
    found, folder = study(tmp_path, tune, "target_error: 0.35\n"), StudyFolder(tmp_path / "out")
    tuning = tuning_of(found)
    errors: dict[str, list[float | None]] = {
        "ssgd": [0.3, 0.2, 0.1, 0.9],
        "asgd": [0.2, 0.2, 0.3, None],
        "dcasgd-a": [0.1, 0.2, 0.3, 0.3],
    }
    record(folder, tuning, errors)
    for group in tuning.groups[:2]:
        for candidate in group.candidates:  # all reach the target at one evaluation
            file = folder.tuning.run(candidate.element.name).metrics_jsonl
            if file.exists():
                file.write_text(json.dumps({**json.loads(file.read_text()), "time_s": 7.0}) + "\n")
    ssgd, asgd, dcasgd = choose_values(found, tuning, folder)
    assert ssgd.values == tuning.groups[0].candidates[2].values
    assert "; 3 of 4 settings tied; the better final value decided" in ssgd.text()
    assert asgd.values == tuning.groups[1].candidates[0].values
    assert "; 3 of 4 settings tied; the first was taken" in asgd.text()
    assert (dcasgd.tie, "tied" in dcasgd.text()) == (None, False)
    write_choices(tuning, [ssgd, asgd, dcasgd], folder)
    told = folder.tuned()
    assert told is not None
    ties = [(each["tied"], each["tie_by_final"]) for each in told["chosen"]]
    assert ties == [(3, True), (3, False), (0, False)]


def test_a_tie_in_the_final_value_is_told(tmp_path: Path) -> None:
    found, folder = study(tmp_path), StudyFolder(tmp_path / "out")
    record(folder, tuning_of(found), {**BEST, "ssgd": [0.2, 0.1, 0.1, 0.4]})
    ssgd, asgd, _ = choose_values(found, tuning_of(found), folder)
    assert ssgd.values == tuning_of(found).groups[0].candidates[1].values
    assert "; 2 of 4 settings tied; the first was taken" in ssgd.text()
    assert asgd.tie is None


def test_an_array_waits_for_the_choice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, folder = study(tmp_path), StudyFolder(tmp_path / "out")
    with pytest.raises(ConfigError, match=r"12 tuning runs have no result.*--tune-only"):
        require_tuned(found, folder, "a job array")
    command = ["compare", str(found.file), "-o", str(folder.path), "--part", "0/2"]
    assert main(command) == 2
    assert "a part of the runs needs what they choose" in capsys.readouterr().err
    assert not folder.path.exists()


def test_a_dry_run_lists_and_counts_the_tuning_runs(tmp_path: Path) -> None:
    lines = plan_comparison(study(tmp_path), tmp_path / "out").overview().splitlines()
    assert lines[0].startswith("tuning: 12 runs in ")
    assert lines[0].endswith("4 for each of 3, seed 1000")
    assert lines[2].split()[0] == "ssgd-w2-t2"
    assert "lr 0.2" in lines[2]


class Worked:
    """Stands for a comparison that made its runs: the first fails for want of memory, or none."""

    def __init__(self, study: StudyFolder, tuning: Tuning, *, fails: bool) -> None:
        self.outcomes: list[Outcome] = []
        self.stopped_by = None
        self._study = study
        self._tuning = tuning
        self._fails = fails

    def run(self, runs: Sequence[PlannedRun]) -> None:
        record(self._study, self._tuning, BEST)
        if self._fails:
            summary = {"status": "failed", "reason": "MemoryError"}
            runs[0].folder.write_summary(summary)
        states: list[Outcome] = [Outcome(run, "completed", {}) for run in runs]
        if self._fails:
            states[0] = Outcome(runs[0], "failed", {}, "MemoryError")
        self.outcomes = states


def test_a_run_that_fails_for_want_of_memory_is_no_choice_against_its_values(
    tmp_path: Path,
) -> None:
    found, folder = study(tmp_path), StudyFolder(tmp_path / "out")
    tuning = tuning_of(found)
    worked = cast("Comparison", Worked(folder, tuning, fails=True))
    result = tune_study(found, tuning, folder, lambda _: worked, None)
    assert isinstance(result, ComparisonResult)
    assert [(outcome.run.name, outcome.reason) for outcome in result.failed] == [
        ("ssgd-w2-t1", "MemoryError")
    ]
    assert folder.tuned() is None


def test_results_count_that_an_updated_package_has_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The runs are programs of their own: of the new version, with a setting that is unknown here.
    found, folder = study(tmp_path), StudyFolder(tmp_path / "out")
    tuning = tuning_of(found)
    worked = cast("Comparison", Worked(folder, tuning, fails=False))
    genuine = worked.run

    def run(runs: Sequence[PlannedRun]) -> None:
        genuine(runs)
        for each in runs:
            each.folder.job_yaml.write_text(each.folder.job_yaml.read_text() + "novelty: 1\n")

    monkeypatch.setattr(worked, "run", run)
    assert isinstance(tune_study(found, tuning, folder, lambda _: worked, None), list)
    assert folder.tuned() is not None


def test_a_signal_during_the_last_tuning_run_keeps_the_study_from_starting(
    tmp_path: Path,
) -> None:
    found, folder = study(tmp_path), StudyFolder(tmp_path / "out")
    tuning = tuning_of(found)
    worked = cast("Comparison", Worked(folder, tuning, fails=False))
    worked.stopped_by = signal.SIGTERM
    result = tune_study(found, tuning, folder, lambda _: worked, None)
    assert isinstance(result, ComparisonResult)
    assert result.stopped_by == signal.SIGTERM


def test_what_is_chosen_is_told_and_written(tmp_path: Path) -> None:
    found, folder, shown = study(tmp_path), StudyFolder(tmp_path / "out"), io.StringIO()
    tuning = tuning_of(found)
    worked = cast("Comparison", Worked(folder, tuning, fails=False))
    assert isinstance(tune_study(found, tuning, folder, lambda _: worked, shown), list)
    assert folder.tuned() is not None
    lines = shown.getvalue().splitlines()
    assert lines[0].startswith("tuning: 12 of 12 runs in ")
    assert lines[1] == "tuned ssgd, 2 workers: lr 0.2 (validation error 10.00 %; 4 runs)"


def test_tuning_runs_that_are_made_beside_others_choose_when_all_are_there(tmp_path: Path) -> None:
    found, folder = study(tmp_path), StudyFolder(tmp_path / "out")
    tuning, asked = tuning_of(found), []

    class Some:
        outcomes: tuple[Outcome, ...] = ()
        stopped_by = None

        def run(self, runs: Sequence[PlannedRun]) -> None:
            asked.extend(run.name for run in runs)
            names = {run.name for run in runs}
            record(folder, tuning, BEST)
            for element in tuning.elements:
                if element.name not in names:
                    shutil.rmtree(folder.tuning.run(element.name).path)
            self.outcomes = tuple(Outcome(run, "completed", {}) for run in runs)

    def made(only: list[str]) -> Any:
        return tune_study(found, tuning, folder, lambda _: cast("Comparison", Some()), None, only)

    result = made(["asgd-w2-*"])
    assert asked == [f"asgd-w2-t{number}" for number in range(1, 5)]
    assert isinstance(result, ComparisonResult)
    assert result.failed == ()
    assert folder.tuned() is None
    record(folder, tuning, BEST)
    assert isinstance(made(["asgd-w2-*"]), list)
    assert folder.tuned() is not None
    with pytest.raises(ConfigError, match="--only asgd-w2-s0: no such run"):
        made(["asgd-w2-s0"])


def test_a_run_that_tuning_left_out_is_no_mistake_of_an_array(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, folder = study(tmp_path), StudyFolder(tmp_path / "out")
    record(folder, tuning_of(found), {**BEST, "asgd": [None] * 4})
    words = ["compare", str(found.file), "-o", str(folder.path), "--tuned", "--no-report"]
    assert main([*words, "--only", "asgd-w2-s0"]) == 0
    assert "tuning left out asgd-w2-s0" in capsys.readouterr().out
    assert main([*words, "--only", "asdg-w2-s0"]) == 2


def test_either_end_of_a_grid_is_its_edge(tmp_path: Path) -> None:
    found, folder = study(tmp_path, "{grid: {lr: [0.4, 0.1, 0.2]}}"), StudyFolder(tmp_path / "out")
    tuning = tuning_of(found)
    errors: dict[str, list[float | None]] = {"ssgd": [0.1, 0.2, 0.2], "asgd": [0.2, 0.1, 0.2]}
    record(folder, tuning, {**errors, "dcasgd-a": [0.2, 0.2, 0.1]})
    edges = [choice.edge for choice in choose_values(found, tuning, folder)]
    assert edges == [("lr",), ("lr",), ()]


def test_a_copy_for_slurm_has_the_cluster_of_the_tuning_runs(tmp_path: Path) -> None:
    (tmp_path / "hosts.yaml").write_text("delays: gamma\n")
    tune = "{grid: {lr: [0.1, 0.2]}, driver: simulated, cluster: hosts.yaml}"
    found = study(tmp_path, tune)
    copy = load_study(freeze_study(found, tmp_path / "slurm"))
    clusters = [element.cluster for element in tuning_of(copy).elements]
    assert clusters == [element.cluster for element in tuning_of(found).elements]
    assert clusters[0] is not None

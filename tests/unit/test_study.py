"""Study files: the grid, the names of its runs, and all problems before the first is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpi_dcasgd.config.load import job_as_yaml, load_job
from mpi_dcasgd.config.study import Study, load_study
from mpi_dcasgd.drivers.simulation.cluster import parse_cluster
from mpi_dcasgd.drivers.simulation.delays import Exponential, Gamma
from mpi_dcasgd.errors import ConfigError

JOB = """\
algorithm: dcasgd-a
epochs: 3
batch_size: 16
lr: 0.1
rule: {compensation: {dc_lambda: 1.5}}
model: {name: mlp, hidden: [32]}
data: {name: digits}
"""


def study(folder: Path, text: str, job: str = JOB) -> Study:
    (folder / "digits.yaml").write_text(job)
    path = folder / "grid.yaml"
    path.write_text("job: digits.yaml\n" + text)
    return load_study(path)


def problems(folder: Path, text: str, job: str = JOB) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        study(folder, text, job)
    assert caught.value.where == str(folder / "grid.yaml")
    return caught.value.problems


def test_the_grid_has_every_algorithm_with_a_seed_before_the_next_seed(tmp_path: Path) -> None:
    found = study(tmp_path, "algorithms: [sgd, ssgd, asgd]\nworkers: [2, 4]\nseeds: [7, 3]\n")
    assert found.name == "grid"
    assert [element.name for element in found.elements] == [
        *("sgd-s7", "ssgd-w2-s7", "ssgd-w4-s7", "asgd-w2-s7", "asgd-w4-s7"),
        *("sgd-s3", "ssgd-w2-s3", "ssgd-w4-s3", "asgd-w2-s3", "asgd-w4-s3"),
    ]
    assert [element.ranks for element in found.elements][:5] == [1, 2, 4, 3, 5]
    assert [element.num_workers for element in found.elements][:5] == [1, 2, 4, 2, 4]
    assert [element.sequential for element in found.elements][:5] == [True, *4 * [False]]
    assert {element.job.seed for element in found.elements[5:]} == {3}


def test_a_sequential_study_needs_no_workers(tmp_path: Path) -> None:
    assert [e.name for e in study(tmp_path, "algorithms: [sgd]\n").elements] == ["sgd-s0"]


def test_settings_for_all_and_for_one(tmp_path: Path) -> None:
    found = study(
        tmp_path,
        "algorithms: [asgd, {algorithm: dcasgd-c, lr: 0.3}]\nworkers: [1]\n"
        "set: {epochs: 9, model.hidden: [8], lr: 0.2}\ntarget_error: 0.05\n",
    )
    one, other = (element.job for element in found.elements)
    assert (one.epochs, one.lr, one.model.hidden) == (9, 0.2, (8,))
    assert (other.epochs, other.lr, other.model.hidden) == (9, 0.3, (8,))
    assert found.target_error == 0.05


def test_what_the_job_says_of_its_own_algorithm_is_not_for_the_others(tmp_path: Path) -> None:
    found = study(tmp_path, "algorithms: [asgd, dcasgd-c, dcasgd-a]\nworkers: [1]\n")
    lambdas = [job_as_yaml(e.job)["rule"]["compensation"].get("dc_lambda") for e in found.elements]
    assert lambdas == [None, 0.04, 1.5]


def test_entries_of_one_algorithm_are_named_after_what_sets_them_apart(tmp_path: Path) -> None:
    found = study(
        tmp_path,
        """\
algorithms:
  - dcasgd-a
  - {algorithm: dcasgd-a, rule.compensation.dc_lambda: 1.0}
  - {algorithm: dcasgd-a, rule.compensation.dc_lambda: 1.0, model.hidden: [8, 8]}
  - {algorithm: asgd, lr: 0.2}
workers: [4]
""",
    )
    assert [element.name for element in found.elements] == [
        "dcasgd-a-w4-s0",
        "dcasgd-a-dc_lambda1.0-w4-s0",
        "dcasgd-a-dc_lambda1.0-hidden_8_8-w4-s0",
        "asgd-w4-s0",
    ]


def test_names_that_would_be_the_same_are_numbered(tmp_path: Path) -> None:
    entries = "[{algorithm: asgd, name: a b}, {algorithm: asgd, name: a/b}]"
    found = study(tmp_path, f"algorithms: {entries}\nworkers: [1]\n")
    assert [e.name for e in found.elements] == ["asgd-namea_b-w1-s0", "asgd-namea_b-2-w1-s0"]


BOTH = "drivers: [real, simulated]\n"


def test_a_study_of_both_drivers_has_a_twin_of_every_run_but_the_sequential(
    tmp_path: Path,
) -> None:
    found = study(tmp_path, f"algorithms: [sgd, ssgd, asgd]\nworkers: [2]\nseeds: [7, 3]\n{BOTH}")
    assert [element.name for element in found.elements] == [
        *("sgd-s7", "ssgd-w2-s7", "asgd-w2-s7", "ssgd-w2-s7-simulated", "asgd-w2-s7-simulated"),
        *("sgd-s3", "ssgd-w2-s3", "asgd-w2-s3", "ssgd-w2-s3-simulated", "asgd-w2-s3-simulated"),
    ]
    assert [element.simulated for element in found.elements[:5]] == [*3 * [False], *2 * [True]]
    real, twin = found.elements[1], found.elements[3]
    assert (twin.job, twin.num_workers, twin.overrides) == (real.job, 2, real.overrides)
    assert (real.ranks, twin.ranks) == (2, 1)


def test_without_a_cluster_twins_take_their_delays_from_the_first_asynchronous_run(
    tmp_path: Path,
) -> None:
    text = (
        "algorithms: [ssgd, dcasgd-a, asgd, {algorithm: asgd, batch_size: 64}]\n"
        f"workers: [2, 4]\n{BOTH}"
    )
    found = study(tmp_path, text + "cluster: calibrated\n")
    # A step of another minibatch takes another time: it has a source of its own.
    assert {e.name: e.calibrated_from for e in found.elements if e.simulated} == {
        "ssgd-w2-s0-simulated": "dcasgd-a-w2-s0",
        "ssgd-w4-s0-simulated": "dcasgd-a-w4-s0",
        "dcasgd-a-w2-s0-simulated": "dcasgd-a-w2-s0",
        "dcasgd-a-w4-s0-simulated": "dcasgd-a-w4-s0",
        "asgd-w2-s0-simulated": "dcasgd-a-w2-s0",
        "asgd-w4-s0-simulated": "dcasgd-a-w4-s0",
        "asgd-batch_size64-w2-s0-simulated": "asgd-batch_size64-w2-s0",
        "asgd-batch_size64-w4-s0-simulated": "asgd-batch_size64-w4-s0",
    }
    assert found == study(tmp_path, text)


def test_simulated_runs_are_as_slow_as_the_job_makes_real_ones(tmp_path: Path) -> None:
    inject = "set: {inject: {slow: {1: 4}, delays: {model: gamma, mean_s: 0.5}}}\n"
    text = f"algorithms: [asgd]\nworkers: [2]\n{BOTH}{inject}"
    [_, twin] = study(tmp_path, text + "cluster: {network: {latency_s: 1e-3}}\n").elements
    assert twin.cluster is not None
    cluster = parse_cluster("", twin.cluster)
    assert (cluster.delays, cluster.slow) == (Gamma(mean_s=0.5), {1: 4})
    assert cluster.network.latency_s == 1e-3
    [_, twin] = study(tmp_path, text + "cluster: {delays: exponential}\n").elements
    assert twin.cluster is not None
    assert parse_cluster("", twin.cluster).delays == Exponential()


def test_a_study_that_is_only_simulated_runs_the_sequential_baseline_as_it_is(
    tmp_path: Path,
) -> None:
    (tmp_path / "clusters").mkdir()
    (tmp_path / "clusters" / "a.yaml").write_text("workers: 9\ndelays: pareto\n")
    text = "algorithms: [sgd, asgd]\nworkers: [2]\ndrivers: [simulated]\n"
    found = study(tmp_path, text + "cluster: clusters/a.yaml\n")
    assert [e.name for e in found.elements] == ["sgd-s0", "asgd-w2-s0-simulated"]
    assert found.elements[1].cluster == {"delays": "pareto"}
    assert study(tmp_path, text).elements[1].cluster == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "drivers: [real, simulate]\n",
            "drivers[1]: got 'simulate' (text); allowed: one of real, simulated; did you mean "
            "simulated?",
        ),
        ("drivers: [real, real]\n", "drivers: got ['real', 'real'] (a list); allowed: each word"),
        ("cluster: calibrated\n", "cluster: applies to simulated runs; set drivers:"),
        (
            "drivers: [simulated]\ncluster: calibrated\n",
            "cluster: calibrated takes the delays from the study's real runs",
        ),
        (
            BOTH + "cluster: {delay: gamma, slow: {9: 2}}\n",
            "cluster.delay: unknown; did you mean delays?",
        ),
        (BOTH + "cluster: {delays: gama}\n", "cluster.delays: unknown 'gama'; did you mean gamma?"),
        (BOTH + "cluster: {slow: {4: 2}}\n", "cluster.slow: there is no worker 4; they are 0 to 1"),
        (BOTH + "cluster: calibrate\n", "did you mean calibrated?"),
        (BOTH + "cluster: 5\n", "cluster: got 5 (a whole number)"),
    ],
)
def test_what_is_wrong_with_the_simulated_side_is_told(
    tmp_path: Path, text: str, words: str
) -> None:
    found = problems(tmp_path, "algorithms: [asgd]\nworkers: [2]\n" + text)
    assert words in found[0]


def test_a_study_does_not_slow_workers_that_there_are_not(tmp_path: Path) -> None:
    text = "algorithms: [sgd, asgd]\nset: {inject.slow: {2: 4}}\n"
    assert len(study(tmp_path, f"{text}workers: [3]\n").elements) == 2
    [found] = problems(tmp_path, f"{text}workers: [2, 3]\n")
    assert found == "asgd: inject.slow: there is no worker 2; they are 0 to 1"


def test_backup_workers_are_simulated_only(tmp_path: Path) -> None:
    text = "algorithms: [asgd, ssgd, {algorithm: ssgd, sync.backup: 1}]\nworkers: [2]\n"
    found = study(tmp_path, text + BOTH)
    assert [e.name for e in found.elements] == [
        "asgd-w2-s0",
        "ssgd-w2-s0",
        "asgd-w2-s0-simulated",
        "ssgd-w2-s0-simulated",
        "ssgd-backup1-w2-s0-simulated",
    ]
    assert found.elements[-1].job.sync.backup == 1
    [told] = problems(tmp_path, text)
    assert told.startswith("sync.backup: an allreduce waits for every rank")
    # With its backup worker there is a worker 2, to be slowed.
    slow = text + BOTH + "cluster: {slow: {2: 4}}\n"
    assert problems(tmp_path, slow) == ["cluster.slow: there is no worker 2; they are 0 to 1"]
    alone = "algorithms: [{algorithm: ssgd, sync.backup: 1}]\nworkers: [2]\ndrivers: [simulated]\n"
    assert len(study(tmp_path, alone + "cluster: {slow: {2: 4}}\n").elements) == 1
    # Asynchronous runs have no use for it, and are not kept from being real.
    everywhere = "algorithms: [asgd]\nworkers: [2]\nset: {sync.backup: 1}\n"
    assert len(study(tmp_path, everywhere).elements) == 1


def test_a_run_without_an_asynchronous_one_beside_it_cannot_be_calibrated(tmp_path: Path) -> None:
    [found] = problems(tmp_path, f"algorithms: [ssgd]\nworkers: [2, 4]\n{BOTH}")
    assert found.startswith("cluster: ssgd has no asynchronous run beside it")


@pytest.mark.parametrize(
    ("asgd", "told"),
    [("agsd", "algorithms[1]: unknown"), ("{algorithm: asgd, lr: x}", "asgd: lr: got 'x'")],
)
def test_what_to_calibrate_from_is_not_missing_where_it_is_wrong(
    tmp_path: Path, asgd: str, told: str
) -> None:
    [found] = problems(tmp_path, f"algorithms: [ssgd, {asgd}]\nworkers: [2]\n{BOTH}")
    assert found.startswith(told)


def test_all_problems_of_the_study_are_told_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """\
algorithms: [asdg, {lr: 1}, asgd, asgd, {algorithm: sgd, seed: 3}, 5]
seeds: [0, 0]
set: {seed: 1, algorithm: sgd}
targets: 0.1
""",
    )
    starts = [
        "targets: unknown; did you mean target?",
        "algorithms[0]: unknown algorithm 'asdg'; did you mean asgd?",
        "algorithms[1]: got {'lr': 1} (a mapping); allowed: an algorithm's name",
        "algorithms[3]: the same as algorithms[2]",
        "algorithms[4]: seed is what seeds are for",
        "algorithms[5]: got 5 (a whole number)",
        "workers: missing; asgd needs a list",
        "set.seed: is what seeds are for",
        "set.algorithm: is what algorithms are for",
        "seeds: got [0, 0] (a list); allowed: each number once",
    ]
    assert len(found) == len(starts)
    for line, start in zip(found, starts, strict=True):
        assert line.startswith(start)


def test_keys_of_jobs_are_told_where_they_belong(tmp_path: Path) -> None:
    text = "algorithms: [sgd]\nseed: [1]\nepochs: 3\nbogus: 1\n"
    found = problems(tmp_path, text)
    assert found[0] == "seed: unknown; did you mean seeds?"
    assert found[1] == "epochs: unknown; it belongs in the job file, or under set:"
    assert found[2].startswith("bogus: unknown (allowed: name, job, algorithms,")


def test_a_job_is_told_from_a_study(tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(JOB)
    with pytest.raises(ConfigError, match="this is a job, not a study; train or run starts it"):
        load_study(tmp_path / "toy.yaml")
    [found] = problems(tmp_path, "algorithms: [sgd]\nmodel: {name: mlp}\n")
    assert found == "model: unknown; it belongs in the job file, or under set:"
    (tmp_path / "grid.yaml").write_text("job: toy.yaml\nalgorithms: [sgd]\n")
    with pytest.raises(ConfigError, match="this is a study, not a job; compare runs it"):
        load_job(tmp_path / "grid.yaml")


def test_the_same_as_an_earlier_entry_names_that_entry(tmp_path: Path) -> None:
    found = problems(tmp_path, "algorithms: [bogus, asgd, sgd, sgd]\nworkers: [1]\n")
    assert found[1] == "algorithms[3]: the same as algorithms[2]"


def test_a_problem_of_every_run_is_told_once_and_one_of_some_with_their_names(
    tmp_path: Path,
) -> None:
    found = problems(
        tmp_path,
        """\
algorithms: [sgd, asgd, {algorithm: dcasgd-a, rule.compensation.decay: 2}]
workers: [2, 4]
seeds: [0, 1]
set: {epochs: 0}
""",
    )
    assert found[0] == "epochs: got 0 (a whole number); allowed: a whole number >= 1"
    assert len(found) == 2
    assert found[1].startswith("dcasgd-a: rule.compensation.decay: ")


def test_a_job_file_that_is_not_there_is_told_by_the_study(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("job: nowhere.yaml\nalgorithms: [sgd]\n")
    with pytest.raises(ConfigError, match=r"job: .*nowhere\.yaml: no such file"):
        load_study(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("algorithms: []\n", "algorithms: got [] (a list); allowed: a list, not empty"),
        ("algorithms: sgd\n", "algorithms: got 'sgd' (text)"),
        ("algorithms: [sgd]\nworkers: [0]\n", "workers[0]: got 0"),
        ("algorithms: [sgd]\ntarget_error: 4\n", "target_error: got 4"),
        ("algorithms: [sgd]\nset: 3\n", "set: got 3"),
        ("", "algorithms: missing"),
    ],
)
def test_a_study_is_checked_like_a_job(tmp_path: Path, text: str, words: str) -> None:
    assert problems(tmp_path, text)[0].startswith(words)

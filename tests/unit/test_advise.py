"""``mpi-dcasgd advise``: what it says of numbers made up, and of a small cluster."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

from mpi_dcasgd.cli import main
from mpi_dcasgd.drivers.signals import StopFlag
from mpi_dcasgd.errors import ConfigError, NonFiniteError
from mpi_dcasgd.learning.measures import Measures
from mpi_dcasgd.runs import advise as module
from mpi_dcasgd.runs.advise import advise
from mpi_dcasgd.tools.advice import Course, Ranking, Tried, ranked, target_of

ERRORS = (0.5, 0.3, 0.2, 0.1)  # after 10, 20, 30, 40 samples
JOB: dict[str, Any] = {
    "epochs": 4,
    "batch_size": 8,
    "lr": 0.2,
    "model": {"name": "mlp", "hidden": [4]},
    "data": {"name": "synthetic", "num_train": 96, "num_test": 64, "shape": [4], "num_classes": 3},
}


def course(epoch_s: float, seed: int = 0, errors: tuple[float, ...] = ERRORS) -> Course:
    return Course(seed, tuple((10.0 * n, epoch_s * n, e) for n, e in enumerate(errors, start=1)))


def tried(name: str, workers: int, *epochs_s: float, errors: tuple[float, ...] = ERRORS) -> Tried:
    return Tried(name, workers, tuple(course(s, seed, errors) for seed, s in enumerate(epochs_s)))


ONE = tried("sgd", 1, 8.0, 8.0)


def ranking(*others: Tried, target: float | None = None) -> Ranking:
    return ranked(ONE, others, Measures(), target)


def test_the_target_is_what_one_worker_has_reached_by_three_quarters_on_every_seed() -> None:
    assert target_of(ONE, Measures()) == 0.2
    worse = Tried("sgd", 1, (course(8), course(8, 1, (0.5, 0.4, 0.35, 0.1))))
    assert target_of(worse, Measures()) == 0.35
    higher = Measures("accuracy", higher_is_better=True)
    assert target_of(worse, higher) == 0.5
    diverged = Tried("sgd", 1, (course(8), Course(1, ())))
    assert math.isnan(target_of(diverged, Measures()))


def test_a_winner_a_rival_and_where_more_workers_do_not_pay() -> None:
    found = ranking(
        tried("ssgd", 4, 6.0, 6.4),
        tried("asgd", 4, 2.0, 2.0),
        tried("asgd", 8, 1.0, 1.1),
        tried("asgd", 16, 0.95, 1.05),  # 5 % sooner: not worth twice as many
        tried("asgd", 32, 1.0, 1.0, errors=(0.9, 0.9, 0.9, 0.9)),
    )
    assert found.take is not None
    assert found.rival is not None
    assert str(found.take.tried) == "asgd with 8 workers"
    assert found.take.times_s == (3.0, pytest.approx(3.3))
    assert str(found.rival.tried) == "ssgd with 4 workers"
    first, second, third = found.sentences
    assert "error 20.00 % or better after 3.146 s (3 to 3.3 over 2 seeds), 7.63 times" in first
    assert "5.91 times as long (5.82 to 6.00 by seed)." in second
    assert "within the spread" not in second
    assert third.startswith("More than 8 workers do not pay: 16 need 0.95 times as long, 32 do not")


def test_within_the_spread_of_the_seeds_either_will_do() -> None:
    found = ranking(tried("asgd", 4, 2.0, 2.2), tried("dcasgd-a", 4, 2.2, 2.1))
    assert "within the spread of the seeds" in found.sentences[1]
    assert found.sentences[2] == "4 workers are the most that were tried; more may pay."


def test_one_worker_is_advised_where_it_is_soonest_or_nothing_else_arrives() -> None:
    slow = ranking(tried("ssgd", 4, 9.0, 10.0))
    assert slow.take is slow.one
    assert slow.sentences[0].startswith("Take one worker: error 20.00 % or better after 24 s")
    assert "ssgd with 4 workers, takes 1.19 times as long" in slow.sentences[0]
    half = Tried("asgd", 4, (course(1), Course(1, ())))
    none = ranking(half)
    assert none.take is None
    assert "nothing else reached error 20.00 % or better on every seed" in none.sentences[0]
    assert "on some seeds: asgd with 4 workers" in none.sentences[0]
    assert math.isnan(none.rows[0].last)
    lost = ranked(Tried("sgd", 1, (Course(0, ()),)), [tried("asgd", 4, 1.0)], Measures())
    assert lost.take is None
    assert lost.sentences[0].startswith("No advice: one worker alone diverged")
    beyond = ranked(ONE, [tried("asgd", 4, 1.0, 1.0, errors=(0.1, 0.05))], Measures(), 0.05)
    assert beyond.sentences[0].endswith("; one worker alone does not reach it.")
    assert "No other algorithm was tried." in beyond.sentences[1]


def test_a_slow_worker_holds_up_the_synchronous_algorithm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job, cluster = tmp_path / "tiny.yaml", tmp_path / "cluster.yaml"
    job.write_text(json.dumps(JOB))
    cluster.write_text(json.dumps({"delays": "gamma", "slow": {3: 8}, "workers": 9}))
    words = ["--cluster", str(cluster), "--workers", "4", "--algorithms", "ssgd", "asgd"]
    assert main(["advise", str(job), *words, "-o", str(tmp_path / "runs"), "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["take"]["algorithm"] == "asgd"
    assert found["seeds"] == [0, 1]
    assert [(row["algorithm"], row["workers"]) for row in found["tried"]] == [
        ("ssgd", 4),
        ("asgd", 4),
    ]
    assert "slow" not in (tmp_path / "runs/sgd-w1-s0/cluster.yaml").read_text()
    assert "slow" in (tmp_path / "runs/asgd-w4-s1/cluster.yaml").read_text()
    lines = err.splitlines()
    assert lines[0].startswith("6 runs, estimated at ")
    assert lines[-1].startswith("[6/6] asgd, 4 workers, seed 1: error ")


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        advise(JOB, cluster={"slow": {5: 2}}, workers=[4], algorithms=["asgd", "sgd"], seeds=1)
    text = str(caught.value)
    assert "4 workers: cluster.slow: there is no worker 5" in text
    assert "sgd is one process" in text
    assert "seeds: got 1; allowed: 2 or more" in text
    with pytest.raises(ConfigError, match=r"would take about .* allow more with --minutes"):
        advise({**JOB, "epochs": 10**6}, cluster={}, workers=[4], minutes=1)
    with pytest.raises(ConfigError, match="unknown algorithm 'asdg'; did you mean asgd"):
        advise(JOB, cluster={}, workers=[4], algorithms="asdg")
    with pytest.raises(ConfigError, match="unknown algorithm 'epochs=4'; put key=value words bef"):
        advise(JOB, cluster={}, workers=[4], algorithms=["asgd", "epochs=4"])
    with pytest.raises(ConfigError, match=r"got 75; allowed: .* did you mean 0\.75"):
        advise(JOB, cluster={}, workers=[4], target=75)
    job = tmp_path / "tiny.yaml"
    job.write_text(json.dumps(JOB))
    assert main(["advise", str(job), "algorithm=asgd", "--cluster", str(tmp_path / "no.yaml")]) == 2
    assert "use --algorithms" in capsys.readouterr().err
    assert main(["advise", str(job), "--cluster", str(tmp_path / "no.yaml")]) == 2
    assert "no.yaml" in capsys.readouterr().err


def test_a_stop_and_a_divergence(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, shown, seen = StopFlag(), io.StringIO(), []
    genuine = module.simulate

    def simulate(job: Any, **given: Any) -> Any:
        seen.append((job.algorithm, given["seed"]))
        if seen[-1] == ("asgd", 0):
            raise NonFiniteError("made up")
        if seen[-1] == ("asgd", 1):
            stop.set(15)
        return genuine(job, **given)

    monkeypatch.setattr(module, "simulate", simulate)
    given: dict[str, Any] = {"cluster": {}, "workers": [2], "algorithms": ["asgd"]}
    found = advise(JOB, **given, show=shown, stop=stop)
    assert seen == [("sgd", 0), ("asgd", 0), ("sgd", 1), ("asgd", 1)]
    assert (found.stopped_by, found.seeds) == (15, (0,))
    assert found.ranking is not None
    assert found.ranking.take is None
    assert "asgd, 2 workers, seed 0: diverged" in shown.getvalue()
    assert found.notes[1] == "1 of 2 seeds were done; one seed has no spread"
    assert advise(JOB, **given, stop=stop).ranking is None

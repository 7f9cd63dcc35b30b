"""Delay models and clusters: what is drawn, from which generator, and what is refused."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest

from mpi_dcasgd.drivers.simulation.cluster import (
    Cluster,
    Crashes,
    Network,
    Pauses,
    ServerTimes,
    WorkerClock,
    crash_s,
    parse_cluster,
)
from mpi_dcasgd.drivers.simulation.delays import (
    NAMES,
    Constant,
    Empirical,
    Exponential,
    Gamma,
    LogNormal,
    Pareto,
    StepTimes,
    scaled,
)
from mpi_dcasgd.drivers.simulation.square_root import SquareRoot
from mpi_dcasgd.errors import ConfigError

MODELS = [
    Constant(mean_s=2.0),
    Exponential(mean_s=2.0),
    Gamma(mean_s=2.0),
    Gamma(mean_s=2.0, machine_cv=0.6),
    LogNormal(mean_s=2.0),
    Pareto(mean_s=2.0),
    Empirical(steps_s=((1.0, 2.0, 3.0), (2.0,))),
]


def draw(model: Any, workers: int, steps: int, seed: int = 0) -> np.ndarray:
    times = StepTimes(model, workers, seed)
    return np.array([[times.next(worker) for _ in range(steps)] for worker in range(workers)])


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.model)
def test_a_workers_step_times_do_not_depend_on_who_else_is_asked(model: Any) -> None:
    expected = draw(model, 4, 150, seed=7)
    times, order = StepTimes(model, 4, 7), random.Random(3)
    seen: list[list[float]] = [[] for _ in range(4)]
    while min(map(len, seen)) < 150:
        worker = order.randrange(4)
        seen[worker].append(times.next(worker))
    assert all(s[:150] == list(e) for s, e in zip(seen, expected, strict=True))


def test_another_seed_gives_other_times_and_the_same_seed_the_same() -> None:
    assert (draw(Gamma(), 2, 5, seed=1) == draw(Gamma(), 2, 5, seed=1)).all()
    assert (draw(Gamma(), 2, 5, seed=1) != draw(Gamma(), 2, 5, seed=2)).all()


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.model)
def test_the_mean_is_what_the_model_says(model: Any) -> None:
    times = draw(model, 400, 100)
    assert (times > 0).all()
    assert times.mean() == pytest.approx(model.mean_s, rel=0.05)
    assert scaled(model, 3.0).mean_s == pytest.approx(3 * model.mean_s)


@pytest.mark.parametrize(("machine_cv", "task_cv"), [(0.1, 0.1), (0.6, 0.1)])
def test_gamma_spreads_machines_and_tasks_as_ali_et_al_say(
    machine_cv: float, task_cv: float
) -> None:
    times = draw(Gamma(mean_s=3.0, machine_cv=machine_cv, task_cv=task_cv), 2000, 200)
    machines = times.mean(axis=1)
    assert machines.std() / machines.mean() == pytest.approx(machine_cv, rel=0.06)
    within = (times.std(axis=1) / machines).mean()
    assert within == pytest.approx(task_cv, rel=0.03)


def test_quantiles_are_those_of_the_distributions() -> None:
    for model, quantile in (
        (Exponential(mean_s=2.0), lambda p: -2.0 * math.log(1 - p)),
        (Pareto(mean_s=3.0, tail=3.0), lambda p: 2.0 * (1 - p) ** (-1 / 3.0)),
    ):
        times = draw(model, 100, 640).ravel()
        for p in (0.1, 0.5, 0.9):
            assert np.quantile(times, p) == pytest.approx(quantile(p), rel=0.03)
    times = draw(LogNormal(mean_s=1.0, sigma=0.5), 100, 640).ravel()
    assert np.median(times) == pytest.approx(math.exp(-0.125), rel=0.02)


def test_square_root_times_are_those_of_ringmasters_workers() -> None:
    times = draw(SquareRoot(mean_s=2.0), 50, 640)
    for worker in (0, 3, 48):
        mine = times[worker] / 2.0 - (1 + worker**0.5)
        assert mine.min() > 0
        # The mean size of a normal number, in its deviations, is sqrt(2 / pi).
        expected = math.sqrt(2 / math.pi * (worker + 1))
        assert mine.mean() == pytest.approx(expected, rel=0.1)


def test_empirical_times_are_the_workers_own() -> None:
    times = draw(Empirical(steps_s=((1.0, 2.0), (5.0,))), 4, 100)
    assert set(times[0]) == set(times[2]) == {1.0, 2.0}
    assert set(times[1]) == set(times[3]) == {5.0}


def test_skipping_goes_on_where_the_others_stopped() -> None:
    times = StepTimes(Gamma(), 3, 5)
    for worker, count in enumerate((0, 64, 131)):
        for _ in range(count):
            times.next(worker)
    resumed = StepTimes(Gamma(), 3, 5)
    resumed.skip_to(times.drawn())
    assert times.drawn() == [0, 64, 131]
    assert [resumed.next(w) for w in (0, 1, 2, 2)] == [times.next(w) for w in (0, 1, 2, 2)]


def test_a_slow_worker_takes_exactly_so_many_times_as_long() -> None:
    plain = WorkerClock(Cluster(delays=Gamma()), 3, 1)
    slowed = WorkerClock(Cluster(delays=Gamma(), slow={1: 4.0}), 3, 1)
    for _ in range(5):
        assert slowed.finish(0, 0.0) == plain.finish(0, 0.0)
        assert slowed.finish(1, 0.0) == 4 * plain.finish(1, 0.0)


def test_even_pauses_take_their_share_of_time() -> None:
    pauses = Pauses(every_s=10.0, for_s=2.0, random=False)
    clock = WorkerClock(Cluster(delays=Constant(mean_s=0.5), pauses=pauses), 1, 0)
    now, steps = 0.0, 0
    while now < 1000.0:
        now = clock.finish(0, now)
        steps += 1
    assert steps == pytest.approx(1000 * 0.8 / 0.5, abs=5)


def test_a_pause_that_a_worker_slept_through_costs_it_nothing() -> None:
    pauses = Pauses(every_s=10.0, for_s=2.0, random=False)
    clock = WorkerClock(Cluster(delays=Constant(mean_s=0.0), pauses=pauses), 1, 0)
    ends = [clock.finish(0, begin) for begin in np.arange(0.0, 40.0, 0.5)]
    late = [e - b for e, b in zip(ends, np.arange(0.0, 40.0, 0.5), strict=True)]
    assert min(late) == 0.0
    # Only what was left of the stall when the work came.
    assert 1.5 <= max(late) <= 2.0


def test_pauses_can_be_those_of_some_workers_only_and_go_on_after_a_resume() -> None:
    cluster = Cluster(pauses=Pauses(every_s=5.0, for_s=1.0, workers=(1,)))
    clock = WorkerClock(cluster, 2, 3)
    now = 0.0
    for _ in range(50):
        clock.finish(0, 0.0)
        now = clock.finish(1, now)
    assert clock.finish(0, 0.0) == 1.0
    assert now > 55.0
    resumed = WorkerClock(cluster, 2, 3)
    resumed.load_state_dict(clock.state_dict())
    for _ in range(20):
        assert resumed.finish(1, now) == clock.finish(1, now)
        now += 1.0


def test_crashes_come_at_the_given_mean() -> None:
    lives = [crash_s(Crashes(every_s=10.0, repair_s=1.0), 1, 0, k) for k in range(2000)]
    assert np.mean(lives) == pytest.approx(10.0, rel=0.06)


def test_network_and_server_times() -> None:
    assert Network(latency_s=0.5, bytes_per_s=100).message_s(200) == 2.5
    assert Network().message_s(10**9) == 0.0
    assert Network(latency_s=1.0, bytes_per_s=100).allreduce_s(100, 4) == 4.0 + 1.5
    assert Network(latency_s=1.0).allreduce_s(100, 1) == 0.0
    assert ServerTimes(service_s=0.25, bytes_per_s=400).push_s(100) == 0.5


@pytest.mark.parametrize("name", sorted(NAMES))
def test_one_word_is_enough_for_delays(name: str) -> None:
    cluster = parse_cluster("command line", {"delays": name})
    assert cluster.delays.model == NAMES[name]["model"]
    assert cluster.delays.mean_s == 1.0


def test_a_whole_cluster_is_parsed() -> None:
    cluster = parse_cluster(
        "cluster.yaml",
        {
            "delays": {"model": "empirical", "steps_s": [[1, 2.5], [3]]},
            "slow": {2: 4},
            "pauses": {"every_s": 60, "for_s": 2, "workers": [0]},
            "crashes": {"every_s": 3600, "repair_s": 120},
            "network": {"latency_s": 1e-5, "bytes_per_s": 1e9},
            "server": {"service_s": 1e-4},
        },
    )
    assert cluster.delays == Empirical(steps_s=((1.0, 2.5), (3.0,)))
    assert cluster.slow == {2: 4.0}
    assert cluster.pauses == Pauses(every_s=60.0, for_s=2.0, workers=(0,))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"delays": "gama"}, "delays: unknown 'gama'; did you mean gamma?"),
        ({"delays": {"model": "gamma", "mean": 1}}, r"delays.mean: unknown; did you mean mean_s\?"),
        ({"slow": {2: -1}}, r"slow.2: got -1 \(a whole number\); allowed: a number > 0"),
        ({"slow": {2: "x4"}}, r"slow.2: got 'x4' \(text\); allowed: a number > 0"),
        ({"netwrok": {}}, r"netwrok: unknown; did you mean network\?"),
        ({"pauses": {"every_s": 1}}, "pauses.for_s: missing; give a number > 0"),
    ],
)
def test_a_wrong_cluster_is_refused_with_the_key(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_cluster("cluster.yaml", settings)


def test_a_worker_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="slow: there is no worker 4; they are 0 to 3"):
        WorkerClock(Cluster(slow={4: 2.0}), 4, 0)

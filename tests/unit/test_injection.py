"""Slowness on purpose: as long as the simulator says, and never shorter than the work."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from toy import World

from mpi_dcasgd import load_job
from mpi_dcasgd.drivers.simulation.cluster import Cluster, Pauses, WorkerClock
from mpi_dcasgd.drivers.simulation.delays import Constant, Gamma
from mpi_dcasgd.drivers.simulation.injection import Injection, InjectSettings
from mpi_dcasgd.drivers.simulation.slowed_learner import SlowedLearner
from mpi_dcasgd.errors import ConfigError


class HandClock:
    """Time that passes only by work and by sleep."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.now += seconds


def injection(settings: InjectSettings, worker: int = 0) -> tuple[Injection, HandClock]:
    clock = HandClock()
    return Injection(settings, worker, 3, 7, clock, clock.sleep), clock


def step(injected: Injection, clock: HandClock, work_s: float) -> float:
    began = clock.now
    mark = injected.now()
    clock.now += work_s
    injected.hold(mark)
    return clock.now - began


@pytest.mark.parametrize(("worker", "factor"), [(0, 1.0), (2, 4.0)])
def test_a_slow_workers_steps_take_so_many_times_as_long(worker: int, factor: float) -> None:
    injected, clock = injection(InjectSettings(slow={2: 4.0}), worker)
    for work_s in (0.5, 0.25):
        assert step(injected, clock, work_s) == pytest.approx(factor * work_s)


def test_drawn_steps_are_those_of_the_simulator() -> None:
    injected, clock = injection(InjectSettings(delays=Gamma(), slow={1: 2.0}), worker=1)
    simulated = WorkerClock(Cluster(delays=Gamma(), slow={1: 2.0}), 3, 7)
    for _ in range(5):
        assert step(injected, clock, 0.01) == pytest.approx(simulated.finish(1, 0.0))


def test_work_that_takes_longer_than_the_model_is_not_cut_short() -> None:
    injected, clock = injection(InjectSettings(delays=Constant(mean_s=0.1)))
    assert step(injected, clock, 0.3) == pytest.approx(0.3)
    assert clock.slept == 0.0


def test_pauses_are_injected_too() -> None:
    pauses = Pauses(every_s=10.0, for_s=2.0, random=False)
    injected, clock = injection(InjectSettings(pauses=pauses))
    began = clock.now
    for _ in range(200):
        step(injected, clock, 0.4)
    assert clock.now - began == pytest.approx(80 / 0.8, abs=2.5)


def test_a_slowed_task_computes_the_same_gradients() -> None:
    plain, slowed = World(1).learner_of_its_own, World(1).learner_of_its_own
    injected, clock = injection(InjectSettings(delays=Constant(mean_s=50.0)))
    learner = SlowedLearner(slowed, injected)
    assert learner.gradient(learner.load(1)) == plain.gradient(plain.load(1))
    assert torch.equal(learner.flat.grad, plain.flat.grad)
    assert clock.slept == 50.0


def test_settings_come_as_in_yaml() -> None:
    settings = InjectSettings(
        delays="gamma",  # type: ignore[arg-type]
        slow={"2": 4},  # type: ignore[dict-item]
        pauses={"every_s": 3, "for_s": 1},  # type: ignore[arg-type]
    )
    assert settings.delays == Gamma()
    assert settings.slow == {2: 4.0}
    assert settings.pauses == Pauses(every_s=3.0, for_s=1.0)
    assert settings.active
    assert not InjectSettings().active


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"delays": "gama"}, "did you mean gamma"), ({"slow": 4}, "mapping of whole numbers >= 0")],
)
def test_wrong_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InjectSettings(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"slow": {"a": 4}}, ["slow: got {'a': 4} (a mapping); allowed: a mapping of whole numb"]),
        ({"slow": {7: -4}}, ["slow.7: got -4 (a whole number); allowed: a number > 0"]),
        ({"slow": [[7, 4]]}, ["slow: got [[7, 4]] (a list); allowed: a mapping of whole numbers"]),
        ({"pauses": {"every_s": 1}}, ["pauses.for_s: missing; give a number > 0"]),
        ({"pauses": 4}, ["pauses: got 4 (a whole number); allowed: a mapping or null"]),
        (
            {"pauses": {"every_s": 1, "for_s": 1, "random": 3, "workers": [1, -1]}},
            [
                "pauses.random: got 3 (a whole number); allowed: true or false",
                "pauses.workers[1]: got -1 (a whole number); allowed: a whole number >= 0",
            ],
        ),
        ({"delays": {"model": "pareto", "tial": 3}}, ["delays.tial: unknown; did you mean tail?"]),
        (
            {"delays": {"model": "empirical", "steps_s": [[1, -1]]}},
            ["delays.steps_s[0][1]: got -1 (a whole number); allowed: a number >= 0"],
        ),
    ],
    ids=str,
)
def test_wrong_settings_are_told_as_those_of_any_section(
    given: dict[str, Any], told: list[str]
) -> None:
    job = {"algorithm": "asgd", "epochs": 1, "batch_size": 8, "lr": 0.1, "inject": given}
    with pytest.raises(ConfigError) as caught:
        load_job({**job, "model": {"name": "mlp"}, "data": {"name": "digits"}})
    for line, start in zip(caught.value.problems, told, strict=True):
        assert line.startswith(f"inject.{start}")


def test_a_worker_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="no worker 3"):
        injection(InjectSettings(slow={3: 2.0}))


def test_one_process_is_worker_0_whoever_else_is_named() -> None:
    pauses = Pauses(every_s=10.0, for_s=2.0, workers=(5,))
    settings = InjectSettings(delays=Gamma(), slow={0: 3.0, 2: 4.0}, pauses=pauses)
    alone = Injection.of_one_process(settings, 7)
    first = Injection(settings, 0, 6, 7)
    for _ in range(3):
        alone_s, first_s = (i._times.finish(0, 0.0) for i in (alone, first))
        assert alone_s == first_s > 0
    assert not Injection.of_one_process(InjectSettings(), 7)._drawn

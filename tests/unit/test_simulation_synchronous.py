"""Synchronous steps in virtual time: the slowest worker's time, and Horovod's gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from toy import World

from mpi_dcasgd.drivers.signals import StopFlag
from mpi_dcasgd.drivers.simulation.cluster import Cluster, Crashes, Network, WorkerClock
from mpi_dcasgd.drivers.simulation.delays import Exponential, Gamma
from mpi_dcasgd.drivers.simulation.step_clock import StepClock
from mpi_dcasgd.drivers.simulation.synchronous import SynchronousSimulator
from mpi_dcasgd.drivers.simulation.timing import simulate_synchronous_timing
from mpi_dcasgd.learning.tickets import TicketPlan
from mpi_dcasgd.server.records import UpdateRecord


def group(
    workers: int,
    backup: int = 0,
    cluster: Cluster | None = None,
    stop: Any = None,
    accumulate: int = 1,
    **model: Any,
) -> tuple[World, SynchronousSimulator, list[UpdateRecord]]:
    parts = workers * accumulate
    plan = TicketPlan(num_samples=50, batch_size=4 * parts, seed=3, epochs=2)
    world = World(1, plan=plan, learner_plan=plan.split(parts), **model)
    made = SynchronousSimulator(
        world.server,
        world.learner_of_its_own,
        cluster or Cluster(),
        workers,
        backup,
        1,
        stop,
        accumulate,
    )
    records: list[UpdateRecord] = []
    made.told = records.append
    return world, made, records


def test_a_step_takes_as_long_as_its_slowest_worker() -> None:
    cluster = Cluster(delays=Gamma(task_cv=0.5), slow={2: 2.0})
    clock, alone = StepClock(cluster, 5, 5, 0, seed=4), WorkerClock(cluster, 5, 4)
    now = 0.0
    for _ in range(20):
        now = max(alone.finish(worker, now) for worker in range(5))
        assert clock.step() == [0, 1, 2, 3, 4]
        assert clock.now == now


def test_the_expected_step_of_exponential_workers_is_a_harmonic_number() -> None:
    workers = 16
    timing = simulate_synchronous_timing(Cluster(delays=Exponential()), workers, 4000)
    harmonic = sum(1 / k for k in range(1, workers + 1))
    assert timing.time_s / 4000 == pytest.approx(harmonic, rel=0.03)
    assert np.mean(timing.workers_busy) == pytest.approx(1 / harmonic, rel=0.03)


def test_the_reduction_is_part_of_a_step() -> None:
    network = Network(latency_s=0.5, bytes_per_s=100.0)
    timing = simulate_synchronous_timing(Cluster(network=network), 4, 10, message_bytes=200)
    assert timing.time_s == pytest.approx(10 * (1.0 + 2 * 2 * 0.5 + 1.5 * 2.0))


def test_a_backup_worker_saves_the_step_from_the_slow_one() -> None:
    cluster = Cluster(slow={0: 4.0})
    without = simulate_synchronous_timing(cluster, 4, 100)
    backed = simulate_synchronous_timing(cluster, 4, 100, backup=1)
    assert without.time_s == 400.0
    assert without.dropped == 0
    # Worker 4 stands in for worker 0, whose gradient comes, too late, every four steps.
    assert backed.time_s == 100.0
    assert backed.dropped == 25


def test_a_crash_holds_the_group_up_for_the_repair() -> None:
    crashes = Crashes(every_s=50.0, repair_s=10.0, workers=(1,))
    timing = simulate_synchronous_timing(Cluster(crashes=crashes), 3, 1000)
    assert timing.crashes > 10
    # Each costs the repair and the part of a step that was lost.
    assert 1000 + 10 * timing.crashes < timing.time_s < 1000 + 11 * timing.crashes


def test_a_step_of_several_minibatches_takes_their_time_one_after_the_other() -> None:
    cluster = Cluster(delays=Exponential())
    timing = simulate_synchronous_timing(cluster, 1, 2000, accumulate=3)
    assert timing.time_s / 2000 == pytest.approx(3.0, rel=0.03)
    assert timing.workers_busy == [pytest.approx(1.0)]
    crashes = Crashes(every_s=50.0, repair_s=10.0)
    crashing = simulate_synchronous_timing(Cluster(crashes=crashes), 1, 1000, accumulate=3)
    assert crashing.crashes > 10
    # Each costs the repair and what of the step's three minibatches was computed.
    lost_s = crashing.time_s - 3000 - 10 * crashing.crashes
    assert 0.5 * crashing.crashes < lost_s < 3 * crashing.crashes


@pytest.mark.parametrize(("workers", "accumulate"), [(1, 1), (2, 1), (4, 1), (2, 2), (3, 3)])
def test_synchronous_workers_equal_one_with_a_batch_so_many_times_as_large(
    workers: int, accumulate: int
) -> None:
    world, made, records = group(workers, cluster=Cluster(delays=Gamma()), accumulate=accumulate)
    made.run()
    large = World(1, plan=world.plan).run()
    torch.testing.assert_close(world.server.weights, large, rtol=1e-5, atol=1e-6)
    if workers == accumulate == 1:
        assert torch.equal(world.server.weights, large)
    assert world.server.complete
    assert [record.staleness for record in records] == [0] * world.plan.num_tickets
    assert sum(account.samples for account in made.accounts()) == 100


def test_delays_change_the_time_of_synchronous_runs_and_nothing_else() -> None:
    weights = []
    for cluster in (Cluster(), Cluster(delays=Gamma(), slow={1: 9.0})):
        world, made, _ = group(3, cluster=cluster, batchnorm=True, dropout=0.2)
        made.run()
        weights.append(world.server.weights)
    assert torch.equal(*weights)


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 9), (2, 5)])
def test_with_backup_workers_every_sample_is_still_used_once_an_epoch(
    accumulate: int, steps: int
) -> None:
    cluster = Cluster(delays=Exponential())
    world, made, records = group(3, backup=2, cluster=cluster, accumulate=accumulate)
    used: list[int] = []
    load = made._learner.load
    made._learner.load = lambda ticket: used.append(ticket) or load(ticket)  # type: ignore
    made.run()
    assert world.server.complete
    assert world.server.samples == 100
    assert sorted(used) == list(range(26)), "13 small tickets an epoch"
    assert len(records) == steps, "three workers' a step, and the rest"
    assert world.server.tally.dropped > 0


def test_a_run_ends_before_the_step_that_its_last_second_cuts() -> None:
    cluster = Cluster(slow={1: 2.0}, until_s=5.0)
    assert simulate_synchronous_timing(cluster, 3, 100).updates == 2
    _, made, records = group(3, cluster=cluster)
    made.run()
    assert made.done
    assert len(records) == 2


def test_a_stop_ends_the_run_after_the_step() -> None:
    stop = StopFlag()
    world, made, records = group(2, stop=stop)
    made.run(3)
    stop.set()
    made.run()
    assert len(records) == 4
    assert not world.server.complete


def test_the_clock_goes_on_from_its_state() -> None:
    cluster = Cluster(delays=Gamma(), crashes=Crashes(every_s=9.0, repair_s=1.0))
    whole, half = (StepClock(cluster, 5, 3, 0, seed=2) for _ in range(2))
    for _ in range(30):
        whole.step()
    for _ in range(13):
        half.step()
    resumed = StepClock(cluster, 5, 3, 0, seed=2)
    resumed.load_state_dict(half.state_dict())
    for _ in range(17):
        resumed.step()
    assert resumed.state_dict() == whole.state_dict()


@pytest.mark.parametrize("backup", [0, 2])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(backup: int) -> None:
    cluster = Cluster(delays=Exponential())
    world, made, records = group(3, backup, cluster)
    made.run()
    _, half, first = group(3, backup, cluster)
    half.run(4)
    other, resumed, rest = group(3, backup, cluster)
    resumed.load_state_dict(half.state_dict())
    resumed.run()
    assert torch.equal(other.server.weights, world.server.weights)
    assert first + rest == records
    assert resumed.accounts() == made.accounts()

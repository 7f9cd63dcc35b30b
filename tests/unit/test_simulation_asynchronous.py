"""The simulator against closed forms, against the other drivers, and against itself."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from toy import CPU, World, toy_model, toy_subject

from mpi_dcasgd.drivers.conductor import Conductor
from mpi_dcasgd.drivers.evaluator import Evaluator
from mpi_dcasgd.drivers.observer import Evaluation, NullObserver
from mpi_dcasgd.drivers.sequential import run_sequential
from mpi_dcasgd.drivers.signals import StopFlag
from mpi_dcasgd.drivers.simulation.asynchronous import Simulator
from mpi_dcasgd.drivers.simulation.cluster import Cluster, Crashes, Network, Pauses, ServerTimes
from mpi_dcasgd.drivers.simulation.delays import Constant, Exponential, Gamma
from mpi_dcasgd.drivers.simulation.engine import Engine
from mpi_dcasgd.drivers.simulation.timing import CountingSite, simulate_timing
from mpi_dcasgd.errors import DcasgdError
from mpi_dcasgd.learning.flat import FlatModel
from mpi_dcasgd.learning.tickets import TicketPlan
from mpi_dcasgd.rules.admission import Admission, Collect, StaleSynchronous, Threshold
from mpi_dcasgd.server.records import Action, UpdateRecord

HETEROGENEOUS = Gamma(machine_cv=0.6)


class Told(NullObserver):
    """Remembers updates with their times, and evaluations."""

    def __init__(self) -> None:
        self.updates: list[tuple[UpdateRecord, float]] = []
        self.evaluations: list[Evaluation] = []

    def update(self, record: UpdateRecord, time_s: float) -> None:
        self.updates.append((record, time_s))

    def evaluation(self, evaluation: Evaluation) -> None:
        self.evaluations.append(evaluation)


def simulator(world: World, cluster: Cluster, seed: int = 0, stop: StopFlag | None = None) -> Any:
    made = Simulator(world.server, world.learner_of_its_own, cluster, seed, stop)
    records: list[UpdateRecord] = []
    times: list[float] = []

    def told(record: UpdateRecord) -> None:
        records.append(record)
        times.append(made.time_s)

    made.told = told
    return made, records, times


# ---- timing only: closed forms ----


@pytest.mark.parametrize("workers", [1, 2, 5, 100])
def test_equal_workers_settle_at_staleness_one_less_than_their_number(workers: int) -> None:
    timing = simulate_timing(Cluster(), workers, 10 * workers)
    expected = dict.fromkeys(range(workers - 1), 1)
    expected[workers - 1] = 10 * workers - (workers - 1)
    assert timing.staleness == expected
    assert timing.time_s == 10.0


@pytest.mark.parametrize("delays", [Gamma(), HETEROGENEOUS, Exponential()], ids=lambda d: d.model)
def test_staleness_and_ages_sum_to_the_number_in_flight_times_updates(delays: Any) -> None:
    site = CountingSite(7, 1000)
    cluster = Cluster(delays=delays, server=ServerTimes(service_s=0.05), slow={2: 4.0})
    Engine(cluster, 7, 0, 1, site).run()
    assert site.version == 1000
    pushed = sum(s * n for s, n in site.staleness.items())
    ages = [site.version - pulled for pulled in site._pulled]
    assert pushed + sum(ages) == 6 * 1000


def test_throughput_of_an_idle_server_is_the_workers_own() -> None:
    network = Network(latency_s=0.25)
    timing = simulate_timing(Cluster(delays=Gamma(task_cv=0.5), network=network), 20, 20_000)
    assert timing.updates_per_s == pytest.approx(20 / 1.5, rel=0.05)
    assert np.mean(timing.workers_busy) == pytest.approx(1 / 1.5, rel=0.02)
    assert timing.server_busy == 0.0


def test_throughput_of_a_saturated_server_is_one_over_its_service_time() -> None:
    server = ServerTimes(service_s=0.1, bytes_per_s=1000.0)
    timing = simulate_timing(Cluster(delays=Gamma(), server=server), 100, 5000, message_bytes=100)
    assert timing.updates_per_s == pytest.approx(1 / 0.2, rel=0.01)
    assert timing.server_busy == pytest.approx(1.0, abs=0.01)
    # Each worker waits for all the others' service: a cycle is W times the service time.
    assert np.mean(timing.workers_busy) == pytest.approx(1 / (100 * 0.2), rel=0.05)


def test_a_closed_queue_of_exponential_steps_has_the_known_utilisation() -> None:
    # Machine repair model M/D/1//N has no simple form; with one worker it does: a renewal cycle.
    cluster = Cluster(delays=Exponential(), server=ServerTimes(service_s=0.5))
    timing = simulate_timing(cluster, 1, 20_000)
    assert timing.server_busy == pytest.approx(0.5 / 1.5, rel=0.03)
    assert timing.staleness == {0: 20_000}


def test_workers_without_memory_see_a_geometric_staleness() -> None:
    # Whoever comes next is any of W with the same chance: P(staleness = s) = (1 - 1/W)^s / W.
    workers = 8
    timing = simulate_timing(Cluster(delays=Exponential()), workers, 100_000, seed=2)
    miss = 1 - 1 / workers
    for share in (0.25, 0.5, 0.9, 0.99):
        exact = math.log(1 - share) / math.log(miss)
        assert abs(timing.staleness_quantile(share) - exact) <= 1.5
    assert timing.staleness_mean == pytest.approx(workers - 1, rel=0.01)


@pytest.mark.parametrize(
    ("delays", "workers", "most"), [(Gamma(), 8, 20), (HETEROGENEOUS, 32, 400)]
)
def test_the_gamma_model_has_the_mean_and_about_the_largest_delay_of_the_papers(
    delays: Gamma, workers: int, most: int
) -> None:
    timing = simulate_timing(Cluster(delays=delays), workers, 20_000, seed=1)
    assert timing.staleness_mean == pytest.approx(workers - 1, abs=0.1)
    assert workers < max(timing.staleness) < most


def test_a_slow_worker_is_stale_and_the_others_do_not_wait_for_it() -> None:
    # Workers 0 to 2 make 4 updates each in the time in which worker 3 makes one.
    timing = simulate_timing(Cluster(slow={3: 4.0}), 4, 1300)
    assert timing.time_s == pytest.approx(400.0, abs=4)
    assert timing.staleness[12] == pytest.approx(100, abs=1)


def test_pauses_and_crashes_cost_their_share_of_time() -> None:
    pauses = Cluster(pauses=Pauses(every_s=9.0, for_s=1.0))
    timing = simulate_timing(pauses, 10, 20_000)
    assert timing.updates_per_s == pytest.approx(10 * 0.9, rel=0.03)
    # A step of a worker that crashes in it is lost: on average exp(1/m) - 1 m seconds a step.
    mean = 20.0
    crashes = Cluster(crashes=Crashes(every_s=mean, repair_s=5.0))
    timing = simulate_timing(crashes, 10, 20_000)
    step = (math.exp(1 / mean) - 1) * (mean + 5.0)
    assert timing.updates_per_s == pytest.approx(10 / step, rel=0.03)
    assert timing.crashes == pytest.approx(20_000 * (math.exp(1 / mean) - 1), rel=0.06)


def test_ties_go_by_rank_and_a_seed_repeats_itself() -> None:
    order: list[int] = []

    class Listing(CountingSite):
        def push(self, worker: int) -> Any:
            order.append(worker)
            return super().push(worker)

    Engine(Cluster(), 5, 0, 0, Listing(5, 20)).run()
    assert order == [0, 1, 2, 3, 4] * 4
    one, two, three = (simulate_timing(Cluster(delays=Gamma()), 9, 500, seed=s) for s in (1, 1, 2))
    assert one == two
    assert one != three


ADMISSIONS: list[Admission] = [
    Threshold(threshold=4),
    Collect(gradients=3),
    StaleSynchronous(bound=0),
    StaleSynchronous(bound=2),
]


def test_a_run_ends_at_its_last_second() -> None:
    cluster = Cluster(until_s=3.5)
    timing = simulate_timing(cluster, 4, 100)
    assert (timing.updates, timing.time_s) == (12, 3.0)
    assert simulate_timing(cluster, 4, 10).updates == 10
    assert simulate_timing(Cluster(until_s=4.0), 4, 100).updates == 16  # with what happens then
    world = World(4, plan=TicketPlan(50, 1, 0, 4))
    full, records, times = simulator(world, cluster)
    full.run()
    assert full.done
    assert not world.server.complete
    assert (len(records), times[-1]) == (12, 3.0)


@pytest.mark.parametrize("admission", ADMISSIONS[:2], ids=lambda a: type(a).__name__)
def test_gradients_that_are_dropped_are_not_computed_and_nothing_else_differs(
    admission: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*, lazily: bool) -> tuple[World, list[UpdateRecord], int]:
        world = World(5, plan=TicketPlan(50, 2, 0, 8), batchnorm=True)
        object.__setattr__(world.server.rule, "admission", admission)
        if not lazily:
            monkeypatch.setattr(world.server, "drops", lambda worker: False)
        made, records, _ = simulator(world, Cluster(delays=HETEROGENEOUS), seed=3)
        computed = []
        gradient = made._learner.gradient
        monkeypatch.setattr(
            made._learner, "gradient", lambda batch: computed.append(batch) or gradient(batch)
        )
        made.run(150)
        return world, records, len(computed)

    (one, told, computed), (other, told_by_other, all_of_them) = run(lazily=True), run(lazily=False)
    dropped = one.server.tally.dropped
    assert dropped > 10
    assert (computed, all_of_them) == (150 - dropped, 150)
    assert torch.equal(one.server.weights, other.server.weights)
    for mine, its in zip(told, told_by_other, strict=True):
        late = mine.action is Action.DROPPED
        assert math.isnan(mine.loss) == late
        nothing = {"loss": 0.0, "grad_norm": 0.0} if late else {}
        assert mine._replace(**nothing) == its._replace(**nothing)


@pytest.mark.parametrize("admission", ADMISSIONS, ids=lambda a: type(a).__name__)
def test_counting_says_what_the_real_server_says(admission: Admission) -> None:
    cluster = Cluster(delays=Gamma(task_cv=0.4), slow={1: 3.0}, server=ServerTimes(service_s=0.03))
    world = World(5, plan=TicketPlan(50, 1, 0, 4))
    object.__setattr__(world.server.rule, "admission", admission)
    full, records, times = simulator(world, cluster, seed=3)
    full.run(150)
    site = CountingSite(5, 10_000, admission)
    engine = Engine(cluster, 5, full_message(world), 3, site)
    engine.run(150)
    assert engine.now == times[-1]
    assert site.version == world.server.version
    assert site.dropped == world.server.tally.dropped
    assert site.staleness == world.server.tally.staleness
    assert len(records) == 150


def full_message(world: World) -> int:
    return 128 + 4 * world.server.layout.size


# ---- real gradients ----


@pytest.mark.parametrize("algorithm", ["asgd", "dcasgd-a"])
def test_one_worker_without_delays_is_the_sequential_run_bit_for_bit(algorithm: str) -> None:
    sequential = World(1, algorithm, batchnorm=True, dropout=0.2)
    conductor = Conductor(
        sequential.server,
        NullObserver(),
        Evaluator(FlatModel(toy_model(batchnorm=True), CPU), toy_subject(), background=False),
    )
    run_sequential(sequential.server, sequential.learners[0], conductor, StopFlag())
    world = World(1, algorithm, batchnorm=True, dropout=0.2)
    made, records, times = simulator(world, Cluster(delays=Constant(mean_s=0.0)))
    made.run()
    assert torch.equal(world.server.weights, sequential.server.weights)
    assert [r.staleness for r in records] == [0] * world.plan.num_tickets
    assert set(times) == {0.0}


@pytest.mark.parametrize("ahead", [0, 2])
def test_equal_workers_take_turns_as_by_hand(ahead: int) -> None:
    by_hand = World(4, "dcasgd-c", ahead=ahead)
    expected = by_hand.run()
    world = World(4, "dcasgd-c", ahead=ahead)
    made, records, _ = simulator(world, Cluster())
    made.run()
    assert torch.equal(world.server.weights, expected)
    assert records == [answer.record for answer in by_hand.answers]
    assert made.done


BUSY = Cluster(
    delays=Gamma(task_cv=0.3, machine_cv=0.6),
    slow={1: 4.0},
    pauses=Pauses(every_s=5.0, for_s=1.0, workers=(0,)),
    crashes=Crashes(every_s=12.0, repair_s=2.0),
    network=Network(latency_s=0.01, bytes_per_s=1e5),
    server=ServerTimes(service_s=0.1),
)


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    runs = []
    for seed in (5, 5, 6):
        world = World(4, "dcasgd-a")
        made, records, times = simulator(world, BUSY, seed)
        made.run()
        runs.append((world.server.weights, records, times))
    assert torch.equal(runs[0][0], runs[1][0])
    assert runs[0][1:] == runs[1][1:]
    assert runs[0][2] != runs[2][2]
    assert times == sorted(times)


def test_crashes_lose_no_ticket_and_use_none_twice() -> None:
    world = World(4, plan=TicketPlan(50, 2, 0, 3), ahead=1)
    made, records, _ = simulator(world, BUSY)
    made.run()
    tickets = [r.ticket for r in records if r.action is Action.APPLIED]
    assert sorted(tickets) == list(range(75))
    assert world.server.complete
    assert sum(t.updates for t in made.accounts()) == 75


def test_a_lone_worker_that_crashes_comes_back_and_finishes() -> None:
    world = World(1)
    cluster = Cluster(crashes=Crashes(every_s=4.0, repair_s=3.0))
    made, _, _ = simulator(world, cluster)
    made.run()
    assert world.server.samples == 150
    assert made.time_s > 21.0


def test_workers_accounts_add_up_to_the_time() -> None:
    world = World(3, plan=TicketPlan(50, 1, 0, 2))
    cluster = Cluster(delays=Gamma(), server=ServerTimes(service_s=0.5))
    made, _, _ = simulator(world, cluster)
    made.run()
    for account in made.accounts():
        spent = account.compute_s + account.wait_s
        # What is missing is the wait for the last reply.
        assert made.time_s - 3 * 0.5 - 1.5 <= spent <= made.time_s + 1e-9
    assert sum(t.samples for t in made.accounts()) == 100
    assert made.server_busy == pytest.approx(100 * 0.5 / made.time_s)


def test_a_stop_ends_the_run_after_what_the_workers_are_at() -> None:
    world, stop = World(3), StopFlag()
    made, records, _ = simulator(world, Cluster(), stop=stop)
    made.run(4)
    stop.set()
    made.run()
    assert made.done
    assert not world.server.complete
    # The push that notices has its answer already; then each of the three delivers once more.
    assert len(records) == 4 + 1 + 3


def test_evaluation_follows_virtual_time() -> None:
    world, told = World(2), Told()
    made = Simulator(world.server, world.learner_of_its_own, Cluster(), 0)
    evaluator = Evaluator(FlatModel(toy_model(), CPU), toy_subject(), background=False)
    conductor = Conductor(world.server, told, evaluator, clock=lambda: made.time_s)
    made.told = conductor.after
    conductor.begin(0.0)
    made.run()
    conductor.finish(made.accounts())
    assert [e.epoch for e in told.evaluations] == [1, 2, 3]
    by_version = {r.version + 1: t for r, t in told.updates}
    assert [e.time_s for e in told.evaluations] == [by_version[e.version] for e in told.evaluations]
    assert told.updates[-1][1] == 11.0  # 21 tickets, two a second


def test_a_site_that_never_ends_is_noticed() -> None:
    class Deaf(CountingSite):
        def push(self, worker: int) -> Any:
            return ()

    with pytest.raises(DcasgdError, match="stands still"):
        Engine(Cluster(), 2, 0, 0, Deaf(2, 5)).run()


def test_the_engine_goes_on_from_its_state_bit_for_bit() -> None:
    def engine() -> tuple[CountingSite, Engine]:
        site = CountingSite(5, 400)
        return site, Engine(BUSY, 5, 1000, 9, site)

    site, whole = engine()
    whole.run()
    for cut in (1, 77, 300):
        half_site, half = engine()
        half.run(cut)
        resumed_site, resumed = engine()
        resumed.load_state_dict(half.state_dict())
        vars(resumed_site).update(vars(half_site))
        resumed.run()
        assert resumed.now == whole.now
        assert resumed_site.staleness == site.staleness
        assert resumed.accounts == whole.accounts
        assert (resumed.server_busy_s, resumed.crashes) == (whole.server_busy_s, whole.crashes)


def conducted(cluster: Cluster) -> tuple[World, Simulator, Conductor, Told]:
    world, told = World(4, "dcasgd-a", ahead=1, batchnorm=True, dropout=0.2), Told()
    made = Simulator(world.server, world.learner_of_its_own, cluster, 5)
    scored = FlatModel(toy_model(batchnorm=True, dropout=0.2), CPU)
    evaluator = Evaluator(scored, toy_subject(), background=False)
    conductor = Conductor(world.server, told, evaluator, clock=lambda: made.time_s)
    made.told = conductor.after
    conductor.begin(0.0)
    return world, made, conductor, told


@pytest.mark.parametrize("cut", [1, 9, 17])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(cut: int) -> None:
    world, made, conductor, told = conducted(BUSY)
    made.run()
    conductor.finish(made.accounts())
    _, half, half_conductor, half_told = conducted(BUSY)
    half.run(cut)
    file = io.BytesIO()
    torch.save({"run": half.state_dict(), "conductor": half_conductor.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other, resumed, resumed_conductor, rest = conducted(BUSY)
    resumed.load_state_dict(saved["run"])
    resumed_conductor.load_state_dict(saved["conductor"])
    resumed.run()
    resumed_conductor.finish(resumed.accounts())
    assert torch.equal(other.server.weights, world.server.weights)
    assert half_told.updates + rest.updates == told.updates
    assert resumed.accounts() == made.accounts()
    both = half_told.evaluations + rest.evaluations
    assert [replace(e, eval_s=0.0) for e in both] == [
        replace(e, eval_s=0.0) for e in told.evaluations
    ]

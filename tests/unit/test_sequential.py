"""The sequential driver with its conductor and evaluator, and the synchronous one beside it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from toy import CPU, World, toy_model, toy_subject

from mpi_dcasgd.drivers.account import Account
from mpi_dcasgd.drivers.conductor import Conductor, weights_sha256
from mpi_dcasgd.drivers.evaluation_watch import EvaluationWatch
from mpi_dcasgd.drivers.evaluator import MAX_PENDING, Evaluator, WeightsCopy
from mpi_dcasgd.drivers.fault_settings import FaultSettings
from mpi_dcasgd.drivers.observer import Evaluation, NullObserver
from mpi_dcasgd.drivers.sequential import run_sequential
from mpi_dcasgd.drivers.signals import StopFlag
from mpi_dcasgd.drivers.synchronous import run_synchronous
from mpi_dcasgd.errors import RanksLostError
from mpi_dcasgd.learning.evaluation import evaluate
from mpi_dcasgd.learning.flat import FlatModel
from mpi_dcasgd.learning.tickets import TicketPlan
from mpi_dcasgd.server.push import Push
from mpi_dcasgd.server.records import UpdateRecord
from mpi_dcasgd.server.refusals import MAX_ATTEMPTS


class Notebook(NullObserver):
    """Remembers all that it is told, in order."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def started(self, startup_s: float) -> None:
        self.told.append("started")

    def update(self, record: UpdateRecord, time_s: float) -> None:
        self.told.append(record)

    def evaluation(self, evaluation: Evaluation) -> None:
        self.told.append(evaluation)

    def worker(self, account: Account) -> None:
        self.told.append(account)

    def ended(self, status: Any, time_s: float, **facts: Any) -> None:
        self.told.append((status, facts))

    def of(self, kind: type) -> list[Any]:
        return [item for item in self.told if isinstance(item, kind)]


def conduct(world: World, notebook: Notebook, every: int = 1) -> Conductor:
    evaluator = Evaluator(FlatModel(toy_model(), CPU), toy_subject())
    conductor = Conductor(world.server, notebook, evaluator, every)
    conductor.begin(0.0)
    return conductor


def test_sequential_run_equals_the_server_moved_by_hand() -> None:
    by_hand = World(1).run()
    world, notebook = World(1), Notebook()
    conductor = conduct(world, notebook)
    run_sequential(world.server, world.learners[0], conductor, StopFlag())
    conductor.finish([])
    assert torch.equal(world.server.weights, by_hand)
    assert [r.staleness for r in notebook.of(UpdateRecord)] == [0] * world.plan.num_tickets
    assert notebook.told[-1][0] == "completed"
    assert notebook.told[-1][1]["weights_sha256"] == weights_sha256(by_hand, world.server.layout)


@pytest.mark.parametrize(("every", "epochs"), [(1, [1, 2, 3]), (2, [2, 3])])
def test_evaluation_follows_samples_and_scores_a_copy(every: int, epochs: list[int]) -> None:
    world, notebook = World(1), Notebook()
    conductor = conduct(world, notebook, every)
    run_sequential(world.server, world.learners[0], conductor, StopFlag())
    conductor.finish([])
    evaluations = notebook.of(Evaluation)
    assert [e.epoch for e in evaluations] == epochs
    assert [e.samples for e in evaluations] == [50 * epoch for epoch in epochs]
    final = FlatModel(toy_model(), CPU)
    final.weights.copy_(world.server.weights)
    subject = toy_subject()
    assert evaluations[-1].test == evaluate(final.model, subject.task, subject.test, CPU)
    losses = [r for r in notebook.of(UpdateRecord) if r.ticket >= 14]
    if every == 1:
        mean = sum(r.loss * r.samples for r in losses) / sum(r.samples for r in losses)
        assert evaluations[-1].train_loss == pytest.approx(mean)


def test_a_stop_ends_training_after_the_update_and_still_evaluates() -> None:
    world, notebook, stop = World(1), Notebook(), StopFlag()
    conductor = conduct(world, notebook)
    conductor.after = _stop_at(conductor, stop, 5)  # type: ignore[method-assign]
    run_sequential(world.server, world.learners[0], conductor, stop)
    conductor.finish([], reason="stopped by hand")
    assert world.server.version == 5
    assert notebook.of(Evaluation)[-1].version == 5
    assert notebook.told[-1][0] == "interrupted"


def _stop_at(conductor: Conductor, stop: StopFlag, version: int) -> Any:
    after = conductor.after

    def wrapped(record: UpdateRecord) -> None:
        after(record)
        if record.version + 1 == version:
            stop.set()

    return wrapped


def test_what_evaluation_raises_reaches_the_training_thread() -> None:
    class Broken:
        task = None
        test = property(lambda self: 1 / 0)

    evaluator = Evaluator(FlatModel(toy_model(), CPU), Broken())  # type: ignore[arg-type]
    weights = FlatModel(toy_model(), CPU).weights
    evaluator.submit(WeightsCopy(weights, 1, 8, 0, 0.0, 0.0, 0.1))
    with pytest.raises(ZeroDivisionError):
        evaluator.finish()


def test_while_evaluations_are_waited_for_others_get_a_word_in() -> None:
    released = threading.Event()

    class Waiting:
        task = None

        @property
        def test(self) -> Any:
            assert released.wait(60), "nobody was let do anything meanwhile"
            raise ZeroDivisionError

    evaluator = Evaluator(FlatModel(toy_model(), CPU), Waiting())  # type: ignore[arg-type]
    copy = WeightsCopy(FlatModel(toy_model(), CPU).weights, 1, 8, 0, 0.0, 0.0, 0.1)
    for _ in range(MAX_PENDING + 1):
        evaluator.submit(copy)
    evaluator.submit(copy, released.set)  # there is no room for it before
    with pytest.raises(ZeroDivisionError):
        evaluator.finish()


def test_an_evaluation_that_hangs_is_not_waited_for_and_the_state_is_saved_first() -> None:
    released, saved = threading.Event(), []

    class Waiting:
        task = None

        @property
        def test(self) -> Any:
            released.wait(60)
            raise ZeroDivisionError

    evaluator = Evaluator(FlatModel(toy_model(), CPU), Waiting())  # type: ignore[arg-type]
    copy = WeightsCopy(FlatModel(toy_model(), CPU).weights, 1, 8, 0, 0.0, 0.0, 0.1)
    watch = EvaluationWatch(
        FaultSettings(patience=0.05), "rank 0 on node1", lambda: saved.append(True)
    )
    for _ in range(MAX_PENDING + 1):
        evaluator.submit(copy)
    with pytest.raises(RanksLostError, match="evaluation on rank 0 on node1 hangs: none of its"):
        evaluator.submit(copy, watch.look)
    assert saved == [True]
    released.set()
    evaluator.close()


def test_an_evaluation_whose_batches_end_is_waited_for() -> None:
    now = 0.0
    watch = EvaluationWatch(FaultSettings(patience=1.0), "a", lambda: None, lambda: now)
    for _ in range(300):
        now += 0.1
        watch.look()
        if round(now * 10) % 90 == 0:
            watch.alive()
    now += 1000.0  # nobody waited for it meanwhile
    watch.look()
    for _ in range(55):
        now += 0.1
        watch.look()
    now += 1.0
    with pytest.raises(RanksLostError, match=r"for 10\.\d s"):
        watch.look()


@pytest.mark.parametrize("ahead", [0, 3])
def test_prefetching_changes_nothing_but_the_time(ahead: int) -> None:
    world = World(1, ahead=ahead, dropout=0.3)
    conductor = conduct(world, Notebook())
    run_sequential(world.server, world.learners[0], conductor, StopFlag())
    conductor.finish([])
    assert torch.equal(world.server.weights, World(1, dropout=0.3).run())


class ThreadedAllreduce:
    """Stands in for an allreduce with threads as ranks: only the arithmetic of a sum."""

    name = "threads"
    in_background = True

    def __init__(self, rank: int, meeting: ThreadMeeting) -> None:
        self.rank = rank
        self.size = meeting.size
        self._meeting = meeting

    def start(self, tensor: torch.Tensor, name: str) -> Callable[[], None]:
        share = tensor.clone()  # what is done to it from here on would be lost

        def wait() -> None:
            tensor.copy_(self._meeting.sum(self.rank, share, name))

        return wait

    def close(self) -> None:
        pass


class ThreadMeeting:
    def __init__(self, size: int) -> None:
        self.size = size
        self._barrier = threading.Barrier(size, timeout=60)
        self._shares: dict[str, list[Any]] = {}

    def sum(self, rank: int, tensor: torch.Tensor, name: str) -> torch.Tensor:
        self._shares.setdefault(name, [None] * self.size)[rank] = tensor.clone()
        self._barrier.wait()
        total = torch.stack(self._shares[name]).sum(0)
        self._barrier.wait()
        return total


def synchronous(
    workers: int, batch: int, accumulate: int = 1, **options: Any
) -> tuple[list[World], torch.Tensor]:
    """The replicas of a synchronous run, and the weights of one worker with the whole batch."""
    parts = workers * accumulate
    plan = TicketPlan(num_samples=50, batch_size=batch * parts, seed=3, epochs=2)
    assert 50 % plan.batch_size, "the last ticket is uneven: some ranks get less, or nothing"
    meeting = ThreadMeeting(workers)
    model = {"batchnorm": options.pop("batchnorm", False)}
    worlds = [World(1, plan=plan, learner_plan=plan.split(parts), **model) for _ in range(workers)]

    def rank(number: int) -> None:
        world = worlds[number]
        run_synchronous(
            ThreadedAllreduce(number, meeting),
            world.server,
            world.learners[0],
            None,
            StopFlag(),
            accumulate=accumulate,
            **options,
        )

    threads = [threading.Thread(target=rank, args=(n,)) for n in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(world.server.complete for world in worlds)
    for world in worlds:
        assert torch.equal(world.server.weights, worlds[0].server.weights)
    return worlds, World(1, plan=plan, **model).run()


@pytest.mark.parametrize("bucket_bytes", [None, 1, 200])
@pytest.mark.parametrize(("workers", "accumulate"), [(2, 1), (3, 1), (4, 1), (1, 3), (2, 2)])
def test_synchronous_workers_equal_one_worker_with_a_batch_so_many_times_as_large(
    workers: int, accumulate: int, bucket_bytes: int | None
) -> None:
    worlds, large = synchronous(workers, 4, accumulate, bucket_bytes=bucket_bytes)
    torch.testing.assert_close(worlds[0].server.weights, large, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{"batchnorm": True}, {"compression": "bf16"}])
def test_a_gradient_that_is_sent_in_parts_is_the_one_that_is_sent_whole(
    options: dict[str, Any],
) -> None:
    whole, _ = synchronous(3, 4, 2, **options)
    parts, _ = synchronous(3, 4, 2, bucket_bytes=1, **options)
    assert torch.equal(parts[0].server.weights, whole[0].server.weights)


def test_the_last_layers_gradient_is_sent_before_the_first_layers_is_known() -> None:
    world = World(1, plan=TicketPlan(num_samples=8, batch_size=8, seed=3, epochs=1))
    told: list[str] = []

    class Listening(ThreadedAllreduce):
        def start(self, tensor: torch.Tensor, name: str) -> Callable[[], None]:
            told.append(name)
            return super().start(tensor, name)

    # The first layer's weights are the last whose gradient the backward pass comes to.
    first = next(world.learners[0].flat.model.parameters())
    first.register_hook(lambda gradient: told.append("first layer"))
    reducer = Listening(0, ThreadMeeting(1))
    run_synchronous(reducer, world.server, world.learners[0], None, StopFlag(), bucket_bytes=1)
    names = [f"gradient.{n}" for n in range(4)]
    assert [name for name in told if name != "first layer"] == [*names, "side"]
    assert told.index("gradient.1") < told.index("first layer")


@pytest.mark.parametrize(("compression", "rounding"), [("fp16", 2e-3), ("bf16", 2e-2)])
def test_compression_rounds_gradients_but_not_statistics(compression: Any, rounding: float) -> None:
    exact, _ = synchronous(2, 4, batchnorm=True)
    rounded, _ = synchronous(2, 4, batchnorm=True, compression=compression)
    ours, theirs = rounded[0].server.weights, exact[0].server.weights
    assert not torch.equal(ours, theirs)
    torch.testing.assert_close(ours, theirs, rtol=rounding, atol=rounding)


def test_compression_leaves_the_first_statistics_exactly_as_they_are() -> None:
    # Before the first update is applied the weights, and so the statistics, are the same.
    plan = TicketPlan(num_samples=8, batch_size=8, seed=3, epochs=1)
    results = []
    for compression in ("none", "bf16"):
        world = World(1, plan=plan, batchnorm=True)
        reducer = ThreadedAllreduce(0, ThreadMeeting(1))
        run_synchronous(
            reducer,
            world.server,
            world.learners[0],
            None,
            StopFlag(),
            compression=compression,  # type: ignore[arg-type]
        )
        results.append(world.server.weights[world.server.layout.num_params :])
    assert torch.equal(*results)


IN_FIVES = TicketPlan(num_samples=50, batch_size=10, seed=3, epochs=3)


def take(world: World, worker: int, *, finite: bool = True) -> Push:
    """A push of zeros, or of what is not finite, for the worker's oldest ticket."""
    ticket, version = world.queues[worker].pop(0), world.server.slots[worker].version
    loss = 1.0 if finite else math.nan
    return Push(version, ticket, 10, loss, loss, torch.zeros_like(world.initial))


def test_an_epoch_that_ends_with_a_ticket_given_up_is_evaluated_all_the_same() -> None:
    world, notebook = World(1, plan=IN_FIVES), Notebook()
    conductor = conduct(world, notebook)
    world.join()
    for finite in (*4 * [True], *MAX_ATTEMPTS * [False], *5 * [True]):
        answer = world.server.push(0, take(world, 0, finite=finite))
        world.receive(answer.ready)
        conductor.after(answer.record)
    conductor.finish([])
    found = notebook.of(Evaluation)
    assert [(e.epoch, e.samples, e.train_loss) for e in found] == [(1, 50, 1.0), (2, 100, 1.0)]
    assert world.server.tally.given_up == 1


@pytest.mark.parametrize("algorithm", ["asgd", "stable-asgd", "rennala"])
def test_the_rate_that_is_told_is_the_schedules(algorithm: str) -> None:
    def falling(samples: int) -> float:
        return 0.1 if samples < 50 else 0.01

    world, notebook = World(4, algorithm, plan=IN_FIVES, schedule=falling), Notebook()
    conductor = conduct(world, notebook)
    world.join()
    while not world.server.finished:
        for worker in world.working():
            answer = world.server.push(worker, take(world, worker))
            world.receive(answer.ready)
            conductor.after(answer.record)
    conductor.finish([])
    assert [e.lr for e in notebook.of(Evaluation)] == [0.1, 0.01, 0.01]

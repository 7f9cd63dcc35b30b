"""What --dry-run says a job needs, held against the objects that a run makes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mpi_dcasgd.config.load import load_job
from mpi_dcasgd.config.needs import Need
from mpi_dcasgd.config.plan import plan_job
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.runs.build import Workshop
from mpi_dcasgd.runs.dry_run import amount, describe_needs
from mpi_dcasgd.server.wire import NarrowMessage

CPU = torch.device("cpu")


def job(tmp_path: Path, *overrides: str) -> Job:
    path = tmp_path / "job.yaml"
    path.write_text(
        "epochs: 3\nbatch_size: 16\nlr: 0.1\nmodel: {name: cnn, batchnorm: true}\n"
        "data: {name: digits}\nevaluate_every: 1\n"
    )
    return load_job(path, overrides)


def size(need: Need, *words: str) -> int:
    (found,) = [size for what, size in need.items if all(word in what for word in words)]
    return found


def test_an_asynchronous_server_needs_what_it_is_said_to(tmp_path: Path) -> None:
    workers = 3
    mine = job(tmp_path, "algorithm=dcasgd-a", "rule.compensation.mean_square=per_worker")
    plan = plan_job(mine, workers + 1)
    server, worker = plan.needs
    workshop = Workshop.open(mine, CPU)
    real = workshop.server(workers, CPU)
    flat = workshop.flat_model(CPU)

    assert plan.num_workers == workers
    assert plan.num_params == sum(p.numel() for p in flat.model.parameters())
    assert plan.num_stats == sum(
        b.numel() for name, b in flat.model.named_buffers() if "running" in name
    )
    assert plan.tickets_per_epoch == real.plan.tickets_per_epoch == 90
    assert plan.tickets == real.plan.num_tickets
    assert size(server, "the weights") == real.weights.nbytes
    state = [vector for vectors in real.chain.state_dict().values() for vector in vectors]
    assert len(state) == workers
    assert size(server, "the rule's state, 3 vectors") == sum(v.nbytes for v in state)
    assert size(server, "3 workers") == 2 * sum(slot.message.raw.nbytes for slot in real.slots)
    assert size(worker, "weights and gradient") == flat.weights.nbytes + flat.grad.nbytes
    assert server.total_bytes == sum(size for _, size in server.items)


def test_a_gpu_worker_stages_through_messages(tmp_path: Path) -> None:
    mine = job(tmp_path, "algorithm=asgd")
    without, with_gpu = (plan_job(mine, 2, gpu=gpu).needs[1] for gpu in (False, True))
    message = Workshop.open(mine, CPU).server(1, CPU).slots[0].message.raw.nbytes
    assert with_gpu.total_bytes - without.total_bytes == 2 * message


@pytest.mark.parametrize("wire", ["wire=bf16", "wire.push=fp16", "wire.reply=fp16"])
def test_numbers_of_16_bits_are_counted_beside_float32(tmp_path: Path, wire: str) -> None:
    mine = job(tmp_path, "algorithm=dcasgd-a", "transport=messages", wire)
    plan = plan_job(mine, 3)
    server, worker = plan.needs
    form = Workshop.open(mine, CPU).server(2, CPU).wire
    push, reply = form.push_message(), form.reply_message()
    assert (plan.push_bytes, plan.reply_bytes) == (push.raw.nbytes, reply.raw.nbytes)
    beside = reply.vector.nbytes if isinstance(reply, NarrowMessage) else 0
    assert size(server, "2 workers") == 2 * (push.raw.nbytes + reply.raw.nbytes + beside)
    read = [size for what, size in server.items if "as float32" in what]
    assert read == [push.vector.nbytes] * isinstance(push, NarrowMessage)
    assert size(worker, "messages to and from") == push.raw.nbytes + reply.raw.nbytes
    text = describe_needs(mine, 3)
    assert f" a push ({mine.wire.push}), " in text
    assert f" a reply ({mine.wire.reply})" in text


@pytest.mark.parametrize("gpu", [False, True])
def test_shared_memory_is_counted_once(tmp_path: Path, gpu: bool) -> None:
    plans = {
        choice: plan_job(job(tmp_path, "algorithm=asgd", f"transport={choice}"), 3, gpu=gpu)
        for choice in ("messages", "auto", "shared")
    }
    servers, workers = zip(*(plan.needs for plan in plans.values()), strict=True)
    assert len({server.total_bytes for server in servers}) == 1
    apart, either, shared = workers
    assert apart.total_bytes == either.total_bytes, "a worker may be on another host"
    vectors = "page-locked messages" if gpu else "weights and gradient"
    assert either.total_bytes - shared.total_bytes == size(either, vectors, "the server's host")
    assert not [what for what, _ in apart.items if "the server's host" in what]


def test_chunks_take_copies_of_what_an_update_changes(tmp_path: Path) -> None:
    plans = {
        words: plan_job(job(tmp_path, "algorithm=dcasgd-a", *words), 3)
        for words in (
            ("chunk_mb=0",),
            ("chunk_mb=0.001",),
            ("chunk_mb=0.001", "transport=messages"),
        )
    }
    without, chunks, messages = (plan.needs[0] for plan in plans.values())
    flat = Workshop.open(job(tmp_path, "algorithm=dcasgd-a"), CPU).flat_model(CPU)
    kept = 3 * 4 * flat.layout.num_params  # weights, snapshot and state
    assert chunks.total_bytes - without.total_bytes == kept
    assert messages.total_bytes == chunks.total_bytes
    assert size(chunks, "what a push in chunks changes") == kept


def test_a_synchronous_update_takes_the_minibatches_of_all(tmp_path: Path) -> None:
    plan = plan_job(job(tmp_path, "algorithm=ssgd"), 4)
    assert (plan.num_workers, plan.world_size) == (4, 4)
    assert plan.tickets_per_epoch == -(-1437 // 64)
    assert [need.who for need in plan.needs] == ["each rank", "rank 0, beside that"]
    twice = plan_job(job(tmp_path, "algorithm=ssgd", "sync.accumulate=2"), 4)
    assert twice.tickets_per_epoch == -(-1437 // 128)
    assert twice.needs[0].total_bytes - plan.needs[0].total_bytes == size(
        plan.needs[0], "the weights"
    )


def test_a_sequential_run_is_one_process(tmp_path: Path) -> None:
    plan = plan_job(job(tmp_path, "algorithm=sgd"), 1)
    assert [need.who for need in plan.needs] == ["the process"]
    assert not [what for what, _ in plan.needs[0].items if "state" in what]


def test_a_large_model_is_planned_without_its_memory(tmp_path: Path) -> None:
    big = job(
        tmp_path, "model={name: mlp, hidden: [100000, 100000]}", "algorithm=asgd"
    )  # 40 GB of weights
    assert plan_job(big, 2).num_params == 64 * 10**5 + 10**10 + 10**6 + 2 * 10**5 + 10


def test_the_text_says_who_does_what(tmp_path: Path) -> None:
    mine = job(tmp_path, "algorithm=asgd", "device=cpu")
    assert "ranks:      5; rank 0 serves, ranks 1 to 4 train\n" in describe_needs(mine, 5)
    assert "rank 0 serves, rank 1 trains\n" in describe_needs(mine, 2)
    assert "(assumed: set another number with -n N)" in describe_needs(mine, None)
    assert "ranks:      3; all of them train" in describe_needs(job(tmp_path, "algorithm=ssgd"), 3)
    text = describe_needs(job(tmp_path, "algorithm=sgd"), None)
    assert "ranks:      1 process\n" in text
    assert "updates:    270\n" in text
    assert "activations" in text


def test_a_number_of_ranks_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="at least one worker"):
        describe_needs(job(tmp_path, "algorithm=asgd"), 1)
    with pytest.raises(LaunchError, match="one process, but got 2"):
        describe_needs(job(tmp_path, "algorithm=sgd"), 2)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (25_557_032 * 4, "97.49 MiB"),
        (3 * 2**30, "3.00 GiB"),
        (5 * 2**50, "5120.00 TiB"),
    ],
)
def test_bytes_have_readable_units(size: int, text: str) -> None:
    assert amount(size) == text

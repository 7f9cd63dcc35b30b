"""Numbers in 16 bits: what is left of them, in memory and in messages."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from mpi_dcasgd.cli import main
from mpi_dcasgd.config.check import try_job
from mpi_dcasgd.config.load import job_as_yaml, make_job, with_overrides
from mpi_dcasgd.config.simulated import exchange_of
from mpi_dcasgd.errors import ConfigError, NonFiniteError, ProtocolError
from mpi_dcasgd.learning.learner import norm_of
from mpi_dcasgd.server import wire as wire_module
from mpi_dcasgd.server.header import MAX_GRANTS
from mpi_dcasgd.server.message import Kind, Message
from mpi_dcasgd.server.precision import Precision, WireSettings, message_bytes
from mpi_dcasgd.server.push import Push
from mpi_dcasgd.server.rounding import ReplyRounding
from mpi_dcasgd.server.slot import Slot
from mpi_dcasgd.server.wire import NarrowMessage, Wire, round_gradient, scale_of
from mpi_dcasgd.tools.bench import wire as bench
from tests.toy import CPU, World

Narrow = Literal["bf16", "fp16"]
NARROW: tuple[Narrow, ...] = ("bf16", "fp16")
BITS = {"bf16": 8, "fp16": 11}  # of a significand, the hidden one included
DIGITS = {"name": "digits"}
BASE = {"algorithm": "asgd", "epochs": 1, "batch_size": 8, "lr": 0.1, "data": DIGITS}
BASE |= {"model": {"name": "mlp"}}


def wild(size: int = 5000, *, seed: int = 0, spread: float = 3.0) -> Tensor:
    """Numbers of many magnitudes."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(size, generator=rng) * 10 ** (spread * torch.randn(size, generator=rng))


def rounded(grad: Tensor, precision: Precision, norm: float | None = None) -> Tensor:
    found = grad.clone()
    round_gradient(found, precision, norm_of(grad) if norm is None else norm)
    return found


def test_float32_leaves_everything_as_it_is() -> None:
    grad = wild()
    assert torch.equal(rounded(grad, "float32"), grad)


@pytest.mark.parametrize("precision", NARROW)
def test_rounding_is_to_the_nearest_of_its_numbers_and_leaves_them_alone(precision: Narrow) -> None:
    grad = wild(spread=1.0)
    once = rounded(grad, precision)
    error = ((once - grad) / grad).abs()
    assert 0 < error.max() <= 2.0 ** -BITS[precision]
    assert torch.equal(rounded(once, precision, norm_of(grad)), once)
    assert torch.equal(rounded(-grad, precision), -once)


def test_ties_are_rounded_to_even() -> None:
    step = 2.0**-7
    grad = torch.tensor([1 + step / 2, 1 + 3 * step / 2])
    assert rounded(grad, "bf16").tolist() == [1.0, 1 + 2 * step]


@pytest.mark.parametrize("norm", [1e-37, 3e-9, 1e-3, 0.999, 1.0, 7.0, 65504.0, 1e9, 3e38])
def test_a_scaled_gradient_of_any_norm_fits_into_float16(norm: float) -> None:
    scale = scale_of("fp16", norm)
    assert math.frexp(scale)[0] == 0.5, "a power of two"
    assert scale * norm < 2.0**15
    assert 2.0**-126 <= 1 / scale <= 2.0**126, "the way back is a normal number, too"
    if 1e-30 < norm < 1e30:
        assert scale * norm >= 2.0**14
    grad = torch.tensor([norm, -norm, 0.0], dtype=torch.float32) / math.sqrt(2)
    found = rounded(grad, "fp16", norm)
    assert found.isfinite().all()
    assert found[2] == 0
    torch.testing.assert_close(found, grad, rtol=2.0**-11, atol=0)


def test_a_scale_of_two_is_one() -> None:
    grad = torch.tensor([6000.0, 8000.0, 2.0**-25])
    assert scale_of("fp16", 1e4) == 2.0
    assert torch.equal(rounded(grad, "fp16"), grad), "all of it is there where it has been doubled"
    message = NarrowMessage(3, 0, "fp16", vector=grad.clone())
    message.pack(1e4)
    message.vector.zero_()
    message.unpack(1e4)
    assert torch.equal(message.vector, grad)


def test_weights_are_not_scaled() -> None:
    message = NarrowMessage(1, 0, "fp16")
    message.vector.fill_(8.0)
    message.pack()
    assert message.narrow.item() == 8.0
    message.vector.zero_()
    message.unpack()
    assert message.vector.item() == 8.0


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_the_scale_changes_with_the_gradient_and_not_what_is_left_of_it(size: float) -> None:
    grad, factor = wild(spread=1.0), 2.0 ** round(math.log2(size))
    assert torch.equal(rounded(grad * factor, "fp16"), rounded(grad, "fp16") * factor)


@pytest.mark.parametrize("norm", [0.0, math.inf, math.nan])
def test_a_gradient_without_a_norm_is_not_scaled(norm: float) -> None:
    assert scale_of("fp16", norm) == 1.0


@pytest.mark.parametrize("precision", NARROW)
@pytest.mark.parametrize(("num_params", "num_stats"), [(1, 0), (16, 3), (333, 16), (5000, 0)])
def test_a_message_carries_what_rounding_leaves(
    precision: Narrow, num_params: int, num_stats: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_module, "_BLOCK", 100)
    wire = Wire(precision, precision, num_params, num_stats)
    sent, received = wire.push_message(), wire.push_message()
    grad = wild(num_params + num_stats)
    norm = norm_of(grad[:num_params])
    sent.vector.copy_(grad)
    assert isinstance(sent, NarrowMessage)
    sent.write_push(version=3, ticket=5, samples=8, loss=0.5, grad_norm=norm)
    sent.pack(norm)
    assert sent.raw.nbytes == message_bytes(precision, num_params, num_stats) == wire.push_bytes
    received.raw[:] = sent.raw
    push = Push.of(received)
    assert (push.version, push.ticket, push.samples, push.grad_norm) == (3, 5, 8, norm)
    assert torch.equal(push.vector[:num_params], rounded(grad[:num_params], precision))
    assert torch.equal(push.vector[num_params:], grad[num_params:]), "statistics keep their bits"
    assert torch.equal(sent.vector, grad), "and the worker its gradient"


@pytest.mark.parametrize("precision", NARROW)
def test_half_of_the_bytes_travel(precision: Narrow) -> None:
    wide, narrow = (message_bytes(p, 1_000_000, 100) for p in ("float32", precision))
    assert wide - narrow == 2_000_000
    wire = Wire.of(WireSettings(push=precision), 1_000_000, 100)
    assert (wire.push_bytes, wire.reply_bytes) == (narrow, wide)
    reply = wire.reply_message()
    assert (type(reply), reply.vector.numel()) == (Message, 1_000_100)
    there = Wire.of(WireSettings(reply=precision), 1_000_000, 100)
    assert (there.push_bytes, there.reply_bytes) == (wide, narrow)
    assert Wire("bf16", "bf16", 5).size == Wire.of(None, 5).size == 5


def test_a_reply_is_the_snapshot_that_its_worker_gets() -> None:
    wire = Wire("float32", "bf16", 40, 8)
    message, theirs = wire.reply_message(), wire.reply_message()
    weights = wild(48)
    message.vector.copy_(weights)
    ReplyRounding(wire, CPU).settle(0, message)
    tickets = tuple(range(MAX_GRANTS))
    message.write_reply(Kind.WORK, 7, tickets)
    theirs.raw[:] = message.raw
    assert isinstance(theirs, NarrowMessage)
    theirs.unpack()
    assert (theirs.kind, theirs.version, theirs.tickets) == (Kind.WORK, 7, tickets)
    assert torch.equal(theirs.vector, message.vector)
    assert torch.equal(message.vector[:40], weights[:40].bfloat16().float())
    assert torch.equal(message.vector[40:], weights[40:])
    apart = Message(48)
    apart.vector.copy_(weights)
    ReplyRounding(wire, CPU).settle(0, apart)
    assert torch.equal(apart.vector, message.vector), "whether it travels or not"


@pytest.mark.parametrize("beyond", [65520.0, -70000.0])
def test_weights_beyond_float16_end_the_run_by_name(beyond: float) -> None:
    wire = Wire("float32", "fp16", 5)
    message = Message(5)
    message.vector.copy_(torch.tensor([65519.0, -65504.0, 0.0, 65504.0, -1.0]))
    ReplyRounding(wire, CPU).settle(3, message)
    assert message.vector[0] == 65504
    message.vector[2] = beyond
    message.vector[1] = -beyond
    with pytest.raises(NonFiniteError, match=r"worker 3 was to be sent is beyond 65504.*bf16"):
        ReplyRounding(wire, CPU).settle(3, message)


def test_the_server_keeps_float32_and_sends_what_it_calls_the_snapshot() -> None:
    world = World(2, "dcasgd-c", wire=WireSettings(push="bf16", reply="bf16"), batchnorm=True)
    world.join()
    border = world.server.layout.num_params
    for worker in (0, 1, 0):
        world.step(worker)
        snapshot, weights = world.server.slots[worker].snapshot, world.server.weights
        assert torch.equal(snapshot[:border], weights[:border].bfloat16().float())
        assert not torch.equal(snapshot[:border], weights[:border])
        assert torch.equal(snapshot[border:], weights[border:])


def test_only_a_slot_without_weights_can_be_given_another_message() -> None:
    slot = Slot(Message(3))
    other = Message(3)
    slot.carry(other)
    assert slot.message is other
    vector = torch.ones(3)
    slot.move(vector)
    assert slot.snapshot is vector
    slot.status = "working"
    with pytest.raises(ProtocolError, match="working"):
        slot.carry(Message(3))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, WireSettings()),
        ("bf16", WireSettings(push="bf16", reply="bf16")),
        ({"push": "fp16"}, WireSettings(push="fp16", reply="float32")),
    ],
)
def test_one_word_stands_for_both_ways(value: object, expected: WireSettings) -> None:
    job, problems = try_job({**BASE, "wire": value}, name="x")
    assert job is not None, problems
    assert job.wire == expected
    again, _ = try_job(job_as_yaml(job), name="x")
    assert again == job


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("fp32", "wire: got 'fp32' (text); allowed: one of float32, bf16, fp16, or a mapping of"),
        ({"push": "half"}, "wire.push: got 'half' (text); allowed: one of float32, bf16, fp16"),
        ({"up": "bf16"}, "wire.up: unknown (allowed: push, reply)"),
    ],
)
def test_other_words_are_refused(value: object, message: str) -> None:
    job, (problem,) = try_job({**BASE, "wire": value}, name="x")
    assert job is None
    assert problem.startswith(message)


def test_an_override_of_one_way_leaves_the_other() -> None:
    merged, problems = with_overrides({"wire": "fp16"}, [("wire.push", "float32")])
    assert (merged, problems) == ({"wire": {"push": "float32", "reply": "fp16"}}, [])


@pytest.mark.parametrize("algorithm", ["sgd", "ssgd"])
def test_a_run_without_a_server_has_no_wire(algorithm: str) -> None:
    words = [f"algorithm={algorithm}", "wire=bf16"]
    with pytest.raises(ConfigError, match=r"wire\.push: got 'bf16'.*has no server; omit it"):
        make_job(BASE, Path("x.yaml"), words)
    job = make_job({**BASE, "wire": "bf16"}, Path("x.yaml"), words[:1])
    assert job.algorithm == algorithm


def test_the_benchmark_says_below_which_bandwidth_16_bits_pay(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "_LEAST_S", 0.0)
    threads = torch.get_num_threads()
    assert main(["bench", "wire", "--json", "--params", "6400", "--rounds", "2"]) == 0
    found = json.loads(capsys.readouterr().out)["results"]
    assert [(one["precision"], one["params"], one["saved_bytes"]) for one in found] == [
        ("bf16", 6400, 25600),
        ("fp16", 6400, 25600),
    ]
    for one in found:
        server_s = one["push_in_s"] + one["reply_out_s"]
        assert one["even_server_bytes_per_s"] == pytest.approx(25600 / server_s)
        worker_s = one["push_out_s"] + one["reply_in_s"]
        assert one["even_bytes_per_s"] == pytest.approx(25600 / (server_s + worker_s))
    assert main(["bench", "wire", "--params", "5000", "--rounds", "1"]) == 0
    assert "| bf16 | 0.01 M | " in capsys.readouterr().out
    torch.set_num_threads(threads)


@pytest.mark.parametrize("precision", NARROW)
@pytest.mark.parametrize("num_stats", [0, 5])
def test_a_message_in_chunks_is_read_chunk_by_chunk(precision: Narrow, num_stats: int) -> None:
    cuts, size = (48, 96), 112 + num_stats
    sent, received = (NarrowMessage(112, num_stats, precision) for _ in range(2))
    sent.vector.copy_(wild(size))
    norm = norm_of(sent.vector[:112])
    sent.write_push(version=3, ticket=5, samples=8, loss=0.5, grad_norm=norm, stats_finite=True)
    sent.pack(norm)
    expected = torch.cat([rounded(sent.vector[:112], precision), sent.vector[112:]])
    here, *coming = received.parts(cuts)
    header, *chunks = sent.parts(cuts)
    assert sum(map(len, (header, *chunks))) == len(sent.raw)
    here[:] = header
    assert Push.of(received, whole=False).vector is received.vector
    assert not received.vector.any()
    for ends, mine, theirs in zip(((0, 48), (48, 96), (96, size)), coming, chunks, strict=True):
        mine[:] = theirs
        received.read_chunk(*ends)
        assert torch.equal(received.vector[: ends[1]], expected[: ends[1]])
        assert not received.vector[ends[1] :].any()


def test_chunks_of_a_reply_are_rounded_one_by_one_and_not_again() -> None:
    wire = Wire("float32", "fp16", 112, 3)
    whole, message = wire.reply_message(), wire.reply_message()
    for one in (whole, message):
        one.vector.copy_(wild(115, spread=1.0).clamp(-1e4, 1e4))
    ReplyRounding(wire, CPU).settle(0, whole)
    rounding, left = ReplyRounding(wire, CPU, (48, 96)), []

    class Early:
        def arrive(self, chunk: int) -> bool:
            return True

        def arrive_all(self) -> None: ...

        def leave(self, chunk: int) -> None:
            left.append(message.parts((48, 96))[1 + chunk].copy())

    passage = rounding.along(Early(), 0, message)
    for chunk in range(3):
        passage.leave(chunk)
    assert [*map(bytes, left)] == [*map(bytes, whole.parts((48, 96))[1:])]
    assert torch.equal(message.vector, whole.vector)
    message.vector[0] = 1 + 2**-20  # what is being sent is not written again
    rounding.settle(0, message)
    assert message.vector[0] == 1 + 2**-20
    rounding.settle(0, message)  # the next reply
    assert message.vector[0] == 1


def test_chunks_are_of_so_many_numbers_whatever_their_bits() -> None:
    wide = make_job({**BASE, "chunk_mb": 1}, Path("x.yaml"))
    narrow = make_job({**BASE, "chunk_mb": 1, "wire": "bf16"}, Path("x.yaml"))
    assert wide.cuts(1_000_000) == narrow.cuts(1_000_000)
    assert len(narrow.cuts(1_000_000)) == 3
    several = make_job({**BASE, "chunk_mb": 1, "servers": 2}, Path("x.yaml"))
    assert (several.cuts(1_000_000), exchange_of(several)) == ((), {"servers": 2})
    assert exchange_of(wide)["chunk_bytes"] == 2 * exchange_of(narrow)["chunk_bytes"] == 1_000_000

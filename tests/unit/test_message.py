from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mpi_dcasgd import drivers
from mpi_dcasgd.errors import ProtocolError
from mpi_dcasgd.learning.learner import Gradient
from mpi_dcasgd.server.header import HEADER_BYTES, MAX_GRANTS
from mpi_dcasgd.server.message import Kind, Message, Tag
from mpi_dcasgd.server.orders import CrewTag
from mpi_dcasgd.server.push import Push
from mpi_dcasgd.server.wire import NarrowMessage


def test_a_push_survives_the_journey_as_bytes() -> None:
    sent, received = Message(5), Message(5)
    sent.vector.copy_(torch.arange(5.0))
    sent.write_push(
        version=2**40,
        ticket=2**33,
        samples=128,
        loss=0.1,
        grad_norm=math.inf,
        compute_ns=1,
        wait_ns=2,
        data_ns=3,
    )
    received.raw[:] = sent.raw
    assert received.kind is Kind.PUSH
    assert (received.version, received.ticket, received.samples) == (2**40, 2**33, 128)
    assert (received.loss, received.grad_norm) == (0.1, math.inf)
    assert received.spent_ns == (1, 2, 3)
    assert torch.equal(received.vector, torch.arange(5.0))


def test_a_reply_carries_as_many_tickets_as_fit_and_no_more() -> None:
    message = Message(1)
    tickets = tuple(range(10, 10 + MAX_GRANTS))
    message.write_reply(Kind.WORK, 7, tickets)
    assert (message.kind, message.version, message.tickets) == (Kind.WORK, 7, tickets)
    message.write_reply(Kind.STOP, 8, ())
    assert (message.kind, message.tickets) == (Kind.STOP, ())
    with pytest.raises(ProtocolError, match=f"{MAX_GRANTS} fit"):
        message.write_reply(Kind.WORK, 7, range(MAX_GRANTS + 1))


def test_the_vector_is_aligned_and_behind_the_header() -> None:
    message = Message(3)
    assert message.vector.data_ptr() % 64 == 0
    assert message.raw.nbytes == HEADER_BYTES + 12
    message.vector[0] = 1.5
    assert message.raw[HEADER_BYTES // 4 :].view("float32")[0] == 1.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_parts_of_a_message_are_the_message(dtype: torch.dtype) -> None:
    message = Message(48, dtype=dtype)
    parts = message.parts([16, 40])
    message.vector.copy_(torch.arange(48))
    message.write_reply(Kind.WORK, 7, (5,))
    assert [part.nbytes // dtype.itemsize for part in parts[1:]] == [16, 24, 8]
    assert parts[0].nbytes == HEADER_BYTES
    assert np.array_equal(np.concatenate(parts), message.raw)
    assert all(np.shares_memory(part, message.raw) for part in parts)


def test_a_message_whose_vector_both_sides_have_is_its_header_alone() -> None:
    vector = torch.arange(3.0)
    message = Message(3, shared=vector)
    assert message.vector is vector
    assert message.raw.nbytes == HEADER_BYTES


def test_a_vector_on_another_device_has_no_header_before_it() -> None:
    message = Message(3, device=torch.device("meta"), dtype=torch.float64)
    assert message.vector.device.type == "meta"
    assert (message.vector.shape, message.vector.dtype) == ((3,), torch.float64)
    message.write_reply(Kind.WORK, 7, (5,))
    assert (message.kind, message.version, message.tickets) == (Kind.WORK, 7, (5,))
    with pytest.raises(ProtocolError, match="not on the CPU cannot be sent"):
        _ = message.raw


@pytest.mark.parametrize(
    "make", [partial(Message, 3), partial(NarrowMessage, 3, 0, "bf16")], ids=["wide", "narrow"]
)
def test_page_locked_memory_is_asked_for_where_there_is_a_vector_to_stage(
    make: Callable[..., Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, zeros = [], torch.zeros

    def unpinned(*size: int, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        asked.append(pin_memory)
        return zeros(*size, **options)

    monkeypatch.setattr(torch, "zeros", unpinned)
    make(pinned=True)
    assert any(asked)
    asked.clear()
    make()
    Message(3, pinned=True, shared=zeros(3))
    assert not any(asked)


def test_a_buffer_that_nobody_wrote_is_noticed() -> None:
    with pytest.raises(ProtocolError, match="unknown kind 0"):
        _ = Message(1).kind


def test_the_numbers_of_kinds_and_tags_are_part_of_the_layout() -> None:
    kinds = {"PUSH": 1, "WORK": 2, "STOP": 3, "AFRESH": 4, "AGAIN": 5}
    tags = {"PUSH": 1, "REPLY": 2, "END": 3, "HELLO": 4, "CHUNK": 5}
    tags |= {"ARRIVE": 21, "ARRIVED": 22, "NOTE": 31, "HERE": 32}
    tags |= {"ASK": 41, "ANSWER": 42, "FOUND": 43, "TOLD": 44}
    assert {kind.name: int(kind) for kind in Kind} == kinds
    assert {tag.name: int(tag) for tag in Tag} == tags


def test_tags_have_one_owner_and_no_two_have_one_number() -> None:
    numbers = [*Tag, *CrewTag]
    assert len(set(map(int, numbers))) == len(numbers)
    sources = {
        file: file.read_text("utf-8") for file in Path(drivers.__file__).parent.rglob("*.py")
    }
    used = {
        (f, word) for f, text in sources.items() for word in re.findall(r"\btag=([\w.]+)", text)
    }
    assert len(used) > 20
    for file, word in used:
        short = re.search(rf"^.*\b{re.escape(word)}\b.* = (.*)$", sources[file], re.MULTILINE)
        owner = short[1] if short and word.startswith("_") else word
        assert re.match(r"(Crew)?Tag\.|tag$", owner), (file, word)


def test_the_words_of_a_push_are_part_of_the_layout() -> None:
    message = Message(1)
    message.write_push(
        version=4, ticket=5, samples=6, loss=0.5, grad_norm=1.5,
        compute_ns=7, wait_ns=8, data_ns=9, stats_finite=False,
    )  # fmt: skip
    packed = struct.pack("=4q2d4q", 1, 4, 5, 6, 0.5, 1.5, 7, 8, 9, 2)
    assert message.raw.tobytes()[: len(packed)] == packed


def test_a_push_is_read_from_its_message_field_by_field() -> None:
    message = Message(3)
    message.write_push(version=4, ticket=5, samples=6, loss=7.5, grad_norm=8.5)
    push = Push.of(message)
    assert push[:5] == (4, 5, 6, 7.5, 8.5)
    assert push.vector is message.vector
    assert push.stats_finite is None
    assert message.spent_ns == (0, 0, 0)
    message.write_reply(Kind.WORK, 4, (5,))
    with pytest.raises(ProtocolError, match="expected a push, got WORK"):
        Push.of(message)


def test_a_push_is_made_of_what_a_learner_found() -> None:
    vector = torch.ones(3)
    found = Gradient(ticket=5, samples=6, loss=7.5, norm=8.5, stats_finite=False)
    push = Push.found(4, found, vector)
    assert push[:5] == (4, 5, 6, 7.5, 8.5)
    assert push.vector is vector
    assert push.stats_finite is False


def test_a_reply_that_grants_afresh_is_otherwise_the_same() -> None:
    message = Message(1)
    message.write_reply(Kind.WORK, 7, (5, 6))
    message.make_afresh()
    assert (message.kind, message.version, message.tickets) == (Kind.AFRESH, 7, (5, 6))


def test_a_torn_reply_is_noticed() -> None:
    message = Message(1)
    message.write_reply(Kind.WORK, 1, (5,))
    message.raw[:32].view("int64")[2] = MAX_GRANTS + 1
    with pytest.raises(ProtocolError, match="14 tickets"):
        _ = message.tickets

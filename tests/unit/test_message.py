from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch

from mpi_dcasgd import drivers
from mpi_dcasgd.errors import ProtocolError
from mpi_dcasgd.learning.learner import Gradient
from mpi_dcasgd.server.header import HEADER_BYTES, MAX_GRANTS
from mpi_dcasgd.server.message import Kind, Message, Tag
from mpi_dcasgd.server.orders import CrewTag
from mpi_dcasgd.server.push import Push


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


def test_a_torn_reply_is_noticed() -> None:
    message = Message(1)
    message.write_reply(Kind.WORK, 1, (5,))
    message.raw[:32].view("int64")[2] = MAX_GRANTS + 1
    with pytest.raises(ProtocolError, match="14 tickets"):
        _ = message.tickets

"""Memory that the server and a worker have in common, and who has it."""

from __future__ import annotations

import fcntl
import gc
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from thread_ranks import meet
from torch import nn
from toy import World

from mpi_dcasgd.drivers.meeting import Meeting
from mpi_dcasgd.drivers.topology import Topology
from mpi_dcasgd.drivers.transport import segment as segment_module
from mpi_dcasgd.drivers.transport.place import Place
from mpi_dcasgd.drivers.transport.segment import (
    Offer,
    Segment,
    UnsharedError,
    page_lock,
    unlock_pages,
)
from mpi_dcasgd.drivers.transport.sharing import Sharing, share_memory
from mpi_dcasgd.errors import LaunchError, ProtocolError
from mpi_dcasgd.learning.flat import FlatModel
from mpi_dcasgd.learning.trial import watch_weights
from mpi_dcasgd.rules.alignment import LANE_BYTES
from mpi_dcasgd.server.header import HEADER_BYTES
from mpi_dcasgd.server.message import Message

CPU = torch.device("cpu")
SIZES = (1, 9_999, 270_000, 3_000_000)


def mapped() -> int:
    """Segments that this process maps."""
    gc.collect()
    return Path("/proc/self/maps").read_text().count("memfd:mpi_dcasgd")


@pytest.mark.parametrize("size", SIZES)
def test_both_sides_see_each_others_vectors(size: int) -> None:
    ours, offered = Segment.create(size)
    theirs = Segment.attach(offered.offer)
    offered.close()
    assert ours.reply.tolist() == [0.0] * size if size < 10 else not ours.reply.any()
    ours.reply.fill_(1.5)
    theirs.push.fill_(-2.0)
    assert torch.equal(theirs.reply, torch.full((size,), 1.5))
    assert torch.equal(ours.push, torch.full((size,), -2.0))


@pytest.mark.parametrize("size", SIZES)
def test_vectors_begin_on_cache_lines_and_at_different_places_of_a_page(size: int) -> None:
    segment, offered = Segment.create(size)
    offered.close()
    reply, push = (vector.data_ptr() for vector in (segment.reply, segment.push))
    assert reply % 64 == push % 64 == 0
    assert (push - reply) % 4096 == LANE_BYTES
    assert push >= reply + segment.reply.nbytes


def test_the_memory_is_there_from_the_beginning_and_nobody_can_take_it_away() -> None:
    _, offered = Segment.create(100_000)
    fd = os.open(f"/proc/self/fd/{offered.offer.fd}", os.O_RDWR)
    found = os.fstat(fd)
    assert found.st_size >= 2 * 400_000
    assert 512 * found.st_blocks >= found.st_size
    for size in (0, 2 * found.st_size):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)
    assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SEAL
    os.close(fd)
    offered.close()


def test_older_kernels_reserve_the_memory_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_module, "_MADV_POPULATE_WRITE", 99)  # unknown to any kernel
    _, offered = Segment.create(100_000)
    found = os.fstat(offered.offer.fd)
    offered.close()
    assert 512 * found.st_blocks >= found.st_size


WRITE_AND_DIE = """
import mmap, os, signal, sys
path, place = sys.argv[1], int(sys.argv[2])
fd = os.open(path, os.O_RDWR)
mmap.mmap(fd, os.fstat(fd).st_size)[place : place + 4] = bytes.fromhex(sys.argv[3])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_wrote_stays_and_nothing_is_left_behind() -> None:
    before, in_shm = mapped(), sorted(os.listdir("/dev/shm"))
    segment, offered = Segment.create(1000)
    path = f"/proc/{offered.offer.pid}/fd/{offered.offer.fd}"
    _, push, _ = segment_module._places(1000)
    words = [sys.executable, "-c", WRITE_AND_DIE, path, str(push), "0000803f"]
    assert subprocess.run(words).returncode == -signal.SIGKILL
    offered.close()
    assert segment.push[:2].tolist() == [1.0, 0.0]
    assert not [name for name in os.listdir("/dev/shm") if name not in in_shm and "mpi_" in name]
    assert mapped() == before + 1
    del segment
    assert mapped() == before


def test_what_is_not_the_servers_memory_is_not_taken_for_it() -> None:
    _, offered = Segment.create(1000)
    offer = offered.offer
    reading, writing = os.pipe()
    wrong: list[tuple[Offer, str]] = [
        (offer._replace(key=16 * b"x"), "is not the server's memory"),
        (offer._replace(size=999_000), "is not the server's memory"),
        (offer._replace(size=999), "is not the server's memory"),
        (offer._replace(fd=writing), "is not the server's memory"),
        (offer._replace(fd=987), "No such file"),
    ]
    before = mapped()
    for other, words in wrong:
        with pytest.raises(UnsharedError, match=words):
            Segment.attach(other)
    offered.close()
    with pytest.raises(UnsharedError, match=f"/proc/{os.getpid()}/fd/"):
        Segment.attach(offer)
    os.close(reading)
    os.close(writing)
    assert mapped() == before


def test_a_system_that_has_too_little_says_how_much_was_asked_for() -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(UnsharedError, match=r"4,\d{3},\d{3} bytes of shared memory: File too"):
            Segment.create(500_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_system_without_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with pytest.raises(UnsharedError, match="memfd_create"):
        Segment.create(5)


HERE = Place("node1", "kernel-a", "pid:[1]")


@pytest.mark.parametrize(
    ("there", "why"),
    [
        (HERE, ""),
        (HERE._replace(host="node2"), "another host"),
        (HERE._replace(kernel="kernel-b"), "another host"),
        (HERE._replace(processes="pid:[2]"), "container"),
        (HERE._replace(kernel=""), "/proc"),
        (HERE._replace(kernel="", host="node2"), "another host"),
    ],
)
def test_memory_is_offered_to_who_may_see_it(there: Place, why: str) -> None:
    for one, other in ((HERE, there), (there, HERE)):
        obstacle = one.apart(other)
        assert why in obstacle
        assert bool(obstacle) == bool(why)
    assert Place.here().apart(Place.here()) == ""


def test_the_log_names_workers_that_are_near_and_share_nothing() -> None:
    far = HERE.apart(HERE._replace(kernel="b"))
    sharing = Sharing(["", far, "no memory", ""], ["n1", "n2", "n1", "n1"])
    assert sharing.lines() == [
        "2 of 4 workers share memory with the server",
        "worker 2 (rank 3 on n1) exchanges messages with the server: no memory",
    ]
    assert [sharing.transport(w) for w in (0, 1, None)] == ["shared", "messages", ""]
    with pytest.raises(LaunchError, match=r"transport=auto.*\n.*rank 2 on n2.*\n.*no memory"):
        sharing.require_all()
    Sharing(["", ""], ["n1", "n1"]).require_all()
    assert Sharing().lines() == []
    assert Sharing().transport(0) == ""
    assert (sharing.chunked(4.0), sharing.chunked("auto")) == ({1, 2}, {1})


@pytest.mark.parametrize("apart", [None, 1, 3])
def test_several_servers_share_memory_with_a_worker_all_or_none(
    apart: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranks 0 and 1 serve, 2 and 3 work; one of them may be in a container of its own."""
    genuine, rank = Place.here(), threading.local()
    lone = genuine._replace(processes="pid:[1]")
    here = classmethod(lambda cls: lone if rank.number == apart else genuine)
    monkeypatch.setattr(Place, "here", here)

    def share(meeting: Meeting) -> Sharing:
        rank.number = number = meeting.rank
        found = share_memory(meeting, "auto", 40, Topology("asynchronous", 2, servers=2))
        for part in found.parts(20 * number, 20 * number + 20).values() if number < 2 else ():
            part.reply.fill_(1.0 + number)
        return found

    ranks = meet(4, share)
    near = {None: {0, 1}, 1: set(), 3: {0}}[apart]
    assert [set(ranks[server].segments) for server in (0, 1)] == [near, near]
    assert [set(ranks[2 + worker].segments) for worker in (0, 1)] == [{0} & near, {1} & near]
    for worker in near:
        assert ranks[2 + worker].own.reply.tolist() == 20 * [1.0] + 20 * [2.0]
    lines = ranks[0].lines()
    assert lines[0] == f"{len(near)} of 2 workers share memory with all 2 servers"
    if apart:
        assert "worker 1 (rank 3 on " in lines[-1]
        with pytest.raises(LaunchError, match="with all 2 servers; start all of them on one host"):
            ranks[2].require_all()


def test_a_message_whose_vector_is_shared_is_its_header() -> None:
    vector = torch.arange(5.0)
    sent, received = Message(5, shared=vector), Message(5, shared=vector)
    sent.write_push(version=3, ticket=4, samples=5, loss=0.5, grad_norm=1.0)
    assert sent.raw.nbytes == HEADER_BYTES
    received.raw[:] = sent.raw
    assert (received.version, received.ticket, received.samples) == (3, 4, 5)
    assert received.vector is vector


def test_a_snapshot_in_use_stays_where_it_is() -> None:
    world = World(2)
    slot = world.server.slots[0]
    slot.move(torch.zeros(world.server.layout.size))
    world.join()
    with pytest.raises(ProtocolError, match="worker that is working"):
        slot.move(torch.zeros(world.server.layout.size))
    world.server.lose(0)
    slot.move(torch.zeros(world.server.layout.size))
    world.server.rejoin(0)
    assert torch.equal(slot.snapshot, world.server.weights)


@pytest.mark.parametrize("algorithm", ["dcasgd-a", "rennala"])
def test_the_same_pushes_through_shared_memory_give_the_same_bits(algorithm: str) -> None:
    plain, shared = (World(2, algorithm, batchnorm=True) for _ in range(2))
    segments = []
    for slot, learner in zip(shared.server.slots, shared.learners, strict=True):
        segment, offered = Segment.create(shared.server.layout.size)
        segments.append((segment, Segment.attach(offered.offer)))
        offered.close()
        slot.move(segment.reply)
        learner.flat = FlatModel(
            learner.flat.model, CPU, weights=segments[-1][1].reply, grad=segments[-1][1].push
        )
    assert torch.equal(plain.run(), shared.run())


@pytest.mark.gpu
def test_shared_vectors_are_page_locked_for_a_gpu() -> None:
    segment, offered = Segment.create(100_000)
    offered.close()
    assert not segment.push.is_pinned()
    assert page_lock(segment.push)
    assert segment.push.is_pinned()
    segment.push.copy_(torch.ones(100_000, device="cuda"), non_blocking=True)
    torch.cuda.synchronize()
    assert segment.push.sum() == 100_000
    unlock_pages(segment.push)
    assert not segment.push.is_pinned()


class Renormed(nn.Module):
    def __init__(self, max_norm: float | None) -> None:
        super().__init__()
        self.table = nn.Embedding(4, 3, max_norm=max_norm)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.table(rows)
        return found


@pytest.mark.parametrize(("max_norm", "writes"), [(None, False), (0.1, True), (1e6, True)])
def test_a_model_that_writes_its_own_weights_is_noticed(
    max_norm: float | None, writes: bool
) -> None:
    flat = FlatModel(Renormed(max_norm), CPU)
    written = watch_weights(flat)
    flat.take_gradient(flat.model(torch.tensor([1, 2])).sum())
    assert written() == writes


def test_a_model_that_writes_past_autograd_is_noticed() -> None:
    flat = FlatModel(nn.Linear(2, 1), CPU)
    written = watch_weights(flat)
    flat.model.weight.data.mul_(0.5)
    assert written()

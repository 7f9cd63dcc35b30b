"""Messages between workers and servers: links, how vectors are cut up, and what a push costs."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.learning.settings import Positive, Seconds

_ELEMENT_BYTES = 4  # of the vectors that sizes are given of: float32


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Network:
    """Links of the workers' hosts and of the servers', both ways at once."""

    latency_s: Annotated[Seconds, Field(description="seconds for an empty message")] = 0.0
    bytes_per_s: Annotated[
        Positive | None,
        Field(description="bandwidth of each worker's link; null: without limit"),
    ] = None
    server_bytes_per_s: Annotated[
        Positive | None,
        Field(
            description="bandwidth of each server's link, in each direction, which its workers "
            "share; null: without limit"
        ),
    ] = None
    share_cv: Annotated[
        Seconds,
        Field(
            description="standard deviation over mean of the shares that messages get of a "
            "server's link"
        ),
    ] = 0.25
    late_share: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="share of a server's link of a message that begins while others are on "
            "their way, over theirs: TCP begins slowly, so short messages nearly queue up",
        ),
    ] = 1.0
    local: Annotated[
        int,
        Field(ge=0, description="workers 0 to local - 1 are on the server's host: free messages"),
    ] = 0
    allreduce: Annotated[
        Literal["tree", "ring"],
        Field(description="latencies of an allreduce: 2 log2(N) or 2 (N - 1)"),
    ] = "tree"
    hidden_s: Annotated[
        Seconds, Field(description="seconds of an allreduce that run beside the backward pass")
    ] = 0.0

    def message_s(self, size: int | float) -> float:
        """Seconds for a message of ``size`` bytes with the links to itself."""
        return self.latency_s + (size / self.bytes_per_s if self.bytes_per_s else 0.0)

    def allreduce_s(self, size: int | float, ranks: int) -> float:
        """Seconds that an allreduce of ``size`` bytes holds its ranks up.

        A ring's volume, which no allreduce can undercut, and the latencies of ``allreduce``, less
        what the backward pass hides.
        """
        if ranks < 2:
            return 0.0
        volume = 2 * (ranks - 1) / ranks * size
        turns = ranks - 1 if self.allreduce == "ring" else math.ceil(math.log2(ranks))
        seconds = 2 * turns * self.latency_s
        seconds += volume / self.bytes_per_s if self.bytes_per_s else 0.0
        return max(0.0, seconds - self.hidden_s)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ServerTimes:
    """Cost of a push at the server, which handles one after the other."""

    service_s: Annotated[
        Seconds, Field(description="seconds a push at each server, whatever its size")
    ] = 0.0
    bytes_per_s: Annotated[
        Positive | None,
        Field(
            description="bytes of pushed vector a second (of float32, however they travel), "
            "on top; null: without limit"
        ),
    ] = None

    def push_s(self, size: int | float) -> float:
        """Seconds for a push of ``size`` bytes, its reply included."""
        return self.service_s + (size / self.bytes_per_s if self.bytes_per_s else 0.0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Exchange:
    """Form of vectors on their way between workers and servers: pieces, and bytes of an element."""

    servers: Annotated[
        int, Field(ge=1, description="servers, each with its stretch of the vector and its link")
    ] = 1
    element_bytes: Annotated[
        Literal[2, 4], Field(description="bytes of an element in messages: 4, or 2 of 16 bits")
    ] = 4
    chunk_bytes: Annotated[
        int | None,
        Field(
            ge=1,
            description="bytes of a message's chunks, of which one is updated while the next "
            "comes in; null: in one piece",
        ),
    ] = None

    def wire_bytes(self, size: int | float) -> float:
        """Bytes that travel for ``size`` bytes of float32, over all servers."""
        return size * self.element_bytes / _ELEMENT_BYTES

    def chunks(self, size: int | float) -> int:
        """Chunks of each server's message, of ``size`` bytes of float32 over all servers."""
        if self.chunk_bytes is None:
            return 1
        return max(1, math.ceil(self.wire_bytes(size) / self.servers / self.chunk_bytes))


@dataclass(frozen=True, kw_only=True)
class Carriage:
    """Times and bytes of one push and its reply, over all servers.

    All servers are alike and are sent their stretches at once, so they are one server with all of
    their links, that takes as long as each does.

    Attributes:
        latency_s: Of a message.
        order_s: What a push waits until all servers have told the leading one that they have it,
            and been told its place in the order.
        wire_bytes: Of a push, and of a reply.
        chunks: That each server's part of it is cut into.
        service_s: Of a push, at each server.
        worker_bytes_per_s: Of a worker's link; infinite without limit.
        server_bytes_per_s: Of all servers' links together; infinite without limit.
        local: Workers whose messages take no time.
    """

    latency_s: float
    order_s: float
    wire_bytes: float
    chunks: int
    service_s: float
    worker_bytes_per_s: float
    server_bytes_per_s: float
    local: int

    @classmethod
    def of(
        cls, network: Network, server: ServerTimes, exchange: Exchange, size: int | float
    ) -> Carriage:
        """Return what vectors of ``size`` bytes of float32, a header included, come to."""
        each = network.server_bytes_per_s
        return cls(
            latency_s=network.latency_s,
            order_s=2 * network.latency_s if exchange.servers > 1 else 0.0,
            wire_bytes=exchange.wire_bytes(size),
            chunks=exchange.chunks(size),
            service_s=server.push_s(size / exchange.servers),
            worker_bytes_per_s=network.bytes_per_s or math.inf,
            server_bytes_per_s=exchange.servers * each if each else math.inf,
            local=network.local,
        )

    @property
    def shared(self) -> bool:
        """Return whether one message can be in another's way, or a push is dealt with in parts."""
        return self.server_bytes_per_s < math.inf or self.local > 0 or self.chunks > 1

    @property
    def message_s(self) -> float:
        """Seconds of a message that has the links to itself."""
        bytes_per_s = min(self.worker_bytes_per_s, self.server_bytes_per_s)
        return self.latency_s + self.wire_bytes / bytes_per_s

    @property
    def pushes_per_s(self) -> float:
        """Pushes a second that servers and their links can take, however many workers there are."""
        busy_s = max(self.service_s, self.wire_bytes / self.server_bytes_per_s)
        return 1 / busy_s if busy_s else math.inf

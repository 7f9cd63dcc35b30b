"""Benchmark of numbers in 16 bits: what converting them takes, and for which network that pays.

A push is packed by its worker and unpacked by the server, a reply is rounded and packed by the
server and unpacked by its worker. Two bytes of each number stay at home. So there is a bandwidth at
which converting takes as long as the bytes that are saved would have: on slower networks 16 bits
pay.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mpi_dcasgd.server.message import Message
from mpi_dcasgd.server.precision import Precision, message_bytes
from mpi_dcasgd.server.rounding import ReplyRounding
from mpi_dcasgd.server.wire import NarrowMessage, Wire
from mpi_dcasgd.tools.bench.spread import Spread, table

SIZES = (270_000, 25_600_000)
NARROW: tuple[Precision, ...] = ("bf16", "fp16")

_LEAST_S = 0.02
"""A sample takes at least so long, so that reading the clock costs nothing beside it."""
_NORM = 1.7  # of a gradient: fp16 is scaled


@dataclass(frozen=True)
class Conversion:
    """One precision at one size; times in seconds of one vector.

    Attributes:
        precision: Of both directions.
        num_params: Length of the vectors.
        push_out_s: The worker packs its gradient.
        push_in_s: The server unpacks it.
        reply_out_s: The server rounds the snapshot and packs it.
        reply_in_s: The worker unpacks its weights.
    """

    precision: Precision
    num_params: int
    push_out_s: Spread
    push_in_s: Spread
    reply_out_s: Spread
    reply_in_s: Spread

    @property
    def saved_bytes(self) -> int:
        """Bytes that stay at home, of a push and its reply."""
        wide, narrow = (message_bytes(p, self.num_params, 0) for p in ("float32", self.precision))
        return 2 * (wide - narrow)

    @property
    def server_s(self) -> float:
        """Seconds that a push and its reply take the server more."""
        return self.push_in_s.median + self.reply_out_s.median

    @property
    def even_bytes_per_s(self) -> float:
        """Bandwidth of a link at which a push and its reply take as long as in float32."""
        worker_s = self.push_out_s.median + self.reply_in_s.median
        return self.saved_bytes / (worker_s + self.server_s)

    @property
    def even_server_bytes_per_s(self) -> float:
        """Bandwidth of the server's link at which many workers get as much from it.

        Their own conversions go on beside those of others.
        """
        return self.saved_bytes / self.server_s

    def entry(self) -> dict[str, Any]:
        """Return the numbers under their names."""
        spreads = ("push_out_s", "push_in_s", "reply_out_s", "reply_in_s")
        found: dict[str, Any] = {"precision": self.precision, "params": self.num_params}
        for name in spreads:
            found |= getattr(self, name).entry(name)
        return found | {
            "saved_bytes": self.saved_bytes,
            "even_bytes_per_s": self.even_bytes_per_s,
            "even_server_bytes_per_s": self.even_server_bytes_per_s,
        }


def measure(sizes: Sequence[int], rounds: int) -> list[Conversion]:
    """Measure both precisions at every size, in turns.

    Args:
        sizes: Lengths of the vectors.
        rounds: Samples of each.
    """
    found = []
    for size in sizes:
        benches = [_Bench(precision, size) for precision in NARROW]
        samples = [[bench.sample() for bench in benches] for _ in range(rounds + 1)][1:]
        for number, precision in enumerate(NARROW):
            columns = zip(*(row[number] for row in samples), strict=True)
            found.append(Conversion(precision, size, *(Spread.of(column) for column in columns)))
    return found


def as_table(found: Sequence[Conversion]) -> str:
    """Return a Markdown table: milliseconds, and the links below which 16 bits pay."""
    heads = [
        "wire",
        "parameters",
        *("worker packs ms", "server unpacks ms", "server rounds and packs ms"),
        *("worker unpacks ms", "saved MB", "even at Gbit/s, one worker", "many workers"),
    ]
    rows = [
        [
            one.precision,
            f"{one.num_params / 1e6:.2f} M",
            *(
                f"{1e3 * spread.median:.3g}"
                for spread in (one.push_out_s, one.push_in_s, one.reply_out_s, one.reply_in_s)
            ),
            f"{one.saved_bytes / 1e6:.3g}",
            f"{8e-9 * one.even_bytes_per_s:.3g}",
            f"{8e-9 * one.even_server_bytes_per_s:.3g}",
        ]
        for one in found
    ]
    return table(heads, rows, words=1)


class _Bench:
    """The messages of one worker and the server."""

    def __init__(self, precision: Precision, size: int) -> None:
        wire = Wire(precision, precision, size)
        push, self._reply = wire.push_message(), wire.reply_message()
        assert isinstance(push, NarrowMessage)
        self._push = push
        self._rounding = ReplyRounding(wire, torch.device("cpu"))
        for message in (push, self._reply):
            message.vector.normal_().mul_(1e-2)

    def sample(self) -> tuple[float, float, float, float]:
        """Seconds of all four."""
        reply = self._reply
        assert isinstance(reply, NarrowMessage)
        return (
            _seconds(lambda: self._push.pack(_NORM)),
            _seconds(lambda: self._push.unpack(_NORM)),
            _seconds(lambda: self._settle(reply)),
            _seconds(reply.unpack),
        )

    def _settle(self, reply: Message) -> None:
        self._rounding.settle(0, reply)


def _seconds(call: Callable[[], object]) -> float:
    count, spent_s = 0, 0.0
    started = time.perf_counter()
    while not count or spent_s < _LEAST_S:
        call()
        count += 1
        spent_s = time.perf_counter() - started
    return spent_s / count

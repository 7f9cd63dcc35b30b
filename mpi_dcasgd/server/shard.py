"""Shards: the stretch of the flat vector that each of several servers has.

A shard is neighbouring parameters; the last one also has BatchNorm's statistics, which lie behind
them. Updates are elementwise, so servers that each apply the same updates to their own shards
come to the bits of one server with the whole vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

from torch import Tensor

from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning.layout import ALIGN, FlatLayout
from mpi_dcasgd.pages import PAGE_BYTES, zeros
from mpi_dcasgd.rules.fuse import WORTH_COMPILING, Fuse
from mpi_dcasgd.rules.stretch import Stretch

_PAGE = PAGE_BYTES // 4
_MANY_PAGES = 64
"""Pages of a shard from which shards begin with one: unequal by a page, they are equal enough."""


class Borders(NamedTuple):
    """Place of a stretch within its vector.

    Attributes:
        begin: First parameter.
        border: The parameter after the last.
        end: The element after the last, statistics included.
    """

    begin: int
    border: int
    end: int


@dataclass(frozen=True)
class Shard:
    """One server's stretch of the vector.

    Attributes:
        begin: First parameter.
        border: The parameter after the last.
        end: The element after the last, statistics included.
        layout: Layout of the shard as a vector of its own.

    Example:
        >>> layout = FlatLayout((), (), num_params=64, num_stats=16)
        >>> [(shard.begin, shard.border, shard.end) for shard in shards_of(layout, 2)]
        [(0, 32, 32), (32, 64, 80)]
    """

    begin: int
    border: int
    end: int
    layout: FlatLayout

    @property
    def borders(self) -> Borders:
        """Place of the stretch in the whole vector."""
        return Borders(self.begin, self.border, self.end)

    def of(self, vector: Tensor) -> Tensor:
        """Return the view of this shard in a whole vector, with statistics or without."""
        return vector[self.begin : min(self.end, vector.numel())]

    def cut(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return this shard's part of a state of the whole (``ModelState.state_dict``)."""
        return _mapped(state, self.of)


def shards_of(layout: FlatLayout, servers: int) -> tuple[Shard, ...]:
    """Divide a vector among servers as evenly as whole cache lines, or pages, allow.

    Args:
        layout: Of the whole vector.
        servers: Number of servers, at least 1.

    Raises:
        ConfigError: There are fewer cache lines of parameters than servers.
    """
    lines = layout.num_params // ALIGN
    if lines < servers:
        raise ConfigError(
            "servers",
            [
                f"servers: got {servers}; allowed: up to {lines} for this model, whose "
                f"{layout.num_params} elements are divided by {ALIGN}"
            ],
        )
    grain = _PAGE if layout.num_params >= servers * _MANY_PAGES * _PAGE else ALIGN
    whole = layout.num_params // grain
    borders = [grain * (whole * number // servers) for number in range(servers)]
    borders.append(layout.num_params)
    return tuple(_shard(layout, begin, border) for begin, border in pairwise(borders))


def way_of(layout: FlatLayout, fuse: Fuse) -> Fuse:
    """Return how shards are to be updated: as the whole vector would be, not each by its length."""
    if fuse != "auto":
        return fuse
    return "compiled" if layout.num_params >= WORTH_COMPILING else "blocks"


def vectors_of(state: Mapping[str, Any]) -> list[Tensor]:
    """Return the vectors of a state (``ModelState.state_dict``), in a fixed order."""
    found: list[Tensor] = []

    def note(vector: Tensor) -> Tensor:
        found.append(vector)
        return vector

    _mapped(state, note)
    return found


def without_vectors(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state with the length of each vector in its place."""
    return _mapped(state, lambda vector: vector.numel())


def with_vectors(outline: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of an outline (``without_vectors``), its vectors new and all zeros."""
    return _mapped(outline, lambda length: zeros(length))


def grown(state: Mapping[str, Any], shard: Shard, layout: FlatLayout) -> dict[str, Any]:
    """Return a state of the whole in which only a shard's own part has been filled in.

    Args:
        state: Of the shard.
        shard: Whose state it is.
        layout: Of the whole.
    """

    def whole(vector: Tensor) -> Tensor:
        # Only weights and held gradients have statistics behind them, and rule vectors have none.
        found = zeros(layout.num_params, vector.dtype)
        shard.of(found).copy_(vector)
        return found

    def whole_with_statistics(vector: Tensor) -> Tensor:
        found = zeros(layout.size, vector.dtype)
        shard.of(found).copy_(vector)
        return found

    return _mapped(state, whole_with_statistics, whole)


def _shard(layout: FlatLayout, begin: int, border: int) -> Shard:
    last = border == layout.num_params
    end = layout.size if last else border
    stretches = _within(layout.stretches, begin, border)
    return Shard(begin, border, end, FlatLayout((), (), border - begin, end - border, stretches))


def _within(stretches: Sequence[Stretch], begin: int, end: int) -> tuple[Stretch, ...]:
    """Cut stretches to those of a shard, which counts from its own beginning."""
    return tuple(
        replace(one, begin=max(one.begin, begin) - begin, end=min(one.end, end) - begin)
        for one in stretches
        if one.begin < end and one.end > begin
    )


def _mapped(state: Mapping[str, Any], change: Any, change_rule: Any = None) -> dict[str, Any]:
    """Return a state with something else in the place of each vector."""
    change_rule = change_rule or change
    held = state["held"]
    return {
        **{key: value for key, value in state.items() if key not in ("weights", "rule", "held")},
        "weights": change(state["weights"]),
        "rule": {
            name: [change_rule(vector) for vector in vectors]
            for name, vectors in state["rule"].items()
        },
        "held": {**held, "sum": None if held["sum"] is None else change(held["sum"])},
    }

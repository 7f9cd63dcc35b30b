"""The type that numbers have while they travel between workers and server.

Apart from ``wire``, so that a job can be checked without loading PyTorch.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.server.header import HEADER_BYTES

Precision = Literal["float32", "bf16", "fp16"]

FLOAT_BYTES = 4
_BYTES = {"float32": FLOAT_BYTES, "bf16": 2, "fp16": 2}
_LINE_BYTES = 64  # where statistics begin behind numbers of 16 bits


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WireSettings:
    """The ``wire:`` section of a job: ``wire: bf16`` stands for both directions.

    Example:
        >>> WireSettings(push="bf16").rounds
        True
    """

    push: Annotated[
        Precision,
        Field(
            description="asynchronous: what a gradient is rounded to on its way to the server; "
            "fp16 is scaled by a power of two that follows from the gradient's norm. `wire: bf16` "
            "sets both directions"
        ),
    ] = "float32"
    reply: Annotated[
        Precision,
        Field(
            description="asynchronous: what weights are rounded to on their way to a worker, "
            "whose snapshot is the rounded ones; fp16 ends the run where a weight is beyond 65504"
        ),
    ] = "float32"

    @classmethod
    def in_short(cls, value: object) -> object:
        """Return the mapping that one word stands for; anything else as it is."""
        return {"push": value, "reply": value} if value in get_args(Precision) else value

    @property
    def rounds(self) -> bool:
        """True if anything is rounded."""
        return self.push != "float32" or self.reply != "float32"

    def __str__(self) -> str:
        return self.push if self.push == self.reply else f"push {self.push}, reply {self.reply}"


def vector_bytes(precision: Precision, num_params: int, num_stats: int) -> int:
    """Bytes of a vector on its way; statistics always travel in float32.

    Args:
        precision: Of the parameters, or of their gradient.
        num_params: Elements up to the statistics.
        num_stats: Elements of the statistics.

    Example:
        >>> vector_bytes("bf16", 1000, 10)
        2088
    """
    return stats_begin(precision, num_params) + FLOAT_BYTES * num_stats


def message_bytes(precision: Precision, num_params: int, num_stats: int) -> int:
    """Bytes of a message with its header; arguments as of ``vector_bytes``."""
    return HEADER_BYTES + vector_bytes(precision, num_params, num_stats)


def stats_begin(precision: Precision, num_params: int) -> int:
    """Bytes before the statistics, which begin on a cache line behind numbers of 16 bits."""
    size = _BYTES[precision] * num_params
    return size if precision == "float32" else -(-size // _LINE_BYTES) * _LINE_BYTES

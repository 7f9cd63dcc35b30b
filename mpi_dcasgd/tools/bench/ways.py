"""Ways for vectors to travel that are measured: those of a job, of which messages come in two."""

from __future__ import annotations

from typing import Literal, get_args

from mpi_dcasgd.server.precision import WireSettings

Way = Literal["messages", "chunks", "bf16", "fp16", "shared"]
"""Messages in one piece, in chunks, or of 16 bits a number; or memory that is shared."""

WAYS: tuple[Way, ...] = get_args(Way)


def wire_of(way: Way) -> WireSettings:
    """Return what numbers are rounded to on their way.

    Example:
        >>> str(wire_of("bf16")), str(wire_of("chunks"))
        ('bf16', 'float32')
    """
    return WireSettings(push=way, reply=way) if way in ("bf16", "fp16") else WireSettings()

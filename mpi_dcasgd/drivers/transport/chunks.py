"""Chunks in which long vectors travel where they are messages."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

ChunkSize = Annotated[float, Field(ge=0, allow_inf_nan=False)] | Literal["auto"]
"""Megabytes of a chunk, 0 for vectors in one piece, or ``auto``."""

AUTO_MB = 4.0
"""Length of a chunk that ``auto`` chooses: many in a vector of 100 MB, and each some milliseconds
long at 10 Gbit/s. From 1 to 4 MB were alike over 1 Gbit/s and 300 Mbit/s, longer ones slower."""
AUTO_FROM_MB = 16.0
"""Length of a vector from which ``auto`` makes chunks: some of them at least."""
MOST = 256
"""Chunks of a vector at most; of longer ones the chunks are longer."""
GRAIN = 16
"""Elements of which chunks are multiples: a cache line, as for the parts of a vector."""

_ELEMENT_BYTES = 4  # float32


def cuts_of(choice: ChunkSize, num_params: int) -> tuple[int, ...]:
    """Return the elements at which all chunks of a vector but the first begin.

    All ranks come to the same. Statistics behind the parameters are in the last chunk.

    Args:
        choice: The job's ``chunk_mb``.
        num_params: Parameters at the beginning of the vector.

    Example:
        >>> cuts_of(0.0002, 128)
        (48, 96)
        >>> cuts_of("auto", 270_000), len(cuts_of("auto", 25_600_000))
        ((), 25)
    """
    if choice == "auto":
        choice = AUTO_MB if num_params * _ELEMENT_BYTES >= AUTO_FROM_MB * 1e6 else 0.0
    if not choice:
        return ()
    wanted = max(choice * 1e6 / _ELEMENT_BYTES, 1.0)
    count = min(-(-num_params // max(1, int(wanted))), MOST)
    length = -(-num_params // (count * GRAIN)) * GRAIN  # of equal chunks
    return tuple(range(length, num_params, length))

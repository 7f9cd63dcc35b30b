"""The size of a message's header, and the number of tickets that fit into it.

Apart from ``message``, so that a job can be checked without loading PyTorch.
"""

from __future__ import annotations

HEADER_WORDS = 16
HEADER_BYTES = 8 * HEADER_WORDS

MAX_GRANTS = HEADER_WORDS - 3
"""Tickets that one reply has room for."""

MAX_AHEAD = MAX_GRANTS - 1
"""Tickets beyond the current one that one reply has room for."""

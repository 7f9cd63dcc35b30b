"""Ways for vectors to travel that are measured: those of a job, of which messages come in two."""

from __future__ import annotations

from typing import Literal, get_args

Way = Literal["messages", "chunks", "shared"]
"""Messages in one piece, messages in chunks, or memory that is shared."""

WAYS: tuple[Way, ...] = get_args(Way)

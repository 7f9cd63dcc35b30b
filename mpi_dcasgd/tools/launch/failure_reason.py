"""Find the reason of a failed run in the output of its ranks and its mpirun."""

from __future__ import annotations

import re
from collections.abc import Sequence

LAST_LINES = 5
MOST_LINES = 12

_RULE = re.compile(r"-{40,}\s*$")  # Open MPI prints one above and one below what it has to say
_ERROR = re.compile(r"(rank \d+ on \S+: )?[\w.]*(Error|Exception|Interrupt)\b")


def last_words(text: str) -> str:
    """The last error in an output with the lines that belong to it, or else the last lines.

    What mpirun itself says about a rank that ended is left out while a rank has said more.
    """
    lines = [line.rstrip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    own = _without_banners(lines) or lines
    errors = [number for number, line in enumerate(own) if _ERROR.match(line)]
    if not errors:
        return "\n".join(own[-LAST_LINES:]) or "no output"
    start = errors[-1]
    end = start + 1
    while end < len(own) and own[end].startswith("  "):
        end += 1
    return "\n".join(own[start : min(end, start + MOST_LINES)])


def _without_banners(lines: Sequence[str]) -> list[str]:
    kept: list[str] = []
    within = False
    for line in lines:
        if _RULE.match(line):
            within = not within
        elif not within:
            kept.append(line)
    return kept

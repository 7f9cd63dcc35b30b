"""Strips of time, one a rank, as SVG that needs no matplotlib: small, and sharp at any width."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

COLOURS = {
    "compute": "#009E73",
    "data": "#56B4E9",
    "wait": "#d0d0d0",
    "push": "#E69F00",
    "reply": "#CC79A7",
    "apply": "#0072B2",
    "step": "#009E73",
}
"""Colour of each kind of slice, told apart with any colour vision."""

WORDS = {
    "push": "push under way, or queued",
    "reply": "reply under way, or held back",
    "apply": "server applies",
    "step": "from push to push",
}
"""Kinds of which the name alone does not say enough."""

_WIDTH = 1000
_ROW = 10
_NARROWEST = 1.2
_LABELS_PX, _WIDTH_PX, _ROW_PX, _BELOW_PX = 80, 900, 20, 50

STYLE = """
.strips { display: grid; grid-template-columns: auto 1fr; column-gap: .5rem; max-width: 60rem;
          font-size: 13px; margin: .3rem 0 1.5rem; }
.strips .rank { line-height: 20px; white-space: nowrap; text-align: right; }
.strips svg { display: block; width: 100%; }
.strips .from-to { display: flex; justify-content: space-between; border-top: 1px solid #888; }
.strips .legend { grid-column: 1 / -1; }
.strips .legend span { white-space: nowrap; margin-right: 1rem; }
.strips i { display: inline-block; width: .8em; height: .8em; margin-right: .3em; }
"""
"""How a page shows them."""


@dataclass(frozen=True, slots=True)
class Bar:
    """Activity of one rank from a moment to another; ``kind`` is one of ``COLOURS``."""

    kind: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Strips:
    """Time of several ranks, one under the other.

    Attributes:
        rows: Name of each rank, and what it did.
        span: First and last moment.
        unit: Of both, in a word.
        words: Names of kinds that differ from the usual ones.
    """

    rows: Sequence[tuple[str, Sequence[Bar]]]
    span: tuple[float, float]
    unit: str
    words: tuple[tuple[str, str], ...] = ()

    def to_html(self, text: str) -> str:
        """As a part of a page, as wide as there is room.

        Args:
            text: What it shows, for who cannot see it.
        """
        names = "".join(f'<div class="rank">{html.escape(name)}</div>' for name, _ in self.rows)
        height = _ROW_PX * len(self.rows)
        legend = "".join(
            f'<span><i style="background: {COLOURS[kind]}"></i>{html.escape(word)}</span>'
            for kind, word in self._legend()
        )
        ends = "".join(f"<span>{html.escape(end)}</span>" for end in self._ends())
        return (
            f'<div class="strips" role="img" aria-label="{html.escape(text, quote=True)}">'
            f"<div>{names}</div><div>{self._bars(f'height: {height}px')}"
            f'<div class="from-to">{ends}</div></div><div class="legend">{legend}</div></div>'
        )

    def to_svg(self, text: str) -> str:
        """As a file of its own."""
        height = _ROW_PX * len(self.rows)
        right = _LABELS_PX + _WIDTH_PX
        size = f'width="{_WIDTH_PX}" height="{height}"'
        out = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{right + 10}" '
            f'height="{height + _BELOW_PX}" font-family="sans-serif" font-size="13">',
            f"<title>{html.escape(text)}</title>",
            '<rect width="100%" height="100%" fill="#ffffff"/>',
        ]
        for number, (name, _) in enumerate(self.rows):
            place = f'x="{_LABELS_PX - 8}" y="{_ROW_PX * number + 15}"'
            out.append(f'<text {place} text-anchor="end">{html.escape(name)}</text>')
        out.append(f'<svg x="{_LABELS_PX}" {size} {self._bars("").removeprefix("<svg ")}')
        first, last = map(html.escape, self._ends())
        out.append(f'<text x="{_LABELS_PX}" y="{height + 16}">{first}</text>')
        out.append(f'<text x="{right}" y="{height + 16}" text-anchor="end">{last}</text>')
        left = _LABELS_PX
        for kind, word in self._legend():
            out.append(f'<rect x="{left}" y="{height + 29}" {_swatch(kind)}/>')
            out.append(f'<text x="{left + 16}" y="{height + 40}">{html.escape(word)}</text>')
            left += 32 + 7 * len(word)
        return "\n".join([*out, "</svg>\n"])

    def _bars(self, style: str) -> str:
        inner = "".join(
            f'<path fill="{colour}" d="{drawn}"/>'
            for kind, colour in COLOURS.items()
            if (drawn := "".join(self._of_kind(kind)))
        )
        told = f' style="{style}"' if style else ""
        return (
            f'<svg viewBox="0 0 {_WIDTH} {_ROW * len(self.rows)}" preserveAspectRatio="none"'
            f"{told}>{inner}</svg>"
        )

    def _of_kind(self, kind: str) -> Iterable[str]:
        begin, end = self.span
        scale = _WIDTH / (end - begin)
        # A wait is grey, and what is known of it lies on it, thinner.
        top, height = (3.5, 3) if kind in ("push", "reply") else (1, 8)
        for row, (_, bars) in enumerate(self.rows):
            for bar in bars:
                if bar.kind != kind:
                    continue
                left = scale * (max(bar.start, begin) - begin)
                width = scale * (min(bar.end, end) - begin) - left
                # A gap as wide as a hair tells one step from the next.
                width = max(_NARROWEST, width - (1.2 if kind in ("compute", "step") else 0))
                yield f"M{left:.4g} {_ROW * row + top:g}h{width:.3g}v{height}h-{width:.3g}z"

    def _legend(self) -> list[tuple[str, str]]:
        there = {bar.kind for _, bars in self.rows for bar in bars}
        words = WORDS | dict(self.words)
        return [(kind, words.get(kind, kind)) for kind in COLOURS if kind in there]

    def _ends(self) -> tuple[str, str]:
        begin, end = self.span
        digits = max(0, 2 - math.floor(math.log10(end - begin)))
        return f"{begin:,.{digits}f} {self.unit}", f"{end:,.{digits}f} {self.unit}"


def _swatch(kind: str) -> str:
    return f'width="12" height="12" fill="{COLOURS[kind]}"'

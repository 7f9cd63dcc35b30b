"""A report as a list of blocks, and what becomes of it: Markdown, one HTML file, terminal text."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mpi_dcasgd.reporting.strips import STYLE as STRIPS

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
       max-width: 72rem; margin: 1.5rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 1.5rem; font-size: 1.3rem; }
p, ul { max-width: 60rem; }
details { border-top: 1px solid #ddd; padding: .4rem 0; }
summary { cursor: pointer; font-weight: 600; }
/* A shadow at an edge where a table goes on: the table brings the white that covers it. */
.scroll { overflow-x: auto; background:
  linear-gradient(to right, #fff 50%, transparent) left / 2.5rem 100% no-repeat local,
  linear-gradient(to left, #fff 50%, transparent) right / 2.5rem 100% no-repeat local,
  linear-gradient(to right, #0004, transparent) left / .7rem 100% no-repeat scroll,
  linear-gradient(to left, #0004, transparent) right / .7rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #ddd;
         white-space: nowrap; overflow-wrap: normal; }
th { border-bottom: 2px solid #888; white-space: normal; vertical-align: bottom; }
th.left, td.left { text-align: left; white-space: normal; overflow-wrap: break-word; }
table:not(.narrow) th.left:first-child { min-width: 11rem; }
table.narrow th, table.narrow td { white-space: normal; }
img { max-width: 100%; height: auto; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr));
        gap: 1rem; align-items: start; margin: 1rem 0; }
.pair p { margin: 0; } .pair img { max-width: min(100%, 40rem); }
@media (max-width: 40rem) { body { font-size: 15px; }
  ul { padding-left: 1.2rem; } th, td { padding: .3rem .35rem; }
  table.narrow { font-size: 13px; width: 100%; } }
@media print { body { max-width: none; margin: 0; padding: 0; font-size: 10pt; }
  .scroll { overflow: visible; background: none; }
  table, table.narrow { font-size: 7pt; width: 100%; } tr, img, svg { break-inside: avoid; }
  th, td, table.narrow th, table.narrow td { white-space: normal; padding: .15rem .2rem; }
  table:not(.narrow) th.left:first-child { min-width: 0; }
  th.left, td.left { overflow-wrap: anywhere; } }
"""


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading; ``level`` 1 is the title."""

    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A few sentences."""

    text: str


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list of sentences; with ``lead`` a page has the first sentence of each in bold."""

    items: tuple[str, ...]
    lead: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text, one row under ``header`` after the other.

    Attributes:
        header: One per column.
        rows: As many cells each.
        left: Columns of words; all others hold numbers and end at the same edge.
        narrow: True if cells may be broken into lines, so that a phone has room for the table.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: frozenset[int] = frozenset({0})
    narrow: bool = False

    def to_text(self) -> str:
        """Aligned for a terminal."""
        lines = [self.header, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.header))]
        out = [self._line(line, widths) for line in lines]
        out.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join(out)

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        placed = [
            cell.ljust(width) if column in self.left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(placed).rstrip()


@dataclass(frozen=True, slots=True)
class Image:
    """A picture that lies beside the report; ``text`` says what it shows."""

    path: Path
    text: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Pictures side by side where there is room."""

    images: tuple[Image, ...]


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture that a page has as a part of itself, and Markdown as a file beside it.

    Attributes:
        path: The file.
        text: What it shows.
        markup: The same picture in HTML.
    """

    path: Path
    text: str
    markup: str


@dataclass(frozen=True, slots=True)
class Folded:
    """A section that a page shows when it is asked for. Markdown has it open under a heading."""

    heading: str
    blocks: tuple[Block, ...]


Block = Heading | Paragraph | Bullets | Table | Image | Pair | Drawing | Folded


def fold(blocks: Sequence[Block]) -> list[Block]:
    """Fold sections away, each under its heading; what stands before the first remains."""
    found: list[Block] = []
    for block in blocks:
        if isinstance(block, Heading):
            found.append(Folded(block.text, ()))
        elif found and isinstance(last := found[-1], Folded):
            found[-1] = Folded(last.heading, (*last.blocks, block))
        else:
            found.append(block)
    return found


def to_markdown(blocks: Sequence[Block]) -> str:
    """The blocks as Markdown; pictures are linked by their file names."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def to_html(blocks: Sequence[Block]) -> str:
    """The blocks as one HTML file that needs no other: pictures are within it."""
    title = next((block.text for block in blocks if isinstance(block, Heading)), "Report")
    body = "\n".join(_html(block) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}{STRIPS}</style>\n{body}\n</html>\n"
    )


def _markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.text}"
    if isinstance(block, Paragraph):
        return block.text
    if isinstance(block, Bullets):
        return "\n".join(f"- {item}" for item in block.items)
    if isinstance(block, (Image, Drawing)):
        return f"![{block.text}]({block.path.name})"
    if isinstance(block, Pair):
        return "\n\n".join(map(_markdown, block.images))
    if isinstance(block, Folded):
        return "\n\n".join(map(_markdown, (Heading(2, block.heading), *block.blocks)))
    rule = [":---" if column in block.left else "---:" for column in range(len(block.header))]
    lines = [block.header, rule, *block.rows]
    # A bar within a cell would begin a new one.
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines
    )


def _html(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{html.escape(block.text)}</h{block.level}>"
    if isinstance(block, Paragraph):
        return f"<p>{html.escape(block.text)}</p>"
    if isinstance(block, Bullets):
        items = "".join(f"<li>{_item(item, lead=block.lead)}</li>" for item in block.items)
        return f"<ul>{items}</ul>"
    if isinstance(block, Image):
        data = base64.b64encode(block.path.read_bytes()).decode("ascii")
        text = html.escape(block.text, quote=True)
        return f'<p><img alt="{text}" src="data:image/png;base64,{data}"></p>'
    if isinstance(block, Drawing):
        return block.markup
    if isinstance(block, Pair):
        return f'<div class="pair">{"".join(map(_html, block.images))}</div>'
    if isinstance(block, Folded):
        inner = "\n".join(map(_html, block.blocks))
        return f"<details><summary>{html.escape(block.heading)}</summary>\n{inner}\n</details>"
    head = _html_row("th", block.header, block.left)
    rows = "\n".join(_html_row("td", row, block.left) for row in block.rows)
    kind = ' class="narrow"' if block.narrow else ""
    return f'<div class="scroll"><table{kind}>\n{head}\n{rows}\n</table></div>'


def _item(text: str, *, lead: bool) -> str:
    first, stop, rest = text.partition(". ")
    if not lead:
        return html.escape(text)
    return f"<strong>{html.escape(first + stop.strip())}</strong> {html.escape(rest)}".rstrip()


def _breakable(text: str) -> str:
    """Text of which a long word, such as a setting or a path, may be broken where it has parts."""
    return re.sub(r"(?<=\w[=./_])(?=\w)", "<wbr>", html.escape(text))


def _unbroken(text: str) -> str:
    """Text in which a unit stays with its number, and ± with the spread behind it.

    A line may break before the ±: a table of means and spreads would not fit a phone otherwise.
    """
    space = "\N{NO-BREAK SPACE}"
    return html.escape(text).replace("± ", f"±{space}").replace(" %", f"{space}%")


def _html_row(tag: str, cells: Sequence[str], left: frozenset[int]) -> str:
    kinds = [' class="left"' if column in left else "" for column in range(len(cells))]
    inner = "".join(
        f"<{tag}{kind}>{_breakable(cell) if kind else _unbroken(cell)}</{tag}>"
        for kind, cell in zip(kinds, cells, strict=True)
    )
    return f"<tr>{inner}</tr>"

"""A study's page: tables in their places in Markdown that is written by hand, and plots beside it.

The place of a table in a page is between ``<!-- table NAME -->`` and ``<!-- end -->``. Everything
else is prose, which is left as it is.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mpi_dcasgd.errors import UserError
from mpi_dcasgd.record.atomic import write_atomic
from mpi_dcasgd.reporting.style import STYLE
from mpi_dcasgd.tools.results.store import Results, read_results
from mpi_dcasgd.tools.results.studies import Page, study

MADE = "made"
"""Name of the table that every page has: command, hardware, versions, date, time."""

_PLACE = re.compile(r"(<!-- table ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def build(name: str, folder: Path) -> list[Path]:
    """Build a study's page and plots from its numbers.

    Args:
        name: The study's.
        folder: Has ``NAME.json``, and ``NAME.md`` with the prose; without one, and for a short
            form, a page of nothing but tables and plots is written.

    Returns:
        The files that were written.

    Raises:
        UserError: There are no numbers, the page lacks a table's place or has one for no table, or
            matplotlib is missing.
    """
    results = read_results(folder / f"{name}.json")
    page = study(name).page(results.rows)
    file = folder / f"{name}.md"
    # A short form has no prose, and its page may be that of an earlier version, with other tables.
    written = results.head["form"] == "full" and file.exists()
    prose = file.read_text() if written else bare(name, page)
    write_atomic(file, filled(prose, tables_of(results, page), str(file)).encode())
    return [file, *(_draw(page, name, folder))]


def tables_of(results: Results, page: Page) -> dict[str, str]:
    """All tables of a page by name, that of how they were made among them."""
    return {**page.tables, MADE: made(results)}


def filled(prose: str, tables: dict[str, str], where: str) -> str:
    """Put tables into their places.

    Args:
        prose: A page, with or without tables in their places.
        tables: By name.
        where: The page, for messages.

    Raises:
        UserError: A table has no place, or a place no table.

    Example:
        >>> print(filled("<!-- table t -->" + chr(10) + "<!-- end -->", {"t": "| a |"}, "page.md"))
        <!-- table t -->
        | a |
        <!-- end -->
    """
    places = [match[2] for match in _PLACE.finditer(prose)]
    missing, unknown = sorted(tables.keys() - set(places)), sorted(set(places) - tables.keys())
    if missing or unknown:
        said = [f"add <!-- table {name} --> and <!-- end -->" for name in missing]
        said += [f"there is no table {name}; there are {', '.join(tables)}" for name in unknown]
        raise UserError(f"{where}: {'; '.join(said)}")
    return _PLACE.sub(lambda match: f"{match[1]}{tables[match[2]]}\n{match[3]}", prose)


def bare(name: str, page: Page) -> str:
    """A page without prose: the question, a place for each table, and the plots."""
    question = (study(name).__doc__ or name).partition("\n")[0]
    parts = [f"# {question}"]
    parts += [f"<!-- table {table} -->\n<!-- end -->" for table in (*page.tables, MADE)]
    parts += [f"![{plot}]({name}-{plot}.svg)" for plot in page.plots]
    return "\n\n".join(parts) + "\n"


def made(results: Results) -> str:
    """The table of how numbers came about."""
    head = results.head
    form = "" if head["form"] == "full" else " (the short form)"
    minutes = head["seconds"] / 60
    versions = ", ".join(f"{package} {version}" for package, version in head["versions"].items())
    rows = [
        ("command", f"`{head['command']}`{form}"),
        ("hardware", head["hardware"]),
        ("versions", versions),
        ("made", f"{head['date']}, {len(results.rows)} runs in {minutes:.1f} minutes"),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {what} | {text} |" for what, text in rows)])


def _draw(page: Page, name: str, folder: Path) -> list[Path]:
    if not page.plots:
        return []
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(
            f"no plots: matplotlib cannot be imported ({error}); pip install 'mpi-dcasgd[plots]'"
        ) from error
    # The same numbers give the same file: no date, and names that do not change.
    look: Any = STYLE | {"svg.hashsalt": name}
    files = []
    for plot, draw in page.plots.items():
        with matplotlib.rc_context(look):
            figure = Figure(layout="constrained")
            draw(figure)
            files.append(folder / f"{name}-{plot}.svg")
            figure.savefig(files[-1], metadata={"Date": None})
    return files

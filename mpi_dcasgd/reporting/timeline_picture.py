"""Timelines as a picture: one bar a rank, a few seconds wide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mpi_dcasgd.errors import UserError
from mpi_dcasgd.reporting.plots import PlotsUnavailableError
from mpi_dcasgd.reporting.strips import COLOURS, WORDS
from mpi_dcasgd.reporting.style import STYLE
from mpi_dcasgd.reporting.timeline import SERVER, Timeline

_DPI = 150
_MOST = 20_000


def draw(timeline: Timeline, path: Path) -> None:
    """Draw a timeline into a PNG, SVG or PDF file, by the name's ending.

    Raises:
        PlotsUnavailableError: There is no matplotlib.
        UserError: There is too much to draw.
        RunFolderError: The file cannot be written.
    """
    if len(timeline.slices) > _MOST:
        raise UserError(
            f"{path}: {len(timeline.slices):,} slices are too many for a picture (at most "
            f"{_MOST:,}); choose a few seconds with --from and --to"
        )
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotsUnavailableError(
            f"no picture: matplotlib cannot be imported ({error}); "
            "pip install 'mpi-dcasgd[plots]' brings it; a timeline in JSON needs none"
        ) from error
    from mpi_dcasgd.record.atomic import atomic_file

    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        rows = timeline.num_workers + 1
        figure = Figure(figsize=(11, 1.6 + 0.32 * min(rows, 80)), layout="constrained")
        axes = figure.add_subplot()
        _bars(axes, timeline)
        _labels(axes, timeline)
        figure.legend(loc="outside lower center", ncols=3, fontsize=9)
        figure.suptitle(f"{timeline.name}: what each rank did", x=0.01, ha="left", fontsize=12)
        with atomic_file(path) as file:
            figure.savefig(file, dpi=_DPI, format=path.suffix[1:])


def _bars(axes: Any, timeline: Timeline) -> None:
    # A wait is grey, and what is known of it lies on it, thinner.
    unit = _unit(timeline)[0]
    for kind, colour in COLOURS.items():
        found = [one for one in timeline.slices if one.kind == kind]
        if not found:
            continue
        starts = [unit * one.start_s for one in found]
        widths = [unit * (one.end_s - one.start_s) for one in found]
        height = 0.35 if kind in ("push", "reply") else 0.8
        axes.barh(
            [one.worker + 1 for one in found],
            widths,
            left=starts,
            height=height,
            color=colour,
            edgecolor="white" if kind in ("compute", "step") else "none",
            linewidth=0.4,
            label=WORDS.get(kind, kind),
            zorder=4 if kind in ("push", "reply") else 3,
        )


def _labels(axes: Any, timeline: Timeline) -> None:
    unit, word = _unit(timeline)
    rows = timeline.num_workers + 1
    step = -(-rows // 40)
    places = range(0, rows, step)
    axes.set_yticks(places, [f"worker {row - 1}" if row else "server" for row in places])
    axes.set_ylim(rows - 0.4, SERVER + 0.4)
    begin, end = timeline.span
    axes.set_xlim(unit * begin, unit * end)
    axes.set_xlabel(f"{word} since training began")


def _unit(timeline: Timeline) -> tuple[float, str]:
    begin, end = timeline.span
    return (1e3, "milliseconds") if end - begin < 0.5 else (1.0, "seconds")

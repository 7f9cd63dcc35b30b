"""The pictures of a report. matplotlib is imported when the first one is drawn, not before."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mpi_dcasgd.errors import UserError
from mpi_dcasgd.reporting.closer_plots import closer_pictures
from mpi_dcasgd.reporting.curves import draw_curves, plotted_metrics
from mpi_dcasgd.reporting.groups import Group, twins
from mpi_dcasgd.reporting.scaling import draw_scaling, scales
from mpi_dcasgd.reporting.style import STYLE, Colours, against_workers, by_variant, title

_DPI = 150


VS_TIME = "_vs_time.png"
TO_TARGET = "time_to_target.png"
"""Ends of the names of the pictures on the first screen."""


class PlotsUnavailableError(UserError):
    """matplotlib is not installed."""


def draw_all(
    groups: Sequence[Group],
    setting: str,
    out: Path,
    prefix: str = "",
    *,
    rivals: Sequence[Group] = (),
    target: tuple[float, str] | None = None,
) -> list[tuple[Path, str]]:
    """Draw every picture that the groups have something to show in.

    Args:
        groups: Of one task, in the order of the table.
        setting: What all runs have in common, for the titles.
        out: The folder for the PNG files.
        prefix: Beginning of the files' names.
        rivals: The groups whose seconds can be compared.
        target: Value of the primary metric that times are taken to, and the same in words.

    Returns:
        Path and description of each picture.

    Raises:
        PlotsUnavailableError: There is no matplotlib.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotsUnavailableError(
            f"no plots: matplotlib cannot be imported ({error});"
            " pip install 'mpi-dcasgd[plots]' brings it, and the report can be made again"
        ) from error
    drawn: list[tuple[Path, str]] = []

    def draw(name: str, text: str, picture: Callable[[Any], None]) -> None:
        # A figure without pyplot draws into memory: it asks for no display and shares no state.
        figure = Figure(layout="constrained")
        picture(figure)
        figure.savefig(out / name, dpi=_DPI)
        drawn.append((out / name, text))

    with matplotlib.rc_context(STYLE):
        curved = [group for group in groups if group.curve()]
        for metric in plotted_metrics(curved):
            name = prefix + re.sub(r"[^\w.+-]+", "_", metric)
            draw(
                f"{name}_vs_epochs.png",
                f"Test {metric} against epochs",
                partial(draw_curves, groups=curved, setting=setting, metric=metric),
            )
            if metric == curved[0].measures.primary:
                draw(
                    f"{name}{VS_TIME}",
                    f"Test {metric} against seconds of training",
                    partial(
                        draw_curves, groups=curved, setting=setting, metric=metric, in_epochs=False
                    ),
                )
        if target is not None and scales(rivals, target[0]):
            draw(
                f"{prefix}{TO_TARGET}",
                f"Seconds to {target[1]} against workers",
                lambda figure: draw_scaling(figure, rivals, setting, *target),
            )
        stale = [group for group in groups if max(group.histogram, default=0) > 0]
        if stale:
            draw(
                f"{prefix}staleness.png",
                "How stale gradients were, as shares of all applied",
                lambda figure: _staleness(figure, stale, setting),
            )
        if any(len(of) > 1 for of in by_variant(groups).values()):
            draw(
                f"{prefix}throughput.png",
                "Samples a second against workers",
                lambda figure: _throughput(figure, groups, setting),
            )
        for name, text, picture in closer_pictures(groups, setting):
            draw(f"{prefix}{name}", text, picture)
    return drawn


def _staleness(figure: Any, groups: Sequence[Group], setting: str) -> None:
    colours = Colours(groups)
    foretold = {id(real): simulated for real, simulated in twins(groups)}
    drawn_over = {id(simulated) for simulated in foretold.values()}
    groups = [group for group in groups if id(group) not in drawn_over]
    variants = len({colours.name(group) for group in groups})
    # Complete grids have a row for each number of workers, since that is how groups are ordered.
    in_rows = variants < len(groups) and variants <= 4
    columns = variants if in_rows else min(3, len(groups))
    rows = math.ceil(len(groups) / columns)
    figure.set_size_inches(1.4 + 3.2 * columns, 1.3 + 2.3 * rows)
    axes = figure.subplots(rows, columns, sharey="row", squeeze=False)
    panels = list(axes.flat)
    for axis, group in zip(panels, groups, strict=False):
        twin = foretold.get(id(group))
        both = [group.histogram, *([twin.histogram] if twin else [])]
        shown = max(_quantile(histogram, 0.999) for histogram in both)
        width = max(1, math.ceil((shown + 1) / 60))
        colour = colours.of(group)["color"]
        shares = _shares(both[0], shown, width)
        places = [width * place + (width - 1) / 2 for place in range(len(shares))]
        axis.bar(places, shares, width=0.85 * width, color=colour)
        if twin:
            edges = [width * place - 0.5 for place in range(len(shares) + 1)]
            axis.stairs(_shares(both[1], shown, width), edges, color="#333333", linewidth=1.2)
        axis.axvline(_mean(both[0]), color="#333333", linewidth=1, linestyle="--")
        axis.set_title(group.label)
        text = [f"mean {_mean(both[0]):.2f}", f"largest {max(both[0])}"]
        if twin:
            text[0] += f", simulated {_mean(both[1]):.2f}"
            text[1] += f", simulated {max(both[1])}"
        axis.annotate(
            "\n".join(text),
            (0.97, 0.95),
            xycoords="axes fraction",
            ha="right",
            va="top",
            fontsize=10,
            bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1},
        )
        axis.grid(axis="x", visible=False)
        _percent_and_whole(axis)
    for axis in panels[len(groups) :]:
        axis.set_visible(False)
    figure.supxlabel("staleness: updates applied between pull and push", fontsize=11)
    figure.supylabel("share of gradients", fontsize=11)
    note = "bars: measured, outline: simulated; dashed: mean" if foretold else "dashed: mean"
    title(figure, f"Staleness of applied gradients: {setting}\n{note}")


def _shares(histogram: Mapping[int, int], shown: int, width: int) -> list[float]:
    """Per cent of the gradients in each bin, up to the staleness that is shown."""
    whole = sum(histogram.values())
    shares = [0.0] * (shown // width + 1)
    for staleness, count in histogram.items():
        if staleness <= shown:
            shares[staleness // width] += 100 * count / whole
    return shares


def _mean(histogram: Mapping[int, int]) -> float:
    return sum(staleness * n for staleness, n in histogram.items()) / sum(histogram.values())


def _percent_and_whole(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))


def _throughput(figure: Any, groups: Sequence[Group], setting: str) -> None:

    colours = Colours(groups)
    figure.set_size_inches(8, 4.5)
    axis = figure.subplots()
    sizes = sorted({group.num_workers for group in groups})
    for name, members in by_variant(groups).items():
        known = [(g, rate) for g in members if (rate := g.stat("samples_per_s")) is not None]
        if members[0].sequential and known:
            alone = known[0][1].mean
            axis.plot(sizes, [alone * size for size in sizes], color="#999999", linewidth=1)
            axis.annotate(
                f"{name} × workers",
                (sizes[-1], alone * sizes[-1]),
                xytext=(-4, 2),
                textcoords="offset points",
                ha="right",
                va="bottom",
                color="#666666",
                fontsize=10,
            )
        axis.errorbar(
            [group.num_workers for group, _ in known],
            [rate.mean for _, rate in known],
            yerr=[rate.std or 0.0 for _, rate in known],
            **colours.of(members[0]),
            capsize=3,
            label=name,
        )
    against_workers(axis, sizes, "samples a second")
    title(figure, f"Throughput: {setting}")
    figure.legend(loc="outside right center")


def _quantile(histogram: Mapping[int, int], share: float) -> int:
    """The smallest staleness that at least ``share`` of the gradients do not exceed."""
    whole, so_far = sum(histogram.values()), 0
    for staleness in sorted(histogram):
        so_far += histogram[staleness]
        if so_far >= share * whole:
            return staleness
    return 0

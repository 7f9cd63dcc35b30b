"""The pictures of a report. matplotlib is imported when the first one is drawn, not before."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mpi_dcasgd.errors import UserError
from mpi_dcasgd.reporting.groups import Group, twins
from mpi_dcasgd.reporting.style import STYLE, Colours, by_variant

_DPI = 150


class PlotsUnavailableError(UserError):
    """matplotlib is not installed."""


def draw_all(groups: Sequence[Group], setting: str, out: Path) -> list[tuple[Path, str]]:
    """Draw every picture that the groups have something to show in.

    Args:
        groups: In the order of the table.
        setting: What all runs have in common, for the titles.
        out: The folder for the PNG files.

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
        if curved:
            draw(
                "error_vs_epochs.png",
                "Test error against epochs",
                lambda figure: _error_curves(figure, curved, setting, "epochs"),
            )
            draw(
                "error_vs_time.png",
                "Test error against seconds of training",
                lambda figure: _error_curves(figure, curved, setting, "wall-clock"),
            )
        stale = [group for group in groups if max(group.histogram, default=0) > 0]
        if stale:
            draw(
                "staleness.png",
                "How stale gradients were, as shares of all applied",
                lambda figure: _staleness(figure, stale, setting),
            )
        if any(len(of) > 1 for of in by_variant(groups).values()):
            draw(
                "throughput.png",
                "Samples a second against workers",
                lambda figure: _throughput(figure, groups, setting),
            )
    return drawn


def _error_curves(figure: Any, groups: Sequence[Group], setting: str, against: str) -> None:
    in_epochs = against == "epochs"
    sizes = sorted({g.num_workers for g in groups if not g.sequential}) or [1]
    colours = Colours(groups)
    columns = min(2, len(sizes))
    rows = math.ceil(len(sizes) / columns)
    figure.set_size_inches(3.6 + 4.2 * columns, 0.9 + 3.6 * rows)
    axes = figure.subplots(rows, columns, sharex=in_epochs, sharey=True, squeeze=False)
    errors = [100 * point.error for group in groups for point in group.curve()]
    panels = list(axes.flat)
    handles: dict[str, Any] = {}
    cut = False
    for axis, size in zip(panels, sizes, strict=False):
        for group in groups:
            if not group.sequential and group.num_workers != size:
                continue
            line = _curve(axis, group, colours, in_epochs)
            handles.setdefault(colours.name(group), line)
        if len(sizes) > 1:
            axis.set_title(_workers(size))
    # Only now, since the panels share an axis, which has to have room for all of them.
    for axis, size in zip(panels, sizes, strict=False):
        _error_axis(axis, errors, in_epochs)
        if not in_epochs:
            cut |= _cut_reference(axis, groups, size)
    for axis in panels[len(sizes) :]:
        axis.set_visible(False)
    if in_epochs:
        figure.supxlabel("epochs (passes of all workers together)", fontsize=11)
    else:
        figure.supxlabel("seconds since training began, mean over runs", fontsize=11)
    figure.supylabel("test error", fontsize=11)
    title = f"Test error against {against}: {setting}"
    if len(sizes) == 1 and not all(group.sequential for group in groups):
        title += f", {_workers(sizes[0])}"
    note = "; sequential run cut off" if cut else ""
    _title(figure, f"{title}\n{_band_note(groups)}{note}")
    names = {colours.name(group): group.curve()[-1].error for group in groups}
    if len(sizes) > 1:
        ordered, labels = list(names), list(names)
    else:
        # In the order in which the lines end, so that the eye finds them.
        ordered = sorted(names, key=lambda name: -names[name])
        labels = [f"{name}  {_percent(names[name])}" for name in ordered]
    figure.legend([handles[name] for name in ordered], labels, loc="outside right center")


def _curve(axis: Any, group: Group, colours: Colours, in_epochs: bool) -> Any:
    curve = group.curve()
    x = [point.epoch if in_epochs else point.time_s for point in curve]
    style = colours.of(group)
    step = max(1, math.ceil(len(curve) / 10))
    [line] = axis.plot(
        x,
        [100 * point.error for point in curve],
        **style,
        markevery=step,
        zorder=2.5 if group.sequential else 3,
    )
    if len(group.runs) > 1:
        axis.fill_between(
            x,
            [100 * point.low for point in curve],
            [100 * point.high for point in curve],
            color=style["color"],
            alpha=0.15,
            linewidth=0,
        )
    return line


def _error_axis(axis: Any, errors: Sequence[float], in_epochs: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axis.xaxis.set_major_locator(MaxNLocator(integer=in_epochs, nbins=8, steps=[1, 2, 5, 10]))
    axis.set_xlim(left=0)
    positive = [error for error in errors if error > 0]
    # A log axis where most of the curves would lie in the lowest tenth of a linear one.
    if positive and len(positive) == len(errors) and max(errors) > 8 * min(errors):
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.yaxis.set_minor_locator(NullLocator())
    else:
        axis.set_ylim(bottom=0)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))


def _cut_reference(axis: Any, groups: Sequence[Group], size: int) -> bool:
    """End a time axis at twice the slowest of the workers' curves; whether that cut a curve."""
    ends = [(group, group.curve()[-1].time_s) for group in groups]
    shown = [end for g, end in ends if not g.sequential and g.num_workers == size]
    alone = [end for g, end in ends if g.sequential]
    if not shown or not alone or max(alone) <= 3 * max(shown):
        return False
    # Beside a sequential run that takes ten times as long there would be nothing to see.
    axis.set_xlim(0, 2 * max(shown))
    return True


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
    _title(figure, f"Staleness of applied gradients: {setting}\n{note}")


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
    from matplotlib.ticker import LogLocator

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
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.minorticks_off()
    axis.set_xlabel("workers")
    axis.set_ylabel("samples a second")
    _title(figure, f"Throughput: {setting}")
    figure.legend(loc="outside right center")


def _band_note(groups: Sequence[Group]) -> str:
    counts = sorted({len(group.runs) for group in groups})
    if counts == [1]:
        return "one run each"
    runs = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"lines: mean of {runs} runs; bands: lowest to highest run"


def _percent(error: float) -> str:
    return f"{100 * error:.{1 if error >= 0.01 else 2}f} %"


def _title(figure: Any, text: str) -> None:
    # To the left: in the middle it would run into the legend.
    figure.suptitle(text, x=0.01, ha="left", fontsize=12)


def _workers(count: int) -> str:
    return f"{count} worker{'' if count == 1 else 's'}"


def _quantile(histogram: Mapping[int, int], share: float) -> int:
    """The smallest staleness that at least ``share`` of the gradients do not exceed."""
    whole, so_far = sum(histogram.values()), 0
    for staleness in sorted(histogram):
        so_far += histogram[staleness]
        if so_far >= share * whole:
            return staleness
    return 0

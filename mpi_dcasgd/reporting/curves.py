"""Curves of a metric against epochs or seconds, one panel for each number of workers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mpi_dcasgd.learning.measures import PERCENT, Measures
from mpi_dcasgd.reporting.groups import Group
from mpi_dcasgd.reporting.style import FIRST_SCREEN_WIDTH, Colours, legend_below, title
from mpi_dcasgd.wording import counted

_MOST_ROWS = 3


def plotted_metrics(groups: Sequence[Group]) -> list[str]:
    """The metrics that curves are drawn of: the primary one first, and no loss beside it."""
    if not groups:
        return []
    primary = groups[0].measures.primary
    names = {name: None for g in groups for run in g.runs for p in run.points for name in p.metrics}
    return [primary, *(name for name in names if name not in (primary, "loss"))]


def draw_curves(
    figure: Any, groups: Sequence[Group], setting: str, metric: str, in_epochs: bool = True
) -> None:
    """Draw a metric of the test split.

    Args:
        figure: Empty.
        groups: Those that have a curve.
        setting: What all runs have in common.
        metric: Its name.
        in_epochs: Against epochs, or else against seconds.
    """
    measures = groups[0].measures
    sizes = sorted({g.num_workers for g in groups if not g.sequential}) or [1]
    colours = Colours(groups)
    # Against seconds is on the first screen, where a phone has room for one panel beside another.
    columns = min(2, len(sizes)) if in_epochs or len(sizes) > _MOST_ROWS else 1
    rows = math.ceil(len(sizes) / columns)
    if in_epochs:
        figure.set_size_inches(3.6 + 4.2 * columns, 0.9 + 3.6 * rows)
    else:
        figure.set_size_inches(FIRST_SCREEN_WIDTH, 1.9 + (2.6 if rows == 1 else 2.1) * rows)
    axes = figure.subplots(rows, columns, sharex=in_epochs, sharey=True, squeeze=False)
    scale = measures.scale(metric)
    values = [scale * point.value for group in groups for point in group.curve(metric)]
    panels = list(axes.flat)
    handles: dict[str, Any] = {}
    cut = False
    for axis, size in zip(panels, sizes, strict=False):
        for group in groups:
            if not group.sequential and group.num_workers != size:
                continue
            line = _curve(axis, group, colours, metric, in_epochs)
            handles.setdefault(colours.name(group), line)
        if len(sizes) > 1:
            axis.set_title(counted(size, "worker"))
    # Only now, since the panels share an axis, which has to have room for all of them.
    for axis, size in zip(panels, sizes, strict=False):
        _value_axis(axis, values, measures, metric, in_epochs)
        if not in_epochs:
            cut |= _cut_reference(axis, groups, size)
    for axis in panels[len(sizes) :]:
        axis.set_visible(False)
    if in_epochs:
        figure.supxlabel("epochs (passes of all workers together)", fontsize=11)
    else:
        # A label of the whole figure would lie on the legend.
        for axis in panels[: len(sizes)][-columns:]:
            axis.set_xlabel("seconds since training began, mean over runs")
    figure.supylabel(f"test {metric}", fontsize=11)
    against = "epochs" if in_epochs else "wall-clock"
    text = f"Test {metric} against {against}: {setting}"
    if len(sizes) == 1 and not all(group.sequential for group in groups):
        text += f", {counted(sizes[0], 'worker')}"
    note = "; sequential run cut off" if cut else ""
    title(figure, f"{text}\n{_band_note(groups)}{note}")
    names = {colours.name(group): group.curve(metric)[-1].value for group in groups}
    if len(sizes) > 1:
        ordered, labels = list(names), list(names)
    else:
        # In the order in which the lines end, so that the eye finds them.
        ordered = sorted(names, key=lambda name: (math.isnan(names[name]), -names[name]))
        labels = [f"{name}  {_short(measures, metric, names[name])}" for name in ordered]
    lines = [handles[name] for name in ordered]
    if in_epochs:
        figure.legend(lines, labels, loc="outside right center")
    else:
        legend_below(figure, lines, labels)


def _curve(axis: Any, group: Group, colours: Colours, metric: str, in_epochs: bool) -> Any:
    curve, scale = group.curve(metric), group.measures.scale(metric)
    x = [point.epoch if in_epochs else point.time_s for point in curve]
    style = colours.of(group)
    step = max(1, math.ceil(len(curve) / 10))
    [line] = axis.plot(
        x,
        [scale * point.value for point in curve],
        **style,
        markevery=step,
        zorder=2.5 if group.sequential else 3,
    )
    if len(group.runs) > 1:
        axis.fill_between(
            x,
            [scale * point.low for point in curve],
            [scale * point.high for point in curve],
            color=style["color"],
            alpha=0.15,
            linewidth=0,
        )
    return line


def _value_axis(
    axis: Any, values: Sequence[float], measures: Measures, metric: str, in_epochs: bool
) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axis.xaxis.set_major_locator(MaxNLocator(integer=in_epochs, nbins=8, steps=[1, 2, 5, 10]))
    axis.set_xlim(left=0)
    finite = [value for value in values if math.isfinite(value)]
    least, most = min(finite, default=0.0), max(finite, default=0.0)
    # A log axis where most of the curves would lie in the lowest tenth of a linear one.
    if least > 0 and most > 8 * least:
        axis.set_yscale("log")
        between = (1.0, 2.0, 5.0) if most < 1000 * least else (1.0,)
        axis.yaxis.set_major_locator(LogLocator(subs=between))
        axis.yaxis.set_minor_locator(NullLocator())
    elif least >= 0 and _falls_to_0(measures, metric, least, most):
        axis.set_ylim(0, max(axis.get_ylim()[1], 1.05 * most) or None)
    unit = measures.units.get(metric, "")
    end = f" {unit}" if unit else ""
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{end}"))


def _falls_to_0(measures: Measures, metric: str, least: float, most: float) -> bool:
    """Return whether an axis from 0 on shows the curves well: not where they end far from it."""
    if metric == measures.primary and measures.higher_is_better:
        return False
    return measures.units.get(metric) == PERCENT or 2 * least < most


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


def _band_note(groups: Sequence[Group]) -> str:
    counts = sorted({len(group.runs) for group in groups})
    if counts == [1]:
        return "one run each"
    runs = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"lines: mean of {runs} runs; bands: lowest to highest run"


def _short(measures: Measures, metric: str, value: float) -> str:
    return measures.shown(metric, value, digits=1 if value >= 0.01 else 2)

"""Pictures of the section "Looking closer": staleness over time and by worker, gaps and steps."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from mpi_dcasgd.record.closeup import Closeup
from mpi_dcasgd.reporting.closer import NAME, Course, Numbers, looked_at, median_of, points
from mpi_dcasgd.reporting.groups import Group
from mpi_dcasgd.reporting.style import Colours, title

_FEWEST = 10
"""Points of a line of what was looked at, where there are so many: however few they are."""

Picture = tuple[str, str, Callable[[Any], None]]


def closer_pictures(groups: Sequence[Group], setting: str) -> Iterator[Picture]:
    """Name, description and drawing of each picture that there is something to show in.

    Args:
        groups: Of one task, in the order of the table.
        setting: What all runs have in common, for the titles.
    """
    stale = [group for group in groups if _courses(group)]
    if stale:
        yield (
            f"{NAME}staleness_over_time.png",
            "Staleness against seconds of training",
            partial(_over_time, groups=stale, colours=Colours(groups), setting=setting),
        )
        yield (
            f"{NAME}staleness_by_worker.png",
            "Staleness of each worker's gradients",
            partial(_by_worker, groups=stale, colours=Colours(groups), setting=setting),
        )
    measured = [group for group in groups if looked_at(group)]
    if measured:
        yield (
            f"{NAME}gap_and_steps.png",
            "Gap, effective learning rate and compensation against epochs",
            partial(_gap_and_steps, groups=measured, colours=Colours(groups), setting=setting),
        )


def _courses(group: Group) -> list[Course]:
    return [run.closer.course for run in group.runs if run.closer.course is not None]


def _panels(figure: Any, groups: Sequence[Group]) -> Iterator[tuple[Any, Group]]:
    """A panel for each group, three in a row."""
    columns = min(3, len(groups))
    rows = math.ceil(len(groups) / columns)
    figure.set_size_inches(1.4 + 3.2 * columns, 1.3 + 2.3 * rows)
    axes = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for axis in axes[len(groups) :]:
        axis.set_visible(False)
    for axis, group in zip(axes, groups, strict=False):
        axis.set_title(_wrapped(group))
        yield axis, group


def _wrapped(group: Group) -> str:
    """The label in lines that fit above a panel and beside a picture."""
    return textwrap.fill(group.label, 30)


def _over_time(figure: Any, groups: Sequence[Group], colours: Colours, setting: str) -> None:
    for axis, group in _panels(figure, groups):
        colour = colours.of(group)["color"]
        for course in _courses(group):
            known = np.isfinite(course.mean)
            times_s = course.times_s[known]
            bounds = course.low[known], course.high[known]
            axis.fill_between(times_s, *bounds, color=colour, alpha=0.15, linewidth=0)
            axis.plot(times_s, course.mean[known], color=colour, linewidth=1.5)
        axis.set_xlim(left=0)
    _from_0(figure)
    figure.supxlabel("seconds since training began", fontsize=11)
    figure.supylabel("staleness", fontsize=11)
    title(
        figure,
        f"Staleness over time: {setting}\n"
        "lines: mean of each run; bands: 10 to 90 % of its gradients",
    )


def _from_0(figure: Any) -> None:
    """Have the axis that the panels share begin at 0, now that all of them are drawn."""
    for axis in figure.axes:
        axis.set_ylim(0, None)


def _by_worker(figure: Any, groups: Sequence[Group], colours: Colours, setting: str) -> None:
    from matplotlib.ticker import MaxNLocator

    for axis, group in _panels(figure, groups):
        colour, courses = colours.of(group)["color"], _courses(group)
        for number, course in enumerate(courses):
            shift = 0.5 * ((number + 0.5) / len(courses) - 0.5)
            for worker, (mean, low, high, most) in course.workers.items():
                place = worker + shift
                axis.plot([place, place], [low, high], color=colour, linewidth=2, alpha=0.5)
                axis.plot([place], [mean], "o", color=colour, markersize=4)
                axis.plot([place], [most], "_", color="#666666", markersize=6)
        axis.grid(axis="x", visible=False)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    _from_0(figure)
    figure.supxlabel("worker", fontsize=11)
    figure.supylabel("staleness", fontsize=11)
    title(
        figure,
        f"Staleness by worker: {setting}\n"
        "dots: mean in each run; bars: 10 to 90 % of its gradients; dashes: largest",
    )


def _gap_and_steps(figure: Any, groups: Sequence[Group], colours: Colours, setting: str) -> None:
    measures: list[tuple[str, Callable[[Closeup], Numbers]]] = [
        ("gap", lambda seen: seen.gap),
        ("effective lr", lambda seen: seen.effective_lr),
        ("compensation, % of gradient", lambda seen: 100 * seen.compensation_share),
    ]
    drawn = [
        (name, of)
        for name, of in measures
        if any(median_of(of(seen)) is not None for group in groups for seen in looked_at(group))
    ]
    figure.set_size_inches(9.5, 0.9 + 2.2 * len(drawn))
    axes = figure.subplots(len(drawn), 1, sharex=True, squeeze=False)
    handles = {}
    for axis, (name, of) in zip(axes.flat, drawn, strict=True):
        for group in groups:
            of_group = colours.of(group)
            style = {key: of_group[key] for key in ("color", "linestyle")} | {"linewidth": 1.5}
            for seen in looked_at(group):
                epochs, values = _binned(seen.epoch, of(seen), group.num_workers)
                if len(epochs):
                    (handles[_wrapped(group)],) = axis.plot(epochs, values, **style)
        axis.set_ylabel(name)
        axis.set_ylim(0, 1.1 * axis.dataLim.y1 or None)
        axis.set_xlim(left=0)
    axes[-1, 0].set_xlabel("epochs (passes of all workers together)")
    title(figure, f"Gap and steps: {setting}\na line for each run that was looked at: medians")
    figure.legend(list(handles.values()), list(handles), loc="outside right center")


def _binned(places: Numbers, values: Numbers, workers: int) -> tuple[Numbers, Numbers]:
    """Medians over stretches of equally many pushes, of what is a number."""
    known = np.isfinite(values)
    places, values = places[known], values[known]
    if not len(values):
        return places, values
    parts = max(points(len(values), workers), min(_FEWEST, len(values)))
    found = [
        (float(at.mean()), float(np.median(value)))
        for at, value in zip(
            np.array_split(places, parts), np.array_split(values, parts), strict=True
        )
    ]
    return np.array(found).T[0], np.array(found).T[1]

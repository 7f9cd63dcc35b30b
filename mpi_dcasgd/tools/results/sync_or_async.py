"""When does asynchronous training win, measured with real processes, and does the simulator know?

Four workers on one host under mpirun, each algorithm with the learning rate and the key of its own
that were best in the simulator: workers all alike, one 2 and 4 times slower, one that pauses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from mpi_dcasgd.tools.bench.spread import table
from mpi_dcasgd.tools.results.kept import Kept
from mpi_dcasgd.tools.results.means import Mean, chosen
from mpi_dcasgd.tools.results.runs import compared
from mpi_dcasgd.tools.results.studies import Page, Row

CLUSTERS = {
    "equal": "all alike",
    "slow-2": "one 2 times slower",
    "slow-4": "one 4 times slower",
    "pauses": "one pauses a third of the time",
}
TARGET = 0.04
"""Test error, the study files' target."""

BASELINE = "ssgd"
_EVALUATIONS = 100  # all of them
_SERVERS = 1
_COLOURS = {
    "ssgd": "#0072B2",
    "asgd": "#D55E00",
    "dcasgd-a": "#CC79A7",
    "ringmaster": "#009E73",
    "rennala": "#E69F00",
}


def run(kept: Kept, short: bool) -> list[Row]:
    """Make the runs that are missing; see ``StudyModule``."""
    clusters = ["slow-4"] if short else list(CLUSTERS)
    changes = None
    if short:
        changes = {
            "algorithms": ["ssgd", "asgd"],
            "seeds": [0],
            "tune": None,
            "set": {"epochs": 6, "schedule.milestones": [4], "lr": 0.2},
        }
    rows = []
    for cluster in clusters:
        name = f"sync-or-async-{cluster}"
        found = compared(kept, name, ("error",), changes=changes, points=_EVALUATIONS)
        rows += [{"cluster": cluster, **row} for row in found]
    return rows


def page(rows: Sequence[Row]) -> Page:
    """Make tables and plots; see ``StudyModule``."""
    return Page(
        {"times": _times(rows), "predicted": _predicted(rows)},
        {"times": partial(_draw_times, rows)},
    )


def reached_s(row: Row) -> float | None:
    """Return the seconds after which a run's test error was first at the target or below it.

    Example:
        >>> reached_s({"curve": [[90, 1.2, 0.05], [180, 2.4, 0.04]]})
        2.4
        >>> reached_s({"curve": [[90, 1.2, 0.05]]}) is None
        True
    """
    return next((time_s for _, time_s, error in row["curve"] if _good(error)), None)


def _good(error: float | None) -> bool:
    return error is not None and error <= TARGET


def _simulated(row: Row) -> bool:
    return str(row["run"]).endswith("-simulated")


def _ranks(row: Row) -> int:
    """Ranks of a run, the server's among them."""
    workers: int = row["workers"]
    return workers + (0 if row["algorithm"] == BASELINE else _SERVERS)


def _cells(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Cluster and algorithm of all runs, each pair once, in order."""
    return list(dict.fromkeys((row["cluster"], row["algorithm"]) for row in rows))


def _of(rows: Sequence[Row], cluster: str, algorithm: str, *, simulated: bool) -> list[Row]:
    mine = chosen(rows, cluster=cluster, algorithm=algorithm)
    return [row for row in mine if _simulated(row) is simulated]


def _times(rows: Sequence[Row]) -> str:
    lines = []
    for cluster, algorithm in _cells(rows):
        real = _of(rows, cluster, algorithm, simulated=False)
        if not real:
            continue
        at = [(row, reached_s(row)) for row in real]
        reached = [(row, time_s) for row, time_s in at if time_s is not None]
        lines.append(
            [
                CLUSTERS[cluster],
                f"`{algorithm}`",
                f"{real[0]['lr']:g}",
                _mean([time_s for _, time_s in reached], "{:.1f}".format),
                _mean(_speedups(rows, cluster, reached), "{:.2f}".format),
                _mean([time_s * _ranks(row) for row, time_s in reached], "{:.0f}".format),
                _mean([row["time_s"] for row in real], "{:.1f}".format),
                _mean([100 * row["error"] for row in real], "{:.1f}".format),
                f"{len(reached)} of {len(real)}",
            ]
        )
    heads = ["workers", "algorithm", "lr", f"s to {TARGET:.0%}", "speed-up", "rank-seconds"]
    heads += ["s to the end", "test error, %", "reached by"]
    return table(heads, lines, words=2)


def _speedups(
    rows: Sequence[Row], cluster: str, reached: Sequence[tuple[Row, float]]
) -> list[float]:
    """Times of the synchronous runs over these, seed by seed."""
    base = {row["seed"]: reached_s(row) for row in _of(rows, cluster, BASELINE, simulated=False)}
    pairs = [(base.get(row["seed"]), time_s) for row, time_s in reached]
    return [its / time_s for its, time_s in pairs if its is not None]


def _predicted(rows: Sequence[Row]) -> str:
    lines = []
    for cluster, algorithm in _cells(rows):
        real = _of(rows, cluster, algorithm, simulated=False)
        told = _of(rows, cluster, algorithm, simulated=True)
        if not real or not told:
            continue
        measured = Mean.of([row["time_s"] for row in real])
        predicted = Mean.of([row["time_s"] for row in told])
        lines.append(
            [
                CLUSTERS[cluster],
                f"`{algorithm}`",
                measured.show("{:.2f}".format),
                predicted.show("{:.2f}".format),
                f"{100 * (predicted.mean / measured.mean - 1):+.1f} %",
                _mean([row["staleness_mean"] for row in real], "{:.2f}".format),
                _mean([row["staleness_mean"] for row in told], "{:.2f}".format),
                _both(real, told),
            ]
        )
    heads = ["workers", "algorithm", "s to the end, measured", "predicted", "off by"]
    heads += ["staleness, measured", "predicted", f"s to {TARGET:.0%}, measured and predicted"]
    return table(heads, lines, words=2)


def _both(real: Sequence[Row], told: Sequence[Row]) -> str:
    shown = []
    for its in (real, told):
        times = [time_s for row in its if (time_s := reached_s(row)) is not None]
        shown.append(_mean(times, "{:.1f}".format) or "not reached")
    return ", ".join(shown)


def _mean(values: Sequence[float], form: Callable[[float], str]) -> str:
    return Mean.of(values).show(form) if values else ""


def _draw_times(rows: Sequence[Row], figure: Any) -> None:
    clusters = list(dict.fromkeys(row["cluster"] for row in rows))
    figure.set_size_inches(9.5, 3.8)
    axes = figure.subplots()
    algorithms = [name for name in _COLOURS if chosen(rows, algorithm=name)]
    width = 0.8 / len(algorithms)
    for number, algorithm in enumerate(algorithms):
        for simulated in (False, True):
            points = [
                (place + (number - (len(algorithms) - 1) / 2) * width, Mean.of(times))
                for place, cluster in enumerate(clusters)
                if (times := _reached(_of(rows, cluster, algorithm, simulated=simulated)))
            ]
            places, means = [x for x, _ in points], [mean for _, mean in points]
            if simulated:
                axes.plot(
                    places,
                    [mean.mean for mean in means],
                    "D",
                    color="black",
                    markersize=4,
                    label="predicted" if number == 0 else None,
                )
            else:
                axes.bar(
                    places,
                    [mean.mean for mean in means],
                    width * 0.92,
                    yerr=[mean.half or 0 for mean in means],
                    ecolor="#555555",
                    color=_COLOURS[algorithm],
                    label=algorithm,
                )
    axes.set_xticks(range(len(clusters)), [CLUSTERS[cluster] for cluster in clusters])
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"seconds to {TARGET:.0%} test error")
    axes.legend(ncols=2, fontsize=9)


def _reached(rows: Sequence[Row]) -> list[float]:
    return [time_s for row in rows if (time_s := reached_s(row)) is not None]

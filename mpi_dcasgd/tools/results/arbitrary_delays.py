"""Does asynchronous SGD stand arbitrary delays, as Mishchenko et al. (2022) say?

The published problem, least squares with 400 unknowns and 40 workers, at the published rates, with
equal workers, exponential step times and unequal workers; then with one worker up to 1,000 times
slower; then over MPI, the recorded order replayed under other rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mpi_dcasgd
from mpi_dcasgd.shipped import shipped
from mpi_dcasgd.tools.bench.spread import table
from mpi_dcasgd.tools.results.arbitrary_delays_plots import START, draw_gaps, draw_slow
from mpi_dcasgd.tools.results.delay_limit import largest_rate
from mpi_dcasgd.tools.results.kept import Kept
from mpi_dcasgd.tools.results.means import Mean, chosen, short
from mpi_dcasgd.tools.results.runs import compared, finite, row_of
from mpi_dcasgd.tools.results.studies import Page, Row

CLUSTERS = {
    "equal": "all but equal",
    "exponential": "exponential step times",
    "unequal": "unequal workers",
}
FACTORS = (1, 10, 100, 1000)
"""Factors by which one of 40 equal workers is slower."""

_JOB = "jobs/least_squares.yaml"
_METRICS = ("f_gap",)
_POINTS = 20
_CURVATURE = 0.2501
"""The greatest of the problem."""
_REPLAYED: dict[str, dict[str, Any]] = {
    "adaptive-asgd": {},
    "ringmaster": {"rule.admission.threshold": 8},
}
"""Rules under which the orders of real runs are replayed, with what they need."""


def run(kept: Kept, short: bool) -> list[Row]:
    """Make the runs that are missing; see ``StudyModule``."""
    rows: list[Row] = []
    changes = {"seeds": [1], "set": {"epochs": 80, "evaluate_every": 8}} if short else None
    for cluster in CLUSTERS:
        name = f"arbitrary-delays-{cluster}"
        found = compared(kept, name, _METRICS, changes=changes, points=_POINTS, more=_limit)
        rows += [{"part": "clusters", "cluster": cluster, **row} for row in found]
    return [*rows, *_slow_worker(kept, short=short), *_over_mpi(kept, short=short)]


def _limit(made: mpi_dcasgd.Run) -> Row:
    """The largest stable rate, were staleness drawn anew for each gradient from the run's own."""
    staleness = {int(tau): n for tau, n in made.summary["staleness_histogram"].items()}
    workers = made.summary["num_workers"]
    if made.job.algorithm == "adaptive-asgd":
        rate = largest_rate(staleness, lambda tau: workers / max(workers, tau))
    else:
        rate = largest_rate(staleness)
    return {"limit": finite(rate / _CURVATURE)}


def _slow_worker(kept: Kept, *, short: bool) -> list[Row]:
    """One of 40 equal workers is slow: runs, and the time of synchronous steps."""
    rows = []
    for factor in FACTORS:
        its = {"part": "slow", "factor": factor}
        for algorithm in ("asgd", "adaptive-asgd"):
            for seed in (1,) if short else (1, 2, 3, 4, 5):
                key = {**its, "algorithm": algorithm, "seed": seed}
                epochs = 40 if short else 120
                rows.append(kept.row(key, partial(_simulated, kept, key, epochs)))
        rows.append(kept.row({**its, "algorithm": "ssgd"}, partial(_timed, factor)))
    return rows


def _cluster(factor: int) -> dict[str, Any]:
    return {"workers": 40, "delays": {"model": "gamma", "machine_cv": 0}, "slow": {0: factor}}


def _simulated(kept: Kept, key: Row, epochs: int) -> Row:
    name = "{algorithm}-{factor}-s{seed}".format(**key)
    made = mpi_dcasgd.simulate(
        shipped(_JOB),
        run_dir=kept.folder / "slow-worker" / name,
        overwrite=True,
        algorithm=key["algorithm"],
        seed=key["seed"],
        lr=0.14,
        epochs=epochs,
        evaluate_every=epochs // 20,
        **_cluster(key["factor"]),
    )
    return row_of(made, _METRICS, points=_POINTS)


def _timed(factor: int) -> Row:
    steps = 100
    timing = mpi_dcasgd.simulate_timing(
        shipped(_JOB), algorithm="ssgd", updates=steps, delay_seed=1, **_cluster(factor)
    )
    return {"step_s": round(timing.time_s / steps, 4)}


def _over_mpi(kept: Kept, *, short: bool) -> list[Row]:
    """Real runs with injected delays, and their orders under other rules."""
    name = "arbitrary-delays-mpi"
    changes = {"seeds": [1], "set": {"epochs": 20, "evaluate_every": 5}} if short else None
    rows = []
    for row in compared(kept, name, _METRICS, changes=changes):
        rows.append({"part": "mpi", **row})
        folder = kept.folder / name / row["run"]
        for algorithm in ("asgd", *_REPLAYED):
            key = {"part": "replays", "algorithm": algorithm, "seed": row["seed"]}
            rows.append(kept.row(key, partial(_replayed, kept, folder, algorithm)))
    return rows


def _replayed(kept: Kept, folder: Path, algorithm: str) -> Row:
    if algorithm == "asgd":  # as it was recorded
        return {"identical": mpi_dcasgd.replay(folder).identical}
    made = mpi_dcasgd.replay(
        folder,
        kept.folder / "replays" / f"{folder.name}-{algorithm}",
        overwrite=True,
        algorithm=algorithm,
        **_REPLAYED[algorithm],
    )
    return row_of(made, _METRICS)


def page(rows: Sequence[Row]) -> Page:
    """Make tables and plots; see ``StudyModule``."""
    return Page(
        {"gaps": _gaps(rows), "limits": _limits(rows), "slow": _slow(rows), "mpi": _mpi(rows)},
        {
            "gaps": partial(draw_gaps, chosen(rows, part="clusters"), CLUSTERS),
            "slow": partial(draw_slow, rows, FACTORS),
        },
    )


_COLUMNS: dict[str, Callable[[float], str]] = {
    "staleness_mean": "{:.1f}".format,
    "staleness_max": "{:.0f}".format,
    "time_s": "{:,.0f}".format,
}


def _gaps(rows: Sequence[Row]) -> str:
    lines = []
    arms = dict.fromkeys(
        (row["cluster"], row["algorithm"], row["lr"]) for row in chosen(rows, part="clusters")
    )
    for cluster, algorithm, lr in arms:
        mine = chosen(rows, part="clusters", cluster=cluster, algorithm=algorithm, lr=lr)
        numbers = (_mean(mine, key, form) for key, form in _COLUMNS.items())
        seeds = str(len(mine))
        lines.append(
            [CLUSTERS[cluster], f"`{algorithm}`", f"{lr:g}", _final(mine), *numbers, seeds]
        )
    heads = ["workers", "algorithm", "lr", "f - f*", "staleness", "largest", "virtual time"]
    return table([*heads, "seeds"], lines, words=2)


def _limits(rows: Sequence[Row]) -> str:
    """Every run with unequal workers: whether its rate is below its own limit, and its end."""
    lines = []
    for row in chosen(rows, part="clusters", cluster="unequal"):
        below = "below" if row["lr"] < row["limit"] else "above"
        end = [row["seed"], f"`{row['algorithm']}`", f"{row['limit']:.2f}", below, _final([row])]
        lines.append([str(cell) for cell in end])
    return table(["cluster", "algorithm", "limit", "0.43 is", "f - f*"], lines)


def _slow(rows: Sequence[Row]) -> str:
    lines = []
    for factor in FACTORS:
        its = chosen(rows, part="slow", factor=factor)
        (step,) = (row["step_s"] for row in chosen(its, algorithm="ssgd"))
        asgd, adaptive = (chosen(its, algorithm=name) for name in ("asgd", "adaptive-asgd"))
        lines.append(
            [
                f"{factor:,}",
                _final(asgd),
                _final(adaptive),
                _mean(asgd, "staleness_max", "{:,.0f}".format),
                Mean.of([_pace_s(row) for row in asgd]).show("{:,.1f}".format),
                f"{1000 / 40 * step:,.1f}",
                str(len(asgd)),
            ]
        )
    heads = ["times slower", "`asgd`", "`adaptive-asgd`", "largest staleness"]
    return table([*heads, "s for 1,000 gradients", "the same of `ssgd`", "seeds"], lines)


def _pace_s(row: Row) -> float:
    """Virtual seconds for 1,000 gradients, without the end, when all wait for the slow worker."""
    updates, time_s, _ = row["curve"][-3]
    return 1000 * float(time_s) / float(updates)


def _mpi(rows: Sequence[Row]) -> str:
    real = chosen(rows, part="mpi")
    lines = [["`asgd`", "as it was", *_told(real)]]
    same = [row["identical"] for row in chosen(rows, part="replays", algorithm="asgd")]
    lines.append(["`asgd`", "replayed", f"{sum(same)} of {len(same)} identical", "", "", ""])
    for algorithm in _REPLAYED:
        lines.append(
            [
                f"`{algorithm}`",
                "in the recorded order",
                *_told(chosen(rows, part="replays", algorithm=algorithm)),
            ]
        )
    heads = ["algorithm", "run", "f - f*", "largest staleness", "dropped", "seeds"]
    return table(heads, lines, words=2)


def _told(rows: Sequence[Row]) -> list[str]:
    most = _mean(rows, "staleness_max", "{:,.0f}".format)
    return [_final(rows), most, _mean(rows, "dropped", "{:,.0f}".format), str(len(rows))]


def _final(rows: Sequence[Row]) -> str:
    """The mean f - f* of the runs that converged, and how many ended above where they began."""
    gaps = [row["f_gap"] for row in rows]
    known = [gap for gap in gaps if gap is not None and gap < START]
    if not known:
        return "diverges"
    shown = Mean.of(known).show(short)
    return shown if len(known) == len(gaps) else f"{shown}; {len(gaps) - len(known)} diverge"


def _mean(rows: Sequence[Row], key: str, form: Callable[[float], str]) -> str:
    values = [row[key] for row in rows if row.get(key) is not None]
    return Mean.of(values).show(form) if values else ""

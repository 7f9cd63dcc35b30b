"""What do ResNet-50 on ImageNet and 16 workers need?

Memory and time by plan, from stated step times; and, where there is a SLURM, the same job on a
small folder of made-up images the whole way, through time limits and requeues.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import mpi_dcasgd
from mpi_dcasgd.shipped import shipped
from mpi_dcasgd.tools.bench.spread import table
from mpi_dcasgd.tools.results.imagenet_slurm import way, way_table
from mpi_dcasgd.tools.results.kept import Kept
from mpi_dcasgd.tools.results.means import chosen
from mpi_dcasgd.tools.results.runs import finite, printed
from mpi_dcasgd.tools.results.studies import Page, Row

_JOB = "jobs/imagenet_resnet50.yaml"
_IMAGES, _EPOCHS = 1_281_167, 120
_SYNTHETIC = {
    "name": "synthetic",
    "num_train": _IMAGES,
    "num_test": 50_000,
    "shape": [3, 224, 224],
    "num_classes": 1000,
}
_STEPS_S = {0.4: "80 images/s", 0.085: "375 images/s"}
"""Stated times of a worker's step of 32 images, and what its GPU computes then."""

_SERVER_S = 0.0116
"""An update of 25.6 M parameters: 86.1 a second (docs/performance.md)."""

_LINK = {"latency_s": 2e-5, "bytes_per_s": 12.5e9}  # 100 Gbit/s
_UPDATES = 4000
_UNITS = ("B", "KiB", "MiB", "GiB")


def run(kept: Kept, short: bool) -> list[Row]:
    """Make the runs that are missing; see ``StudyModule``."""
    rows = [kept.row({"part": "memory"}, _memory)]
    for step_s in _STEPS_S:
        for algorithm in ("ssgd", "dcasgd-a"):
            for workers in (16,) if short else (4, 8, 16, 32):
                key = {"part": "plan", "step_s": step_s, "algorithm": algorithm, "workers": workers}
                rows.append(kept.row(key, partial(_plan, key)))
    return [*rows, *way(kept, short=short)]


def page(rows: Sequence[Row]) -> Page:
    """Make tables and plots; see ``StudyModule``."""
    return Page(
        {
            "memory": _memory_table(chosen(rows, part="memory")),
            "plan": _plan_table(chosen(rows, part="plan")),
            "way": way_table(chosen(rows, part="way")),
        }
    )


def _memory() -> Row:
    data = f"data={json.dumps(_SYNTHETIC)}"
    told = printed("run", "-n", "17", str(shipped(_JOB)), "device=cuda", data, "--dry-run")
    return {"needs": needs_of(told)}


def needs_of(told: str) -> dict[str, dict[str, float]]:
    r"""Return bytes by process and thing, as ``--dry-run`` lists them, without data in memory.

    Example:
        >>> needs_of("memory for vectors:\n  server: 1.00 MiB\n    1.00 MiB  the weights\n")
        {'server': {'the weights': 1048576.0}}
    """
    needs: dict[str, dict[str, float]] = {}
    for line in told.partition("memory for")[2].splitlines():
        process = re.match(r"  (\w[^:]*): ", line)
        thing = re.match(r" +([\d.]+) (B|KiB|MiB|GiB)  (?!the data)(.*)", line)
        if process:
            needs[process[1]] = {}
        elif thing:
            size = float(thing[1]) * 1024 ** _UNITS.index(thing[2])
            needs[list(needs)[-1]][thing[3]] = size
    return needs


def _plan(key: dict[str, Any]) -> Row:
    timing = mpi_dcasgd.simulate_timing(
        shipped(_JOB),
        algorithm=key["algorithm"],
        data=_SYNTHETIC,
        workers=key["workers"],
        delays={"model": "gamma", "mean_s": key["step_s"]},
        network=_LINK,
        server={"service_s": _SERVER_S},
        updates=_UPDATES,
    )
    images = 32 * (key["workers"] if key["algorithm"] == "ssgd" else 1) * timing.updates_per_s
    return {
        "images_per_s": finite(images, 4),
        "hours": finite(_IMAGES * _EPOCHS / images / 3600, 4),
        "server_busy": finite(timing.server_busy, 3),
        "workers_busy": finite(sum(timing.workers_busy) / key["workers"], 3),
        "staleness_mean": finite(timing.staleness_mean, 3),
    }


def _memory_table(rows: Sequence[Row]) -> str:
    lines = [
        [who, what, f"{size / 2**20:,.0f} MiB"]
        for row in rows
        for who, items in row["needs"].items()
        for what, size in [*items.items(), ("in all", sum(items.values()))]
    ]
    return table(["who", "what", "memory"], lines, words=2)


def _plan_table(rows: Sequence[Row]) -> str:
    lines = [
        [
            f"{row['step_s']:g} s ({_STEPS_S[row['step_s']]})",
            f"`{row['algorithm']}`",
            str(row["workers"]),
            f"{row['images_per_s']:,.0f}",
            f"{row['hours']:.0f} h",
            "" if row["algorithm"] == "ssgd" else f"{100 * row['server_busy']:.0f} %",
            f"{100 * row['workers_busy']:.0f} %",
            f"{row['staleness_mean']:.1f}",
        ]
        for row in rows
    ]
    heads = ["step", "algorithm", "workers", "images/s", f"{_EPOCHS} epochs"]
    return table([*heads, "server busy", "workers busy", "staleness"], lines, words=2)

"""The rate at which a small network leaves a minimum, with delayed gradients."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import mpi_dcasgd
from mpi_dcasgd.errors import NonFiniteError
from mpi_dcasgd.shipped import shipped
from mpi_dcasgd.tools.results.edge_quadratic import predicted
from mpi_dcasgd.tools.results.runs import finite, printed, unstopped
from mpi_dcasgd.tools.results.studies import Row

_JOB = "jobs/studies/stabilitys-edge-minimum.yaml"
LEFT = 1.1
"""Training loss, over that of the minimum, from which on training has left it."""

_KICK = 0.1  # length of the step aside, of weights whose length is about 10
_UPDATES = 150  # times staleness + 1: what lies 3 % above the edge has grown by e^4 then


def left_at(
    folder: Path, staleness: int, tolerance: float, data: Mapping[str, Any] | None = None
) -> Row:
    """Find the least rate at which training leaves the minimum, by bisection.

    It begins a little beside the minimum, in a random direction, the same each time.

    Args:
        folder: Where the runs are made.
        staleness: Of every gradient but the first ones.
        tolerance: Ratio of a rate that leaves and one that stays, at the end.
        data: Settings of other data than the job's.
    """
    minimum = _minimum(folder, data)
    told = printed("sharpness", str(minimum.path), "--samples", "1000000", "--json")
    curvature = json.loads(told)["curvature"]
    # Of the last evaluation: progress is told by the clock, so its last loss is the machine's.
    least = minimum.summary["train_loss"]
    closed = predicted("none", staleness) / curvature
    stays, leaves, runs = closed / 1.5, closed * 2, 0
    while leaves / stays > tolerance:
        middle = math.sqrt(stays * leaves)
        gone = _goes_on(folder, staleness, middle, data)
        runs += 1
        if gone is None or _worst(gone) > LEFT * least:
            leaves = middle
        else:
            stays = middle
    return {
        "curvature": finite(curvature),
        "loss": finite(least),
        "leaves": finite(math.sqrt(stays * leaves)),
        "runs": runs,
    }


def _minimum(folder: Path, data: Mapping[str, Any] | None) -> mpi_dcasgd.Run:
    """Train without delay, once."""
    place = folder / _named("minimum", data)
    if not (place / "kicked.pt").exists():
        shutil.rmtree(place, ignore_errors=True)
        run = unstopped(mpi_dcasgd.train(shipped(_JOB), run_dir=place, **_others(data)))
        rng = torch.Generator().manual_seed(0)
        state = run.weights()
        kick = {name: torch.randn(value.shape, generator=rng) for name, value in state.items()}
        length = math.sqrt(sum(float(value.square().sum()) for value in kick.values()))
        kicked = {name: value + kick[name] * (_KICK / length) for name, value in state.items()}
        torch.save(kicked, place / "kicked.pt")
    return mpi_dcasgd.Run(place)


def _goes_on(
    folder: Path, staleness: int, lr: float, data: Mapping[str, Any] | None
) -> mpi_dcasgd.Run | None:
    """Train on from beside the minimum; None if it diverges."""
    updates = _UPDATES * (staleness + 1)
    place = folder / "gone-on"
    shutil.rmtree(place, ignore_errors=True)
    try:
        run = mpi_dcasgd.simulate(
            shipped(_JOB),
            algorithm="asgd",
            workers=staleness + 1,
            delays="constant",
            lr=lr,
            epochs=updates,
            evaluate_every=updates,
            fuse="blocks",
            run_dir=place,
            rule={"momentum": "none", "weight_decay": {"rate": 0.005}},
            start={"weights": str(folder / _named("minimum", data) / "kicked.pt")},
            **_others(data),
        )
        return unstopped(run)
    except NonFiniteError:
        return None


def _named(name: str, data: Mapping[str, Any] | None) -> str:
    return name if data is None else f"{name}-{data['name']}"


def _others(data: Mapping[str, Any] | None) -> dict[str, Any]:
    return {} if data is None else {"data": data}


def _worst(run: mpi_dcasgd.Run) -> float:
    told = run.metrics("progress")
    return max(float(event["train_loss"]) for event in told if event.get("train_loss"))

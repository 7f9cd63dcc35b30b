"""Several jobs in one MPI world: starting its ranks takes longer than training a small job."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PROGRAM = """
import json, sys
from mpi_dcasgd import train
job, runs = json.loads(sys.argv[1])
from mpi4py import MPI
for path, words in runs:
    run = train(job, MPI.COMM_WORLD, path, words=words)
    assert run.status == "completed", run.summary
"""


def train_in_one_world(
    mpirun: Callable[..., Any], ranks: int, job: str, runs: Mapping[Path, Sequence[str]]
) -> None:
    """Train a job once for each run folder, with the overrides that belong to it."""
    words = [(str(path), list(overrides)) for path, overrides in runs.items()]
    finished = mpirun(ranks, "-c", PROGRAM, json.dumps([job, words]), timeout=280)
    assert finished.status == 0, finished

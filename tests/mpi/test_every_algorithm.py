"""Every named algorithm trains digits with four workers through the real MPI driver.

Each of these runs is then computed again from its trace, and has to come out identical.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpi_dcasgd.rules.algorithms import ALGORITHMS
from mpi_dcasgd.runs.replay import replay

pytestmark = pytest.mark.mpi

# Rates at which the step is about that of asgd at 0.1: by the momentum, the delay, the minibatches.
LR = {
    "sa-asgd": 0.3,
    "stable-asgd": 0.4,
    "gap-aware": 0.02,
    "dana": 0.01,
    "dana-slim": 0.01,
    "dana-dc": 0.01,
    "rennala": 0.2,
}
# Those that tests/mpi/test_main_job.py does not run anyway.
OTHERS = sorted(
    name
    for name, algorithm in ALGORITHMS.items()
    if algorithm.mode == "asynchronous" and name not in ("asgd", "dcasgd-c", "dcasgd-a")
)


@pytest.mark.parametrize("algorithm", OTHERS)
def test_digits_are_learnt_and_the_run_is_replayed_identically(
    shared_world: Callable[..., Any], tmp_path: Path, algorithm: str
) -> None:
    run = tmp_path / algorithm
    words = [f"algorithm={algorithm}", f"lr={LR.get(algorithm, 0.1)}"]
    words += ["epochs=12", "schedule.milestones=[8]"]
    answers = shared_world("world_calls:train", "jobs/digits.yaml", [(str(run), words)])
    assert [answer.value for answer in answers] == 5 * [["completed"]]
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["algorithm"]) == ("completed", algorithm)
    assert summary["world_size"] == 5
    assert summary["test_error"] <= 0.04
    assert summary["samples"] == 12 * 1437
    if algorithm == "rennala":
        assert summary["staleness_max"] == 0
        assert summary["updates"] == pytest.approx(summary["samples"] / 16 / 4, rel=0.02)
    if algorithm == "ringmaster":
        assert summary["staleness_max"] <= 7
    found = replay(run)
    told = str(found)
    assert found.identical, told
    assert "identical: " in told
    assert f"{summary['updates']} updates" in told

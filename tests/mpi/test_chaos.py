"""A few runs of `mpi-dcasgd chaos`: real launches that faults strike, and that lose nothing.

`mpi-dcasgd chaos --runs 200 --both` is the long form; docs/faults.md has its figures.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from mpi_dcasgd.runs.chaos import chaos_runs
from mpi_dcasgd.runs.chaos_plan import prepare

pytestmark = [pytest.mark.mpi, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("kind", "seed", "fault_tolerant", "plan"),
    [
        pytest.param(
            *("kill-worker", 6, True, "kill-worker of rank 2 at 45 % of the tickets"),
            marks=pytest.mark.ulfm,
        ),
        ("kill-server", 2, False, "kill-server of rank 0 at 60 % of the tickets"),
    ],
)
def test_a_struck_run_loses_nothing(
    tmp_path: Path, kind: str, seed: int, fault_tolerant: bool, plan: str
) -> None:
    chaos = prepare(words=["epochs=4"], seed=seed, workers=2, kinds=[kind], modes=(fault_tolerant,))
    assert str(chaos.plan(0)) == plan
    (found,) = chaos_runs(chaos, only=[0], keep=tmp_path)
    assert found.failures == [], found
    assert found.struck == [f"start 1: {plan}"]
    assert len(found.named_s) == 1
    assert found.starts == (1 if fault_tolerant else 2)

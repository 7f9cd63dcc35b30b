"""Real runs that a signal stopped are computed again up to where they were stopped."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpi_dcasgd.runs.replay import replay

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(120)]


@pytest.mark.parametrize("algorithm", ["rennala", "ssp"])
def test_a_stopped_run_is_replayed_identically(
    shared_world: Callable[..., Any], tmp_path: Path, algorithm: str
) -> None:
    """One holds gradients that made no step yet, the other has workers that wait."""
    run, words = tmp_path / "run", [f"algorithm={algorithm}", "epochs=400"]
    first, *_ = shared_world("world_calls:interrupt", "jobs/digits.yaml", run, words)
    assert first.value == ["interrupted", signal.SIGUSR1]
    assert json.loads((run / "summary.json").read_text())["status"] == "interrupted"
    found = replay(run)
    assert found.identical, found
    assert "identical: " in str(found)

"""Real runs that a signal stopped are computed again up to where they were stopped."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from mpi_dcasgd.runs.replay import replay
from mpi_dcasgd.tools.launch import world as launch

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(120)]


@pytest.mark.parametrize("algorithm", ["rennala", "ssp"])
def test_a_stopped_run_is_replayed_identically(
    processes: Any, tmp_path: Path, algorithm: str
) -> None:
    """One holds gradients that made no step yet, the other has workers that wait."""
    run = tmp_path / "run"
    words = [f"algorithm={algorithm}", "epochs=400", "--run-dir", str(run)]
    command = launch.plan(5, launch.rank_program("jobs/digits.yaml", words))
    process = processes.start(command.argv, env=dict(command.env))
    processes.wait_for(process, lines=3)
    process.send_signal(signal.SIGUSR1)
    finished = processes.finish(process)
    assert finished.status == 128 + signal.SIGUSR1, finished
    assert json.loads((run / "summary.json").read_text())["status"] == "interrupted"
    found = replay(run)
    assert found.identical, found
    assert "identical: " in str(found)

"""Loaders of the ranks of a world: nothing of MPI is theirs, and none is left, whoever dies."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from mpi_dcasgd.tools.launch.world import plan

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(180)]

TESTS = Path(__file__).resolve().parents[1]

JOB = """\
algorithm: asgd
epochs: 2
batch_size: 4
lr: 0.01
task: {{name: "loaded_tasks:Line", fault: hang, place: "{place}"}}
data: {{loaders: 1}}
"""


@pytest.mark.horovod
def test_loaders_beside_mpi_that_runs_already(
    shared_world: Callable[..., Any], tmp_path: Path
) -> None:
    shared_world("api_ranks:loading", tmp_path, ranks=3, timeout=150)
    seen = [json.loads(file.read_text()) for file in tmp_path.glob("seen-*")]
    assert len(seen) >= 9, "each rank's of each run"
    wanted = {"started": False, "variables": [], "sockets": 1}
    for found in seen:
        assert wanted.items() <= found.items()
        assert found["descriptors"] < 8, "what PyTorch opens itself, and no more"


@pytest.mark.parametrize("victim", ["loader", "rank"])
def test_a_death_ends_the_world_with_all_its_loaders(
    processes: Any, tmp_path: Path, victim: str
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(JOB.format(place=tmp_path))
    command = plan(
        3,
        [
            sys.executable,
            "-m",
            "mpi_dcasgd",
            "train",
            str(file),
            "--run-dir",
            str(tmp_path / "run"),
        ],
    )
    paths = filter(None, (str(TESTS), os.environ.get("PYTHONPATH")))
    env = {**command.env, "PYTHONPATH": os.pathsep.join(paths)}
    world = processes.start(command.argv, env=env)
    processes.wait_until(world, (tmp_path / "blocked").exists)
    loaders = [each for each in processes.alive() if "loaders.parent" in " ".join(each.cmdline())]
    assert len(loaders) == 6, "the server's, which evaluates, and one of each worker: with parents"
    waiting = next(each for each in loaders if is_blocked(each, tmp_path))
    (waiting if victim == "loader" else waiting.parents()[1]).send_signal(signal.SIGKILL)
    finished = processes.finish(world)
    _, left = psutil.wait_procs(loaders, timeout=30)
    assert not left
    assert finished.status != 0
    if victim == "loader":
        assert f"the loader process {waiting.pid} was killed by SIGKILL" in finished.stderr
        assert "Traceback" not in finished.stderr


def is_blocked(process: psutil.Process, place: Path) -> bool:
    """Whether this is the loader that wrote that it waits."""
    return (place / "blocked").read_text() == str(process.pid)

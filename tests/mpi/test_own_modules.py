"""Modules of a user's own on several ranks: found by all, and the same on all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpi_dcasgd.record.run_folder import RunFolder

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(120)]

TASK = """
import torch
from torch import nn
from mpi_dcasgd import Task


class Line(Task):
    def __init__(self, points: int = 48):
        self.points = points

    def model(self):
        return nn.Linear(1, 1)

    def train_data(self):
        x = torch.linspace(0, 1, self.points)[:, None]
        return x, 3 * x + 1

    def test_data(self):
        return self.train_data()

    def loss(self, model, batch):
        x, y = batch
        return (model(x) - y).square().mean()
"""
JOB = "epochs: 1\nbatch_size: 8\nlr: 0.05\ntask: {name: 'rank_task:Line'}\n"

# The current folder of a rank is what differs between hosts: one has the module, another has not.
PROGRAM = """
import os, sys
from mpi4py import MPI

os.chdir(os.path.join(sys.argv.pop(1), "other" if MPI.COMM_WORLD.rank == 2 else "same"))
from mpi_dcasgd.cli import main

sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    for name in ("same", "other", "job"):
        (tmp_path / name).mkdir()
    (tmp_path / "same" / "rank_task.py").write_text(TASK)
    (tmp_path / "job" / "job.yaml").write_text(JOB)
    (tmp_path / "rank.py").write_text(PROGRAM)
    return tmp_path


def train(mpirun: Callable[..., Any], hosts: Path) -> Any:
    words = ("train", str(hosts / "job" / "job.yaml"), "--run-dir", str(hosts / "run"))
    return mpirun(3, str(hosts / "rank.py"), str(hosts), *words)


def test_a_module_that_one_rank_cannot_find_is_told_with_rank_and_host(
    mpirun: Callable[..., Any], hosts: Path
) -> None:
    finished = train(mpirun, hosts)
    assert finished.status == 2, finished
    assert "start-up failed\n  rank 2 on " in finished.stderr
    assert "cannot import rank_task:Line: No module named 'rank_task'" in finished.stderr
    assert f"(looked in {hosts}/job, {hosts}/other and on PYTHONPATH)" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert finished.stderr.count("Error: ") <= 2


def test_a_module_that_differs_on_one_rank_is_refused(
    mpirun: Callable[..., Any], hosts: Path
) -> None:
    (hosts / "other" / "rank_task.py").write_text(TASK.replace("3 * x", "4 * x"))
    finished = train(mpirun, hosts)
    assert finished.status == 2, finished
    assert "the module rank_task is not the same on all ranks" in finished.stderr
    for name in ("same", "other"):
        assert f"{hosts}/{name}/rank_task.py" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_copies_in_several_places_train_together(mpirun: Callable[..., Any], hosts: Path) -> None:
    (hosts / "other" / "rank_task.py").write_text(TASK)
    finished = train(mpirun, hosts)
    assert finished.status == 0, finished
    folder = RunFolder(hosts / "run")
    (source,) = json.loads(folder.environment_json.read_text())["code"]
    assert source["file"] == f"{hosts}/same/rank_task.py"


def test_a_class_of_the_script_itself_trains_on_all_ranks(
    mpirun: Callable[..., Any], tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"{TASK}\nimport mpi_dcasgd\n"
        "job = {'name': 'x', 'epochs': 1, 'batch_size': 8, 'lr': 0.05}\n"
        f"mpi_dcasgd.train(job, run_dir={str(tmp_path / 'run')!r}, task=Line(40))\n"
    )
    finished = mpirun(3, str(script))
    assert finished.status == 0, finished
    folder = RunFolder(tmp_path / "run")
    assert folder.job()["task"] == {"name": "__main__:Line", "points": 40}
    (source,) = json.loads(folder.environment_json.read_text())["code"]
    assert (source["module"], source["file"]) == ("__main__", str(script))
    assert (folder.code / "__main__.py").read_text() == script.read_text()
    replayed = mpirun(1, "-m", "mpi_dcasgd", "replay", str(folder.path))
    assert replayed.status == 2
    assert "cannot import __main__:Line: the program that is running has no Line" in replayed.stderr
    assert f"__main__ was {script}" in replayed.stderr

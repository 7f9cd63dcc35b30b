"""Runs of a study made in one process: `compare` keeps them as finished, and they repeat."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import mpi_dcasgd
from mpi_dcasgd.config.study import load_study
from mpi_dcasgd.record.study_folder import StudyFolder
from mpi_dcasgd.runs.compare import plan_comparison
from mpi_dcasgd.runs.tuning import left_to_run
from mpi_dcasgd.tools.comparison import look_at

JOB: dict[str, Any] = {
    "algorithm": "asgd",
    "epochs": 1,
    "batch_size": 4,
    "lr": 0.1,
    "task": {"name": "regression"},
    "model": {"name": "mlp", "hidden": [2]},
    "data": {"name": "arrays", "path": "line.npz", "validation": 0.25},
}
STUDY = {
    "job": "job.yaml",
    "algorithms": ["sgd", "asgd"],
    "workers": [3],
    "seeds": [1],
    "drivers": ["simulated"],
    "cluster": {"delays": "gamma"},
    "tune": {"grid": {"lr": [0.01, 1e30]}, "seed": 7},
}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    x = np.linspace(0, 1, 64, dtype=np.float32)[:, None]
    np.savez(tmp_path / "line.npz", x_train=x, y_train=3 * x, x_test=x, y_test=3 * x)
    job = JOB | {"data": JOB["data"] | {"path": str(tmp_path / "line.npz")}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(STUDY))
    return file


def test_runs_are_tuned_and_made_where_compare_looks_for_them(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    mpi_dcasgd.compare(study, out, report=False, in_process=True, show=sys.stdout)
    told = capsys.readouterr().out
    assert "study [4/4] asgd-w3-t2: failed" in told  # 1e30 diverges, and cannot win
    assert "study [2/2] asgd-w3-s1-simulated: completed" in told
    tuning = load_study(study).tuning
    assert tuning is not None
    assert not left_to_run(tuning, StudyFolder(out))
    plan = plan_comparison(study, out)
    assert [look_at(run).state for run in plan.runs] == ["finished", "finished"]
    assert {element.job.lr for element in plan.elements} == {0.01}
    found = mpi_dcasgd.compare(study, out, report=False)
    assert [outcome.status for outcome in found.outcomes] == ["kept", "kept"]


def test_a_run_is_the_same_bit_for_bit_when_it_is_made_again(study: Path, tmp_path: Path) -> None:
    hashes = set()
    for folder in ("first", "second"):
        mpi_dcasgd.compare(study, tmp_path / folder, only=["asgd-*"], report=False, in_process=True)
        run = mpi_dcasgd.Run(tmp_path / folder / "asgd-w3-s1-simulated")
        assert run.status == "completed"
        hashes.add(b"".join(tensor.numpy().tobytes() for tensor in run.weights().values()))
        assert not (tmp_path / folder / "sgd-s1").exists()
    assert len(hashes) == 1

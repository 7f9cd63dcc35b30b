"""A study over a real world and its simulated twin, from one command to one report."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import yaml
from in_process import command, run_here

from mpi_dcasgd.tools.launch import world as launch

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(180)]

STUDY = """\
job: digits.yaml
algorithms: [asgd]
workers: [2]
drivers: [real, simulated]
set:
  epochs: 2
  batch_size: 64
  inject: {delays: {model: gamma, mean_s: 0.01}, slow: {1: 3}}
"""


def test_one_study_is_run_really_and_simulated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "run", partial(run_here, launch.run))  # the simulated one
    (tmp_path / "digits.yaml").write_text(Path("jobs/digits.yaml").read_text())
    (tmp_path / "both.yaml").write_text(STUDY)
    out = tmp_path / "out"
    words = ["compare", str(tmp_path / "both.yaml"), "-o", str(out)]
    assert command(*words) == 0, capsys.readouterr()
    real, simulated = (
        json.loads((out / name / "summary.json").read_text())
        for name in ("asgd-w2-s0", "asgd-w2-s0-simulated")
    )
    assert (real["driver"], simulated["driver"]) == ("mpi", "simulator")
    assert real["samples"] == simulated["samples"] == 2 * 1437
    cluster = yaml.safe_load((out / "asgd-w2-s0-simulated" / "cluster.yaml").read_text())
    fast, slow = (sum(steps) / len(steps) for steps in cluster["delays"]["steps_s"])
    assert fast >= 0.005  # what was injected is in what was measured: it cannot be less
    assert slow > fast
    report = (out / "report" / "report.md").read_text()
    assert "## Predicted and measured" in report
    assert "| asgd, simulated | 2 | 1 |" in report
    capsys.readouterr()
    assert command(*words) == 0
    assert capsys.readouterr().out.count("finished before") == 2

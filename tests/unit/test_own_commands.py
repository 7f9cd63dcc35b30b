"""Every command finds a task beside its job, from whatever folder it is started in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml
from disguise import disguise
from in_process import command, run_here

import mpi_dcasgd
from mpi_dcasgd import modules
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.tools import comparison as tools_compare

TASK = """
from typing import Annotated

import torch
from pydantic import Field
from torch import nn
from mpi_dcasgd import Task


class Line(Task):
    def __init__(self, points: Annotated[int, Field(ge=1)] = 24, width: int = 3):
        self.points, self.width = points, width

    def model(self):
        return nn.Sequential(nn.Linear(1, self.width), nn.Tanh(), nn.Linear(self.width, 1))

    def train_data(self):
        x = torch.linspace(0, 1, self.points)[:, None]
        return x, 3 * x + 1

    def test_data(self):
        return self.train_data()

    def loss(self, model, batch):
        x, y = batch
        return (model(x) - y).square().mean()
"""
DELAYS = """
from pydantic.dataclasses import dataclass
from mpi_dcasgd.drivers.simulation.delays import DelayModel
from mpi_dcasgd.errors import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Always(DelayModel):
    mean_s: float = 1.0

    def of_worker(self, worker, rng):
        return lambda rng, n: rng.uniform(self.mean_s, self.mean_s, n)
"""
JOB = "epochs: 1\nbatch_size: 8\nlr: 0.05\ntask: {name: 'cmd_task:Line'}\n"
STUDY = (
    "job: job.yaml\nalgorithms: [sgd, asgd]\nworkers: [2]\ndrivers: [simulated]\n"
    "cluster: {delays: {model: 'cmd_delays:Always'}}\n"
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "cmd_task.py").write_text(TASK)
    (folder / "cmd_delays.py").write_text(DELAYS)
    (folder / "job.yaml").write_text(JOB)
    (folder / "grid.yaml").write_text(STUDY)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    yield folder
    for name in ("cmd_task", "cmd_delays"):
        sys.modules.pop(name, None)
        modules._served.pop(name, None)


@pytest.mark.parametrize(
    "words",
    [
        ("train", "{job}", "algorithm=sgd", "--run-dir", "run"),
        ("train", "{job}", "--dry-run"),
        ("run", "{job}", "-n", "3", "--dry-run"),
        ("simulate", "{job}", "workers=2", "delays=cmd_delays:Always", "--run-dir", "run"),
        ("simulate", "{job}", "workers=2", "delays=cmd_delays:Always", "--timing-only"),
        ("stability", "{job}", "--workers", "1", "2"),
        ("sharpness", "{job}", "--workers", "1", "2"),
        ("calibrate", "{job}", "-o", "cluster.yaml"),
        ("submit", "{job}", "-n", "3", "--dry-run"),
        ("submit", "{study}", "--dry-run"),
        ("compare", "{study}", "--dry-run"),
    ],
)
def test_a_command_finds_the_task_beside_the_job(project: Path, words: tuple[str, ...]) -> None:
    job, study = project / "job.yaml", project / "grid.yaml"
    path = list(sys.path)
    assert command(*(word.format(job=job, study=study) for word in words)) == 0
    assert sys.path == path


def test_a_run_is_replayed_and_changed_from_anywhere(project: Path) -> None:
    run = mpi_dcasgd.simulate(project / "job.yaml", workers=2, run_dir="run")
    disguise(run.path)
    assert command("replay", "run") == 0
    assert command("replay", "run", "lr=0.01", "--run-dir", "other") == 0


def test_a_comparison_finds_the_task_and_so_does_one_that_was_submitted(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launch = tools_compare.launch
    monkeypatch.setattr(launch, "run_world", partial(run_here, launch.run_world))
    study = project / "grid.yaml"
    assert command("compare", str(study), "-o", "out") == 0
    found = {run.parent.name for run in Path("out").glob("*/summary.json")}
    assert found == {"sgd-s0", "asgd-w2-s0-simulated"}
    # Nothing is run again from the copy that SLURM's job has.
    from mpi_dcasgd.config.frozen_study import freeze_study
    from mpi_dcasgd.config.study import load_study

    copied = freeze_study(load_study(study), Path("frozen").absolute())
    capsys.readouterr()
    assert command("compare", str(copied), "-o", "out") == 0
    assert capsys.readouterr().out.count("finished before") == 2


def test_processes_that_load_samples_find_the_modules_of_the_job(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a module of this name on PYTHONPATH they would make a task that cannot be opened.
    (project.parent / "on_path").mkdir()
    (project.parent / "on_path" / "cmd_task.py").write_text("raise OSError('not this one')\n")
    monkeypatch.syspath_prepend(str(project.parent / "on_path"))
    with open(project / "cmd_task.py", "a") as file:
        file.write(
            "\n\nclass Samples(Line):\n"
            "    def train_data(self):\n"
            "        return [(torch.ones(1) * i, torch.ones(1)) for i in range(self.points)]\n"
        )
    run = mpi_dcasgd.simulate(
        project / "job.yaml",
        task={"name": "cmd_task:Samples"},
        data={"name": "task", "loaders": 1},
        workers=2,
        run_dir="run",
    )
    assert run.status == "completed"


def test_delays_alone_may_be_ones_own(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = tools_compare.launch
    monkeypatch.setattr(launch, "run_world", partial(run_here, launch.run_world))
    (project / "job.yaml").write_text(
        "epochs: 1\nbatch_size: 64\nlr: 0.05\nmodel: {name: mlp, hidden: [4]}\n"
        "data: {name: synthetic, num_train: 128, shape: [3]}\n"
    )
    assert command("compare", str(project / "grid.yaml"), "-o", "out") == 0
    run = RunFolder("out/asgd-w2-s0-simulated")
    assert [each["module"] for each in run.environment()["code"]] == ["cmd_delays"]


def test_a_study_takes_a_task_from_a_program(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = tools_compare.launch
    monkeypatch.setattr(launch, "run_world", partial(run_here, launch.run_world))
    monkeypatch.syspath_prepend(str(project))
    import cmd_task

    task = cmd_task.Line(16, width=2)
    result = mpi_dcasgd.compare(project / "grid.yaml", "out", task=task, only=["sgd-s0"])
    (run,) = result.runs
    assert run.job()["task"] == {"name": "cmd_task:Line", "points": 16, "width": 2}
    kind = type("Line", (cmd_task.Line,), {"__module__": "__main__"})
    monkeypatch.setattr(sys.modules["__main__"], "Line", kind, raising=False)
    with pytest.raises(ConfigError, match="every run is a process of its own; put the class into"):
        mpi_dcasgd.compare(project / "grid.yaml", "out", task=kind())


def test_defaults_are_shown_and_written(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("train", str(project / "job.yaml"), "task.points=9", "--dry-run") == 0
    shown = yaml.safe_load(capsys.readouterr().out.partition("\n\n")[0])
    assert shown["task"] == {"name": "cmd_task:Line", "points": 9, "width": 3}
    assert shown["code"] == str(project)
    run = mpi_dcasgd.simulate(project / "job.yaml", workers=2, run_dir="run")
    assert RunFolder(run.path).job()["task"] == {"name": "cmd_task:Line", "points": 24, "width": 3}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def Line(:\n", "cmd_task raised SyntaxError: invalid syntax ({file}, line 1)"),
        ("import cmd_no", "cmd_task raised ModuleNotFoundError: No module named 'cmd_no' ({file}"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_message_with_status_2(
    project: Path, capsys: pytest.CaptureFixture[str], text: str, told: str
) -> None:
    file = project / "cmd_task.py"
    file.write_text(text)
    for words in (("train", "--dry-run"), ("stability",), ("run", "-n", "3")):
        assert command(words[0], str(project / "job.yaml"), *words[1:]) == 2
        error = capsys.readouterr().err
        assert told.format(file=file) in error
        assert "Traceback" not in error


def test_wrong_settings_of_a_task_are_all_told(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["task.pionts=3", "task.points=0", "task.width=wide", "epochs=0"]
    assert command("train", str(project / "job.yaml"), *words) == 2
    error = capsys.readouterr().err
    assert "task.pionts: unknown; did you mean task.points?" in error
    assert "task.points: got 0 (a whole number); allowed: a whole number >= 1" in error
    assert "task.width: got 'wide' (text); allowed: a whole number" in error
    assert "epochs: got 0" in error

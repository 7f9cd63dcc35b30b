"""Own data sets, models, delays, sinks, sites and commands, from outside of the package."""

from __future__ import annotations

import csv
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from in_process import command

from mpi_dcasgd.cli import main
from mpi_dcasgd.cli.commands import COMMANDS
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.record.run_folder import RunFolder

DOCS = Path(__file__).parents[2] / "docs"
EXTENDING_MD = (DOCS / "extending.md").read_text()
FILES = dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", EXTENDING_MD, re.DOTALL))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files that the page has its reader write."""
    assert set(FILES) == {
        *("job.yaml", "my_data.py", "my_models.py", "my_delays.py", "my_sinks.py", "my_command.py"),
        *("task.yaml", "my_task.py", "my_load.py"),
    }
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def run(processes: Any, folder: Path, *words: str) -> Any:
    """A command that is started elsewhere, with the folder on PYTHONPATH."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return processes.run(
        [sys.executable, "-m", "mpi_dcasgd", *words],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": paths},
    )


@pytest.fixture
def loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(folder))
    for name in FILES:
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
    return folder / "job.yaml"


@pytest.mark.slow
def test_what_the_page_says_trains(processes: Any, folder: Path) -> None:
    made = folder / "run"
    finished = run(
        processes, folder, "train", f"{folder}/job.yaml", "algorithm=sgd", "--run-dir", str(made)
    )
    assert finished.status == 0, finished
    whole = RunFolder(made)
    job = whole.job()
    assert job["data"] == {"name": "my_data:Majority", "validation": 0.0, "bits": 9}
    assert job["model"] == {"name": "my_models:net", "width": 24}
    assert whole.summary()["test_error"] < 0.2
    evaluations = [e for e in whole.metrics() if e["event"] == "evaluation"]
    assert len(evaluations) == 4
    notes = (made / "notes.txt").read_text().splitlines()
    assert [float(note.split()[-1]) for note in notes] == [
        pytest.approx(e["test_error"], abs=6e-4) for e in evaluations
    ]
    rows = list(csv.DictReader((made / "metrics.csv").read_text().splitlines()))
    assert [float(row["value"]) for row in rows if row["name"] == "test_error"] == [
        e["test_error"] for e in evaluations
    ]


def test_what_the_page_says_is_simulated(loaded: Path) -> None:
    (line,) = re.findall(r"^    mpi-dcasgd (simulate .*)$", EXTENDING_MD, re.MULTILINE)
    words = line.replace("job.yaml", str(loaded)).split()
    made = loaded.parent / "run"
    assert command(*words, "epochs=1", "--run-dir", str(made)) == 0
    whole = RunFolder(made)
    cluster = yaml.safe_load(whole.cluster_yaml.read_text())
    assert cluster["delays"] == {"model": "my_delays:Either", "spread": 0.9}
    summary = whole.summary()
    # 800 samples in minibatches of 16 on four workers, a second a step in the mean.
    assert summary["wall_s"] == pytest.approx(50 / 4, rel=0.4)
    assert summary["staleness_mean"] == pytest.approx(3, abs=0.5)
    assert (made / "notes.txt").read_text().count("\n") == 1


@pytest.mark.parametrize(
    ("begin", "name", "kept"),
    [
        ("train task.yaml", "task", {"name": "my_task:Line", "points": 96, "noise": 0.2}),
        ("train job.yaml", "data", {"name": "my_load:clouds", "size": 300}),
    ],
)
def test_the_pages_task_and_function_train_from_any_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, begin: str, name: str, kept: dict[str, Any]
) -> None:
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    line = next(
        line
        for line in re.findall(r"^    mpi-dcasgd (.*)$", EXTENDING_MD, re.MULTILINE)
        if line.startswith(begin)
    )
    command_, job, *words = shlex.split(line)
    assert command(command_, str(folder / job), *words, "--run-dir", "run") == 0
    whole = RunFolder("run")
    assert whole.job()[name].items() >= kept.items()
    assert whole.summary()["status"] == "completed"
    if name == "task":
        assert whole.summary()["test_distance"] < 0.5


@pytest.mark.mpi
def test_what_the_page_says_trains_on_several_ranks(shared_world: Any, folder: Path) -> None:
    made = folder / "run"
    words = ("train", f"{folder}/job.yaml", "epochs=1", "--run-dir", str(made))
    answers = shared_world("world_calls:command", *words, path=[folder])
    assert [answer.value for answer in answers] == 5 * [0]
    assert RunFolder(made).summary()["status"] == "completed"
    assert (made / "notes.txt").read_text().count("\n") == 1


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data.bits=0", "data.bits: got 0 (a whole number); allowed: a whole number >= 1"),
        ("data.bist=9", "data.bist: unknown; did you mean data.bits?"),
        ("data.noise=1.0", "data.noise: my_data:Majority has no such setting (it is for synthetic"),
        ("data.name=my_data:Majorty", "data.name: cannot import my_data:Majorty: module 'my_data'"),
        ("data.name=my_dta:Majority", "data.name: cannot import my_dta:Majority: No module named"),
        ("data.name=my_models:math", "data.name: my_models:math is neither a subclass of mpi_dca"),
        ("data.name=:Majority", "data.name: cannot import :Majority: it is not of the form"),
        ("model.width=thin", "model.width: got 'thin' (text); allowed: a whole number"),
        ("model.name=my_models:math", "model.name: my_models:math is neither a subclass of"),
        ("record.sinks=[my_sinks:Note]", "record.sinks: cannot import my_sinks:Note"),
        ("record.sinks=[my_data:Majority]", "record.sinks: my_data:Majority is not a subclass of"),
        ("record.sinks=[csvs]", "record.sinks: unknown 'csvs'; did you mean csv?"),
        ("record.sinks=[jsonl]", "record.sinks: jsonl is always written; omit it"),
        ("record.sinks=[csv, csv]", "record.sinks: csv stands here twice; omit one"),
        (
            "inject.delays={model: my_delays:Eithr}",
            "inject.delays.model: cannot import my_delays:Eithr: module",
        ),
    ],
)
def test_what_is_wrong_with_ones_own_is_told_in_time(
    loaded: Path, override: str, told: str
) -> None:
    from mpi_dcasgd.config.load import load_job

    load_job(loaded)
    with pytest.raises(ConfigError) as caught:
        load_job(loaded, [override])
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(told)


def test_no_link_is_broken() -> None:
    for target in re.findall(r"\]\(([^)#]+)#?[^)]*\)", EXTENDING_MD):
        assert (DOCS / target).exists(), target


def test_a_command_of_ones_own_is_one_module_and_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setitem(COMMANDS, "algorithms", "my_command")
    assert main(["--help"]) == 0
    assert "list the algorithms of a mode" in capsys.readouterr().out
    assert main(["algorithms", "synchronous"]) == 0
    assert capsys.readouterr().out == "ssgd\n"
    assert main(["algorithms", "sometimes"]) == 2


def test_a_site_of_ones_own_is_one_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (site,) = re.findall(r"```sh\n# (slurm/env/\S+)\n(.*?)```", EXTENDING_MD, re.DOTALL)
    file = folder / site[0]
    file.parent.mkdir(parents=True)
    file.write_text(site[1])
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(folder)
    words = ["submit", "job.yaml", "-n", "3", "--site-env", "ours", "--dry-run"]
    assert main(words) == 0
    assert str(file) in capsys.readouterr().out

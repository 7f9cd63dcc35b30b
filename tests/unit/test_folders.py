"""Run folders and study folders: who knows the names of files, and who reads them."""

from __future__ import annotations

import ast
import doctest
import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from synthetic_runs import synthetic_run

import mpi_dcasgd
from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.metrics import RunProgress
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.slurm_folder import Submission
from mpi_dcasgd.record.study_folder import StudyFolder, find_runs
from mpi_dcasgd.tools.run_status import run_status

# A run folder


def test_a_run_folder_reads_what_was_recorded(tmp_path: Path) -> None:
    folder = RunFolder(synthetic_run(tmp_path, "asgd", final_error=0.03))
    assert folder.is_run()
    assert folder.is_finished()
    assert folder.job()["algorithm"] == "asgd"
    assert folder.summary()["status"] == "completed"
    assert folder.environment()["git"]["dirty"] is False
    assert folder.metrics()[0]["event"] == "start"
    assert folder.progress() == RunProgress.of(folder.metrics())
    assert folder.progress().epoch == 5
    assert folder.progress().result == folder.summary()["test_error"]
    assert folder.trace(strict=True).meta["algorithm"] == "asgd"


def test_of_a_run_that_is_not_there_nothing_is_known(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "none")
    assert not folder.is_run()
    assert not folder.is_finished()
    assert folder.summary() == {}
    assert folder.environment() == {}
    assert folder.progress() == RunProgress(begun=False, epoch=None, result=None)
    assert folder.job(lenient=True) == {}
    for read in (folder.job, folder.metrics, folder.trace, folder.weights):
        with pytest.raises(RunFolderError, match="none"):
            read()


@pytest.mark.parametrize("content", ["{", "[]", "\xff"])
def test_a_damaged_summary_or_job_is_told_unless_the_caller_is_lenient(
    tmp_path: Path, content: str
) -> None:
    folder = RunFolder(tmp_path)
    for file, read in ((folder.summary_json, folder.summary), (folder.job_yaml, folder.job)):
        file.write_bytes(content.encode("latin-1"))
        with pytest.raises(RunFolderError, match=f"{file}: cannot be read: "):
            read()
        assert read(lenient=True) == {}
    assert not folder.is_finished()


def test_the_status_of_a_run_with_a_damaged_summary_says_so(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.job_yaml.write_text("name: x")
    folder.metrics_jsonl.write_text('{"event": "start"}\n')
    assert run_status("x", folder, None, None).state == "running"
    folder.summary_json.write_text('{"status": "comp')
    told = run_status("x", folder, None, None)
    assert told.state == "failed"
    assert told.reason.startswith(f"{folder.summary_json} cannot be read")


def test_damaged_records_are_no_progress(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics_jsonl.write_text('x\n{"event": "progress", "epoch": 1}\n')
    assert not folder.progress().begun
    folder.metrics_jsonl.write_text('{"event": "progress", "epoch": 1}\n{"event": "progr')
    assert folder.progress().epoch == 1


def test_weights_are_read_back_and_damaged_ones_are_told(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    torch.save({"state_dict": {"bias": torch.ones(3)}, "version": 7}, folder.weights_pt)
    assert folder.weights()["bias"].tolist() == [1.0, 1.0, 1.0]
    folder.weights_pt.write_bytes(folder.weights_pt.read_bytes()[:50])
    with pytest.raises(RunFolderError, match="it is damaged"):
        folder.weights()


# A study's folder


def test_the_runs_of_a_study_are_those_planned_submitted_and_there(tmp_path: Path) -> None:
    study = StudyFolder(tmp_path)
    assert study.names() == []
    study.job_file("b").parent.mkdir()
    study.job_file("b").touch()
    study.slurm.path.mkdir()
    study.slurm.job_yaml.touch()  # no run's
    study.slurm.remember(Submission("1", "slurm/submit-1.sbatch", (("c", "b"),)))
    (tmp_path / "a").mkdir()
    study.run("a").job_yaml.touch()
    assert study.names() == ["b", "c", "a"]


def test_a_run_that_cannot_be_moved_aside_is_told(tmp_path: Path) -> None:
    study = StudyFolder(tmp_path)
    (tmp_path / "a").mkdir()
    assert study.move_aside("a") == study.replaced / "a-1"
    with pytest.raises(RunFolderError, match=r"a: cannot be moved to .*replaced: No such file"):
        study.move_aside("a")


def test_runs_are_found_below_a_folder_but_submitted_jobs_are_none(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path / "study")
    alone = synthetic_run(tmp_path)
    for each in (run, alone):
        (each / "slurm").mkdir()
        (each / "slurm" / "job.yaml").touch()
    assert [found.path for found in find_runs(tmp_path)] == [alone, run]
    assert [found.path for found in find_runs(run)] == [run]
    assert find_runs(run / "slurm" / "none") == []


# Who knows

NAMES = (
    *("summary.json", "job.yaml", "metrics.jsonl", "trace.bin", "cluster.yaml", "weights.pt"),
    *("output.log", "environment.json", "submissions.jsonl", "closeup.jsonl", "sharpness.json"),
)
PLACES = {"jobs", "clusters", "replaced", ".lock", ".locks", "slurm", "checkpoints", "logs"}


def names_of_files(source: str) -> list[str]:
    """Strings in code, not in docstrings, that hold the name of a file or a place of a run's."""
    tree = ast.parse(source)
    documents = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            known = any(name in node.value for name in NAMES)
            found += [node.value] if known and id(node) not in documents else []
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            right = node.right
            if isinstance(right, ast.Constant) and right.value in PLACES:
                found.append(str(right.value))
    return found


def outside_of_records() -> list[Path]:
    package = Path(mpi_dcasgd.__file__).parent
    return [file for file in package.rglob("*.py") if package / "record" not in file.parents]


def test_only_the_records_know_the_names_of_a_runs_files() -> None:
    files = outside_of_records()
    found = {file: names_of_files(file.read_text(encoding="utf-8")) for file in files}
    assert len(found) > 100
    assert {file: names for file, names in found.items() if names} == {}


READERS = {"read_metrics", "read_trace"}
READ = {"job_yaml", "summary_json", "environment_json", "metrics_jsonl", "trace_bin", "weights_pt"}


def own_reads(source: str) -> list[str]:
    """Places that read a run's file instead of asking its folder for the content."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            found += [alias.name for alias in node.names if alias.name in READERS]
        if isinstance(node, ast.Attribute) and node.attr in ("read_text", "open"):
            of = node.value
            found += [of.attr] if isinstance(of, ast.Attribute) and of.attr in READ else []
    return found


def test_only_a_run_folder_reads_a_runs_files() -> None:
    found = {file: own_reads(file.read_text(encoding="utf-8")) for file in outside_of_records()}
    assert {file: reads for file, reads in found.items() if reads} == {}


def test_a_read_of_a_runs_file_is_seen() -> None:
    assert own_reads("json.loads(run.summary_json.read_text())") == ["summary_json"]
    assert own_reads("def f():\n    from a.b import read_trace") == ["read_trace"]


def test_a_file_name_in_code_is_seen() -> None:
    assert names_of_files('"""summary.json"""\nx = f"{a}/summary.json"') == ["/summary.json"]
    assert names_of_files('x = out / "jobs" / name') == ["jobs"]


LOAD_WITHOUT = """
import importlib, sys

for name in ("torch", "numpy"):
    sys.modules[name] = None
for name in sys.argv[1:]:
    importlib.import_module(name)
print("loaded", len(sys.argv) - 1)
"""
LIGHT = (
    *("record.run_folder", "record.study_folder", "record.slurm_folder", "record.metrics"),
    *("tools.comparison", "tools.run_status", "tools.status_line", "tools.locks"),
    *("tools.slurm.render", "tools.slurm.submissions", "tools.slurm.states", "tools.slurm.site"),
    *("runs.status", "runs.slurm_request"),
    *("cli.compare", "cli.report", "cli.status", "cli.submit"),
)


def test_folders_are_read_without_pytorch_and_numpy(processes) -> None:
    modules = [f"mpi_dcasgd.{name}" for name in LIGHT]
    finished = processes.run([sys.executable, "-c", LOAD_WITHOUT, *modules])
    assert finished.stdout == f"loaded {len(modules)}\n", str(finished)


@pytest.mark.parametrize(
    "name",
    [
        *("record.run_files", "record.run_folder", "record.metrics", "record.study_folder"),
        *("runs.slurm_request", "runs.run_start"),
    ],
)
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testmod(importlib.import_module(f"mpi_dcasgd.{name}"))
    assert tried
    assert not failed


def test_a_summary_that_says_something_else_is_no_finished_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.summary_json.write_text(json.dumps({"status": "failed"}))
    assert folder.summary() == {"status": "failed"}
    assert not folder.is_finished()

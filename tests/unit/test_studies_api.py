"""``compare``, ``report``, ``status`` and ``submit`` as functions: values out, nothing printed."""

from __future__ import annotations

import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from synthetic_runs import synthetic_run

from mpi_dcasgd.config.study import load_study
from mpi_dcasgd.errors import ConfigError, LaunchError, RunFolderError
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.runs.compare import compare, plan_comparison, report_study
from mpi_dcasgd.runs.report import report
from mpi_dcasgd.runs.slurm_request import SlurmRequest
from mpi_dcasgd.runs.status import status
from mpi_dcasgd.runs.submit import submit
from mpi_dcasgd.tools import comparison as tools_compare
from mpi_dcasgd.tools.launch.world import WorldEnd

JOB = """\
epochs: 1
batch_size: 64
lr: 0.1
model: {name: mlp, hidden: [8]}
data: {name: digits}
device: cpu
"""
STUDY = "job: toy.yaml\nalgorithms: [sgd, asgd]\nworkers: [2]\nseeds: [0, 1]\n"


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SITE", raising=False)
    (tmp_path / "toy.yaml").write_text(JOB)
    (tmp_path / "grid.yaml").write_text(STUDY)
    return tmp_path / "grid.yaml"


@pytest.fixture(autouse=True)
def quiet(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Nothing here prints."""
    yield
    assert tuple(capfd.readouterr()) == ("", "")


HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def test_compare_runs_a_study_and_returns_what_came_of_it(study: Path) -> None:
    before = [signal.getsignal(signum) for signum in HANDLED]
    result = compare(str(study), "out", only=["sgd-s0"])
    assert [signal.getsignal(signum) for signum in HANDLED] == before
    assert [outcome.status for outcome in result.outcomes] == ["completed"]
    [run] = result.runs
    assert run.summary()["algorithm"] == "sgd"
    assert result.report is not None
    assert "sgd" in result.report.table
    assert result.report.markdown == Path("out/report/report.md")
    assert (result.failed, result.stopped_by) == ((), None)
    again = compare(load_study(study), "out", only=["sgd-*"], part=(0, 2), report=False)
    assert [outcome.status for outcome in again.outcomes] == ["kept"]
    assert again.report is None
    told = report_study(study, "out")
    assert told.report is not None
    assert told.missing == ("asgd-w2-s0", "sgd-s1", "asgd-w2-s1")


def test_a_model_that_has_to_be_tried_out_is_refused_before_any_run_starts(study: Path) -> None:
    job = JOB.replace("{name: mlp, hidden: [8]}", "{name: resnet18}")
    (study.parent / "toy.yaml").write_text(job)
    assert len(plan_comparison(study).runs) == 4, "a plan does without PyTorch"
    with pytest.raises(ConfigError, match=r"model.name: resnet18 cannot take samples of shape"):
        compare(study, "out")
    assert not Path("out").exists()


def test_runs_of_earlier_versions_are_the_same_experiment_in_a_report(tmp_path: Path) -> None:
    job = yaml.safe_load(JOB)
    now = {**job, "data": {"name": "digits", "augment": "auto"}}
    old = {**job, "data": {"name": "digits", "augment": "auto", "path": None, "noise": 2.0}}
    for seed, stored in enumerate((old, now)):
        run = RunFolder(synthetic_run(tmp_path / "runs", seed=seed))
        run.job_yaml.write_text(yaml.safe_dump({**stored, "seed": seed, "name": "digits"}))
    [group] = report(tmp_path / "runs", tmp_path / "report").groups
    assert len(group.runs) == 2


def test_a_run_that_fails_is_an_outcome(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end = WorldEnd(3)
    monkeypatch.setattr(tools_compare.launch, "run_world", lambda *args, **kwargs: end)
    result = compare(study, only=["sgd-s0"])
    assert [outcome.run.name for outcome in result.failed] == ["sgd-s0"]
    assert result.folder.path == Path("runs/grid")
    assert result.report is None  # there is no run


@pytest.mark.parametrize("between", [False, True])
def test_a_comparison_that_is_stopped_tells_by_what_and_keeps_its_outcomes(
    study: Path, monkeypatch: pytest.MonkeyPatch, between: bool
) -> None:
    started = []

    def run(*args: Any, **kwargs: Any) -> WorldEnd:
        started.append(kwargs["stdout"].name)
        if len(started) == 1:
            return WorldEnd(1)
        if between:
            raise KeyboardInterrupt
        return WorldEnd(128 + signal.SIGUSR1)

    monkeypatch.setattr(tools_compare.launch, "run_world", run)
    result = compare(study, "out", only=["sgd-*"])
    assert len(started) == 2
    statuses = [outcome.status for outcome in result.outcomes]
    assert statuses == ["failed", "interrupted"][: 1 if between else 2]
    assert result.stopped_by == (signal.SIGINT if between else signal.SIGUSR1)
    assert result.report is None


def test_a_plan_starts_nothing(study: Path) -> None:
    plan = plan_comparison(study, "out", only=["*-s1"])
    assert [run.name for run in plan.runs] == ["sgd-s1", "asgd-w2-s1"]
    assert [run.ranks for run in plan.runs] == [None, 3]
    assert plan.overview().splitlines()[0] == f"grid: 2 runs of {study.parent / 'toy.yaml'} in out"
    assert not Path("out").exists()
    with pytest.raises(ConfigError, match=r"part: got \(3, 3\); allowed"):
        plan_comparison(study, part=(3, 3))


def test_a_part_without_runs_is_empty(study: Path) -> None:
    assert compare(study, "out", part=(9, 10)).runs == ()
    assert not Path("out").exists()


def test_a_report_of_a_study_without_runs_is_none(study: Path) -> None:
    told = report_study(study, "out")
    assert told.report is None
    assert len(told.missing) == 4


def test_report_takes_one_folder_or_several(tmp_path: Path) -> None:
    runs = [synthetic_run(tmp_path, algorithm) for algorithm in ("sgd", "asgd")]
    one = report(str(tmp_path), tmp_path / "one", title="Mine")
    assert one.table == report(runs, str(tmp_path / "two")).table
    assert one.markdown.read_text().startswith("# Mine\n")
    with pytest.raises(RunFolderError, match="no such folder"):
        report([tmp_path / "none"], tmp_path / "three")


def test_status_returns_one_for_each_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    run = synthetic_run(tmp_path / "runs", final_error=0.03)
    (tmp_path / "runs" / "notes").mkdir()
    [(folder, [found])] = status().items()
    assert folder == Path("runs") / run.name
    assert (found.state, found.result, found.epoch) == (
        "done",
        RunFolder(run).summary()["test_error"],
        5,
    )
    assert status([str(run)]) == {run: [found]}
    with pytest.raises(RunFolderError, match="elsewhere: no runs here"):
        status(root="elsewhere")


# submit


@pytest.fixture
def sbatch(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that numbers jobs from 1."""
    programs = study.parent / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("CALLS", str(programs / "calls"))
    for name, text in (
        ("sbatch", 'echo >> "$CALLS"; wc -l < "$CALLS" | tr -d " "'),
        *((name, "exit 1") for name in ("squeue", "scontrol", "sacct")),
    ):
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)


def test_submit_returns_the_job_its_folder_and_its_script(sbatch: None) -> None:
    found = submit("toy.yaml", ["lr=0.5"], request=SlurmRequest(ranks=3), out="r")
    assert (found.name, found.job_ids, found.folder) == ("toy", ("1",), Path("r").absolute())
    assert found.logs == ("slurm/toy-1.out",)
    assert Path("r/slurm/submit-1.sbatch").read_text() == found.script
    study = submit("grid.yaml", out="out", only=["sgd-*"])
    assert (study.job_ids, study.parts) == (("2", "3"), (("sgd-s0",), ("sgd-s1",)))
    assert study.logs == ("slurm/grid-2_*.out", "*/output.log")


def test_a_dry_run_returns_the_script_and_writes_nothing(study: Path) -> None:
    found = submit(study, request=SlurmRequest(array_limit=2), dry_run=True)
    assert found.job_ids == ()
    assert "#SBATCH --array=0-3%2\n" in found.script
    assert subprocess.run(["bash", "-n"], input=found.script, text=True).returncode == 0
    assert found.folder == Path("runs/grid").absolute()
    assert not Path("runs").exists()


@pytest.mark.parametrize("file", ["toy.yaml", "grid.yaml"])
def test_a_file_that_is_submitted_is_read_once(
    sbatch: None, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    reads: Counter[str] = Counter()
    read_text = Path.read_text

    def counted(path: Path, *args: Any, **kwargs: Any) -> str:
        reads[path.name] += 1
        text = read_text(path, *args, **kwargs)
        if path == Path(file):  # whoever reads it again reads another
            path.write_text("algorithms: [none]\n")
        return text

    monkeypatch.setattr(Path, "read_text", counted)
    found = submit(file, request=SlurmRequest(ranks=3, cpus_per_task=2), out="out")
    assert found.job_ids
    assert reads[file] == 1
    if file == "grid.yaml":
        copy = load_study("out/slurm/study-1/grid.yaml")
        assert [element.name for element in copy.elements] == [name for [name] in found.parts]


def test_a_request_says_how_many_ranks_there_are() -> None:
    def size(needed: int | None, **words: int) -> tuple[int | None, ...]:
        site = SlurmRequest(**words).site(needed)
        return site.nodes, site.tasks_per_node, site.tasks

    assert size(5) == (None, None, 5)
    assert size(5, nodes=2) == (2, 3, None)
    assert size(5, tasks_per_node=4) == (2, 4, None)
    assert size(None, tasks_per_node=4) == (1, 4, None)
    assert size(None, nodes=2, gpus_per_node=4) == (2, 4, None)
    assert size(None, nodes=2, ranks=7) == (2, None, 7)
    with pytest.raises(LaunchError, match="give one of them"):
        size(None, ranks=4, tasks_per_node=2)
    with pytest.raises(LaunchError, match="set the number of ranks"):
        size(None)

"""``compare`` and ``report`` as users start them, with small runs."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml
from in_process import run_here
from synthetic_runs import synthetic_run

from mpi_dcasgd.cli import main
from mpi_dcasgd.tools import comparison as tools_compare
from mpi_dcasgd.tools.launch.world import WorldEnd

JOB = """\
epochs: 2
batch_size: 64
lr: 0.1
model: {name: mlp, hidden: [8]}
data: {name: digits}
device: cpu
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "toy.yaml").write_text(JOB)
    path = tmp_path / "grid.yaml"
    path.write_text(
        "job: toy.yaml\nalgorithms: [sgd, asgd]\nworkers: [2]\nseeds: [0, 1]\ntarget_error: 0.5\n"
    )
    return path


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a comparison run its sequential and simulated runs in this process."""
    launch = tools_compare.launch
    monkeypatch.setattr(launch, "run_world", partial(run_here, launch.run_world))


def test_a_study_is_run_and_reported_and_its_runs_are_kept(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = study.parent / "out"
    words = ["compare", str(study), "-o", str(out), "--only", "sgd-s0"]
    assert main(words) == 0
    first = capsys.readouterr().out
    assert "[1/1] sgd-s0   completed" in first
    assert f"report: {out / 'report' / 'report.md'}" in first
    summary = json.loads((out / "sgd-s0" / "summary.json").read_text())
    assert (summary["status"], summary["seed"], summary["algorithm"]) == ("completed", 0, "sgd")
    assert yaml.safe_load((out / "sgd-s0" / "job.yaml").read_text()) == yaml.safe_load(
        (out / "jobs" / "sgd-s0.yaml").read_text()
    )
    assert main(words) == 0
    assert "[1/1] sgd-s0   finished before" in capsys.readouterr().out
    assert main([*words, "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[-1] == "finished"
    # An earlier version did not know all keys, and did what their defaults are now.
    stored = yaml.safe_load((out / "sgd-s0" / "job.yaml").read_text())
    for lr, state in ((stored["lr"], "finished"), (2.5, "changed")):
        old = {key: value for key, value in stored.items() if key != "capture"} | {"lr": lr}
        (out / "sgd-s0" / "job.yaml").write_text(yaml.safe_dump(old))
        assert main([*words, "--dry-run"]) == 0
        assert capsys.readouterr().out.splitlines()[1].split()[-1] == state


def test_a_dry_run_shows_the_runs_and_starts_none(
    study: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert main(["compare", str(study), "-o", str(out), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [
        *("sgd-s0", "asgd-w2-s0", "sgd-s1", "asgd-w2-s1"),
    ]
    assert "3 ranks" in lines[2]
    assert all(line.endswith("missing") for line in lines[1:])
    assert not out.exists()


def test_only_chooses_by_name_and_by_pattern(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", str(study), "--dry-run", "--only"]
    assert main([*words, "*-s1", "sgd-s0"]) == 0
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert shown == ["sgd-s0", "sgd-s1", "asgd-w2-s1"]
    assert main([*words, "sdg-s0"]) == 2
    assert "--only sdg-s0: no such run; did you mean sgd-s0?" in capsys.readouterr().err


SIMULATED = "drivers: [simulated]\ncluster: {delays: {model: gamma, mean_s: 0.1}}\n"


def test_a_simulated_run_is_made_of_the_cluster_that_the_study_describes(
    study: Path, capsys: pytest.CaptureFixture[str], in_process: None
) -> None:
    text, out = study.read_text(), study.parent / "out"
    study.write_text(text + SIMULATED)
    words = ["compare", str(study), "-o", str(out), "--only", "asgd-w2-s0-simulated"]
    assert main(words) == 0
    assert "[1/1] asgd-w2-s0-simulated   completed" in capsys.readouterr().out
    run = out / "asgd-w2-s0-simulated"
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["driver"], summary["num_workers"]) == ("simulator", 2)
    cluster = yaml.safe_load((run / "cluster.yaml").read_text())
    assert cluster == {"workers": 2, "delays": {"model": "gamma", "mean_s": 0.1}}
    assert main([*words, "--dry-run"]) == 0
    line = capsys.readouterr().out.splitlines()[1].split()
    assert (line[1], line[-1]) == ("simulated", "finished")
    (run / "summary.json").unlink()  # as one that was killed after its last checkpoint
    assert main(words) == 0
    assert "resuming from its checkpoint" in capsys.readouterr().out
    again = json.loads((run / "summary.json").read_text())
    assert again["weights_sha256"] == summary["weights_sha256"]
    assert "resumed after" in (run / "output.log").read_text()
    study.write_text(text + SIMULATED.replace("0.1", "0.2"))
    assert main([*words, "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("changed")


@pytest.mark.slow
def test_a_calibrated_run_follows_the_run_that_it_is_calibrated_from(
    study: Path, capsys: pytest.CaptureFixture[str], in_process: None
) -> None:
    study.write_text(study.read_text() + "drivers: [real, simulated]\n")
    out = study.parent / "out"
    words = ["compare", str(study), "-o", str(out), "--only", "asgd-w2-s0-simulated"]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert "takes its delays from asgd-w2-s0, which is not finished; run that first" in error

    def measure(mean_s: float) -> None:
        """A simulation stands in for the real run: its folder tells as much."""
        delays = f"delays={{model: constant, mean_s: {mean_s}}}"
        job = str(study.parent / "toy.yaml")
        real = ["--run-dir", str(out / "asgd-w2-s0"), "--overwrite"]
        assert main(["simulate", job, "workers=2", delays, *real]) == 0

    measured = []
    for mean_s in (0.5, 0.25):
        measure(mean_s)
        capsys.readouterr()
        assert main([*words, "--dry-run"]) == 0
        assert not capsys.readouterr().out.endswith("finished\n")
        assert main(words) == 0
        assert "completed" in capsys.readouterr().out
        assert main(words) == 0
        assert "finished before" in capsys.readouterr().out
        cluster = yaml.safe_load((out / "asgd-w2-s0-simulated" / "cluster.yaml").read_text())
        assert cluster["workers"] == len(cluster["delays"]["steps_s"]) == 2
        measured.append(sum(cluster["delays"]["steps_s"][0]) / len(cluster["delays"]["steps_s"][0]))
    assert measured == pytest.approx([0.5, 0.25], rel=0.01)
    file = (out / "clusters" / "asgd-w2-s0.yaml").read_text()
    assert file.startswith("# cluster: asgd-w2-s0, metrics.jsonl ")


def test_a_broken_study_starts_nothing(
    study: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    study.write_text(study.read_text() + "set: {epochs: 0}\n")
    assert main(["compare", str(study), "-o", str(tmp_path / "out")]) == 2
    assert "epochs: got 0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_that_fails_is_told_at_the_end_with_status_1(
    study: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, in_process: None
) -> None:
    missing = "set: {data: {name: cifar10, path: /nowhere}}\n"
    study.write_text(study.read_text() + missing)
    out = tmp_path / "out"
    assert main(["compare", str(study), "-o", str(out), "--only", "sgd-s0"]) == 1
    told = capsys.readouterr()
    assert "sgd-s0   failed" in told.out
    assert "sgd-s0 failed:\n  DataError: cifar10: /nowhere" in told.err
    assert str(out / "sgd-s0" / "output.log") in told.err


def test_a_comparison_that_is_stopped_says_how_to_go_on(
    study: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    end = WorldEnd(130)
    monkeypatch.setattr(tools_compare.launch, "run_world", lambda *args, **kwargs: end)
    words = ["compare", str(study), "-o", str(out), "--only", "sgd-*"]
    assert main([*words, "--rerun"]) == 130
    told = capsys.readouterr()
    assert "[1/2] sgd-s0   interrupted" in told.out
    assert "[2/2]" not in told.out
    assert told.err.splitlines()[-1].startswith("stopped; to resume: mpi-dcasgd compare ")
    assert "--rerun" not in told.err
    assert "report" not in told.out


def test_report_prints_the_table_and_where_the_report_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    runs = [str(synthetic_run(tmp_path, algorithm)) for algorithm in ("sgd", "dcasgd-a")]
    out = tmp_path / "report"
    assert main(["report", *runs, "-o", str(out), "--target-error", "0.1"]) == 0
    text = capsys.readouterr().out
    assert "dcasgd-a" in text
    assert f"report: {out / 'report.md'}" in text
    assert (out / "report.md").is_file()


def test_a_report_without_matplotlib_still_has_its_table(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = str(synthetic_run(tmp_path, "sgd"))
    for name in [n for n in sys.modules if n.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status = main(["report", run, "-o", str(tmp_path / "report")])
    told = capsys.readouterr()
    assert status != 0
    assert "sgd" in told.out
    assert "matplotlib" in told.err
    assert "Traceback" not in told.err


def test_a_report_of_nothing_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["report", str(tmp_path / "no"), "-o", str(tmp_path / "report")]) == 2
    assert "RunFolderError: " in capsys.readouterr().err


# Parts of a study, as the elements of a job array run them


def test_parts_are_disjoint_and_complete(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def runs(*words: str) -> list[str]:
        assert main(["compare", str(study), "--dry-run", *words]) == 0
        return [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]

    everything = runs()
    assert sorted(runs("--part", "0/3") + runs("--part", "1/3") + runs("--part", "2/3")) == sorted(
        everything
    )
    assert runs("--part", "0/1") == everything
    assert main(["compare", str(study), "--part", "9/10"]) == 0
    assert "no run is left for part 9 of 10" in capsys.readouterr().out


def test_a_calibrated_run_is_in_the_part_of_its_source(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study.write_text(
        "job: toy.yaml\nalgorithms: [asgd, dcasgd-c]\nworkers: [2, 4]\ndrivers: [real, simulated]\n"
    )
    for part in range(4):
        words = ["compare", str(study), "--dry-run", "--part", f"{part}/4"]
        assert main(words) == 0
        names = {line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]}
        for name in names:
            if name.endswith("-simulated"):
                workers = name.split("-w")[1][0]
                assert f"asgd-w{workers}-s0" in names, names


@pytest.mark.parametrize("part", ["3/3", "1", "-1/2", "a/b", "1/0"])
def test_a_part_that_is_none_is_refused(
    study: Path, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    assert main(["compare", str(study), f"--part={part}"]) == 2
    assert "allowed: I/N with 0 <= I < N" in capsys.readouterr().err


def test_a_part_writes_no_report_and_the_last_job_writes_it(
    study: Path, capsys: pytest.CaptureFixture[str], in_process: None
) -> None:
    out = study.parent / "out"
    words = ["compare", str(study), "-o", str(out)]
    assert main([*words, "--only", "sgd-s0", "--no-report"]) == 0
    assert not (out / "report").exists()
    capsys.readouterr()
    assert main([*words, "--report-only"]) == 1
    assert (out / "report" / "report.md").is_file()
    assert "not finished: asgd-w2-s0, sgd-s1, asgd-w2-s1" in capsys.readouterr().err

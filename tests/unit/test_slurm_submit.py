"""``submit`` and ``status`` with small programs in place of SLURM's commands."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mpi_dcasgd.cli import main
from mpi_dcasgd.record.slurm_folder import SlurmFolder, Submission
from mpi_dcasgd.tools.slurm.states import Answer, JobState, job_states, parse_sacct, parse_scontrol
from mpi_dcasgd.tools.slurm.submissions import dealt

JOB = """\
algorithm: asgd
epochs: 2
batch_size: 64
lr: 0.1
model: {name: mlp, hidden: [8]}
data: {name: digits}
device: cpu
"""
STUDY = "job: toy.yaml\nalgorithms: [sgd, ssgd, asgd]\nworkers: [2, 4]\nseeds: [0]\n"

# Numbers jobs from 1 and notes how it was called.
SBATCH = """
echo "$@" >> "$FAKE/calls"
env | grep ^SLURM_ >> "$FAKE/environment"
wc -l < "$FAKE/calls" | tr -d ' '
"""


class FakeSlurm:
    """Programs named like SLURM's, first on PATH."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir()
        monkeypatch.setenv("FAKE", str(folder))
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        self.program("squeue", "exit 0")
        invalid = "slurm_load_jobs error: Invalid job id specified"
        self.program("scontrol", f"echo '{invalid}' >&2; exit 1")
        self.program("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
        self.program("sbatch", SBATCH)

    def program(self, name: str, text: str) -> None:
        file = self.folder / name
        file.write_text(f"#!/bin/bash\n{text}\n")
        file.chmod(0o755)

    def queue(self, *lines: tuple[str, str, str, int]) -> None:
        rows = "\n".join("|".join(map(str, line)) + "|" for line in lines)
        self.program("squeue", f"cat <<'E'\n{rows}\nE")

    @property
    def calls(self) -> list[list[str]]:
        file = self.folder / "calls"
        return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    (tmp_path / "toy.yaml").write_text(JOB)
    (tmp_path / "grid.yaml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SITE", raising=False)
    return FakeSlurm(tmp_path / "fake", monkeypatch)


def finish(folder: Path, job: Path, workers: int) -> None:
    """Leave what a finished run leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.yaml").write_text(job.read_text())
    summary = {"status": "completed", "test_error": 0.02, "num_workers": workers, "restarts": 0}
    (folder / "summary.json").write_text(json.dumps(summary))


# submit


def test_a_job_is_written_into_its_folder_and_submitted(
    slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["submit", "toy.yaml", "lr=0.5", "--nodes", "2", "--tasks-per-node", "2"]
    assert main([*words, "--partition", "gpu", "--run-dir", "r"]) == 0
    folder = Path("r").absolute()
    script = folder / "slurm" / "submit-1.sbatch"
    assert slurm.calls == [["--parsable", str(script)]]
    text = script.read_text()
    assert "#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=2\n" in text
    assert "#SBATCH --partition=gpu" in text
    assert f"#SBATCH --output={folder}/slurm/toy-%j.out" in text
    assert yaml.safe_load((folder / "slurm" / "job.yaml").read_text())["lr"] == 0.5
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    out = capsys.readouterr().out
    assert "submitted job 1\n" in out
    assert "logs:   r/slurm/toy-1.out\n" in out
    assert "mpi-dcasgd status r\n" in out
    assert "scancel 1\n" in out
    assert SlurmFolder(folder).submissions() == [Submission("1", "slurm/submit-1.sbatch")]


def test_cores_that_were_asked_for_are_pytorchs_threads(slurm: FakeSlurm) -> None:
    words = ["submit", "toy.yaml", "-n", "3", "--cpus-per-task", "8"]
    assert main([*words, "--run-dir", "r"]) == 0
    assert yaml.safe_load(Path("r/slurm/job.yaml").read_text())["threads"] == 8
    assert main([*words, "--run-dir", "s", "threads=2"]) == 0
    assert yaml.safe_load(Path("s/slurm/job.yaml").read_text())["threads"] == 2


def test_a_study_becomes_an_array_and_a_last_job(
    slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", "grid.yaml", "--array-limit", "2", "-o", "out"]) == 0
    out = Path("out").absolute()
    array, report = slurm.calls
    assert array == ["--parsable", f"{out}/slurm/submit-1.sbatch"]
    assert report == ["--parsable", "--dependency=afterany:1", f"{out}/slurm/report-1.sbatch"]
    text = (out / "slurm" / "submit-1.sbatch").read_text()
    assert "#SBATCH --array=0-4%2" in text
    assert "#SBATCH --ntasks=5" in text
    names = ("sgd-s0", "ssgd-w2-s0", "ssgd-w4-s0", "asgd-w2-s0", "asgd-w4-s0")
    assert SlurmFolder(out).submissions()[-1].parts == tuple((name,) for name in names)
    assert SlurmFolder(out).submissions()[-1].report_id == "2"
    assert {file.stem for file in (out / "jobs").glob("*.yaml")} == set(names)
    assert "--report-only" in (out / "slurm" / "report-1.sbatch").read_text()
    assert "5 runs in an array of 5, 2 at a time" in capsys.readouterr().out


TUNE = "tune: {grid: {lr: [0.1, 0.2]}, driver: simulated, cluster: {delays: gamma}}\n"


def tuned_grid() -> None:
    Path("grid.yaml").write_text(f"{STUDY}set: {{data.validation: 0.1}}\n{TUNE}")


def test_a_study_waits_for_the_array_of_its_tuning_runs(
    slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned_grid()
    assert main(["submit", "grid.yaml", "--ranks", "7", "-o", "out"]) == 0
    out = Path("out").absolute()
    tuning = f"{out}/tuning/slurm/submit-1.sbatch"
    array, report = f"{out}/slurm/submit-1.sbatch", f"{out}/slurm/report-1.sbatch"
    assert slurm.calls == [
        ["--parsable", tuning],
        ["--parsable", "--dependency=afterany:1", array],
        ["--parsable", "--dependency=afterany:2", report],
    ]
    first, then = Path(tuning).read_text(), Path(array).read_text()
    names = SlurmFolder(out / "tuning").submissions()[-1].parts
    assert len(names) == 10
    assert "#SBATCH --array=0-9\n#SBATCH --ntasks=1\n" in first
    assert "#SBATCH --array=0-4\n#SBATCH --ntasks=7\n" in then
    assert f"out={out}\n" in first
    assert '--no-report --tune-only --only "${only[@]}" &' in first
    assert '--no-report --tuned --only "${only[@]}" &' in then
    assert len(list((out / "tuning" / "jobs").glob("*.yaml"))) == 10
    assert not (out / "jobs").exists(), "nobody knows their values yet"
    told = capsys.readouterr().out
    assert "job 1 (10 tuning runs in an array of 10), then job 2 (5 runs in an array" in told
    assert "mpi-dcasgd status out/tuning out\n" in told
    assert "scancel 1 2 3\n" in told
    assert "logs:   out/tuning/slurm/grid-tuning-1_*.out, out/slurm/grid-2_*.out" in told


def test_tuning_runs_that_have_a_result_or_wait_are_not_submitted_again(
    slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned_grid()
    assert main(["submit", "grid.yaml", "-o", "out"]) == 0
    tuning = SlurmFolder(Path("out/tuning"))
    [name] = tuning.submissions()[0].parts[0]
    # One of them has failed, and all others wait: as many runs would begin without it.
    slurm.queue(*[(f"1_{index}", "PENDING", "Priority", 0) for index in range(1, 10)])
    assert main(["submit", "grid.yaml", "-o", "out"]) == 0
    assert tuning.submissions()[-1].parts == ((name,),)
    assert slurm.calls[-2][1] == "--dependency=afterany:1:4"
    slurm.queue(("2_0", "PENDING", "Dependency", 0))
    before = len(slurm.calls)
    assert main(["submit", "grid.yaml", "-o", "out"]) == 2
    assert "would not wait for them; scancel 2 and submit again" in capsys.readouterr().err
    assert len(slurm.calls) == before


def test_a_study_that_is_tuned_waits_for_nothing(
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned_grid()
    assert main(["submit", "grid.yaml", "-o", "out"]) == 0
    for job in sorted(Path("out/tuning/jobs").glob("*.yaml")):
        lr = yaml.safe_load(job.read_text())["lr"]
        workers = 1 if job.stem.startswith("sgd") else int(job.stem.split("-w")[1][0])
        run = Path("out/tuning") / job.stem
        finish(run, job, workers)
        summary = json.loads((run / "summary.json").read_text()) | {"validation_error": lr}
        (run / "summary.json").write_text(json.dumps(summary))
    monkeypatch.setattr("mpi_dcasgd.runs.study_cluster.ClusterFile.differs", lambda *_: False)
    assert main(["submit", "grid.yaml", "-o", "out"]) == 0
    array, report = slurm.calls[3:]
    assert array == ["--parsable", str(Path("out/slurm/submit-2.sbatch").absolute())]
    assert report[1] == "--dependency=afterany:4"
    jobs = [yaml.safe_load(job.read_text()) for job in Path("out/jobs").glob("*.yaml")]
    assert [job["lr"] for job in jobs] == [0.1] * 5


def test_an_element_of_the_array_makes_no_tuning_runs(
    slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned_grid()
    assert main(["submit", "grid.yaml", "-o", "out"]) == 0
    [study] = Path("out/slurm").glob("study-*/grid.yaml")
    words = ["compare", str(study), "-o", "out", "--no-report", "--tuned", "--only", "sgd-s0"]
    assert main(words) == 2
    assert (
        "10 tuning runs have no result, and this needs what they choose" in capsys.readouterr().err
    )
    assert not Path("out/sgd-s0").exists()


def test_a_submitted_study_is_a_copy(slurm: FakeSlurm) -> None:
    assert main(["submit", "grid.yaml", "-o", "out"]) == 0
    copy = Path("out/slurm/study-1/grid.yaml").absolute()
    assert f"study={copy}\n" in Path("out/slurm/submit-1.sbatch").read_text()
    Path("grid.yaml").write_text("algorithms: [sgd]\njob: elsewhere.yaml\n")
    Path("toy.yaml").unlink()
    assert main(["compare", str(copy), "--dry-run", "-o", "out"]) == 0


def test_what_is_finished_is_not_submitted_again(
    slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path("out")
    assert main(["submit", "grid.yaml", "-o", "out"]) == 0
    for name, workers in (("sgd-s0", 1), ("ssgd-w2-s0", 2), ("ssgd-w4-s0", 4), ("asgd-w4-s0", 4)):
        finish(out / name, out / "jobs" / f"{name}.yaml", workers)
    assert main(["submit", "grid.yaml", "-o", "out"]) == 0
    assert SlurmFolder(out).submissions()[-1].parts == (("asgd-w2-s0",),)
    assert "#SBATCH --ntasks=3" in (out / "slurm" / "submit-2.sbatch").read_text()
    finish(out / "asgd-w2-s0", out / "jobs" / "asgd-w2-s0.yaml", 2)
    calls = len(slurm.calls)
    slurm.program("squeue", "exit 1")  # of no interest then
    assert main(["submit", "grid.yaml", "-o", "out"]) == 0
    assert "no run is left to submit" in capsys.readouterr().out
    assert len(slurm.calls) == calls


def test_a_failed_run_is_submitted_alone(slurm: FakeSlurm) -> None:
    assert main(["submit", "grid.yaml", "-o", "out", "--only", "asgd-w4-s0"]) == 0
    assert SlurmFolder(Path("out")).submissions()[-1].parts == (("asgd-w4-s0",),)


def test_what_is_in_the_queue_is_not_submitted_again(
    slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", "grid.yaml", "-o", "out"]) == 0
    slurm.queue(("1_3", "RUNNING", "None", 0), ("1_4", "PENDING", "Resources", 1))
    assert main(["submit", "grid.yaml", "-o", "out", "--only", "asgd-*", "sgd-s0"]) == 0
    assert SlurmFolder(Path("out")).submissions()[-1].parts == (("sgd-s0",),)
    assert "in the queue already: asgd-w2-s0, asgd-w4-s0" in capsys.readouterr().err


def test_a_folder_whose_job_waits_is_not_submitted_again(
    slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["submit", "toy.yaml", "-n", "3", "--run-dir", "r"]
    assert main(words) == 0
    slurm.queue(("1", "PENDING", "Priority", 0))
    assert main(words) == 2
    assert "job 1 of this folder is PENDING" in capsys.readouterr().err
    slurm.queue()
    assert main(words) == 0
    assert [each.job_id for each in SlurmFolder(Path("r")).submissions()] == ["1", "2"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["toy.yaml", "lrr=1", "-n", "3"], "lrr: unknown; did you mean lr?"),
        (["toy.yaml"], "set the number of ranks"),
        (["toy.yaml", "-n", "1"], "needs a server and at least one worker"),
        (["toy.yaml", "--nodes", "2"], "--tasks-per-node"),
        (["toy.yaml", "-n", "3", "--time", "soon"], "time: got 'soon'"),
        (["toy.yaml", "-n", "3", "--only", "a"], "--only: applies to studies"),
        (["toy.yaml", "-n", "3", "--site-env", "mars"], "--site-env mars: no slurm/env/mars.sh"),
        (["grid.yaml", "lr=1"], "lr=1: a study's own `set:`"),
        (["grid.yaml", "--only", "asgd-w3-s0"], "--only asgd-w3-s0: no such run"),
        (["grid.yaml", "--nodes", "1", "--tasks-per-node", "2"], "needs 4 ranks"),
        (["nothing.yaml"], "no such file"),
    ],
)
def test_a_mistake_is_told_before_anything_is_submitted(
    slurm: FakeSlurm, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert main(["submit", *words]) == 2
    assert told in capsys.readouterr().err
    assert slurm.calls == []
    assert not Path("runs").exists()


def test_a_dry_run_prints_the_script_and_leaves_nothing(
    slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["toy.yaml", "-n", "3"], ["grid.yaml", "--nodes", "1"]):
        (slurm.folder / "sbatch").unlink(missing_ok=True)
        assert main(["submit", *words, "--dry-run"]) == 0
        text = capsys.readouterr().out
        assert text.startswith("#!/bin/bash\n")
        assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    assert not Path("runs").exists()


def test_without_sbatch_the_remedies_are_named(
    slurm: FakeSlurm, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["submit", "toy.yaml", "-n", "3"]) == 2
    error = capsys.readouterr().err
    assert "found no sbatch on PATH" in error
    assert "--dry-run" in error
    assert not Path("runs").exists()


def test_what_sbatch_says_is_told_and_no_folder_stays(
    slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.program("sbatch", "echo 'sbatch: error: invalid partition specified: x' >&2; exit 1")
    assert main(["submit", "toy.yaml", "-n", "3"]) == 2
    error = capsys.readouterr().err
    assert "refuses" in error
    assert "  invalid partition specified: x\n" in error
    assert list(Path("runs").iterdir()) == []


def test_an_allocations_variables_do_not_reach_the_job_that_is_submitted_in_it(
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "7")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    assert main(["submit", "toy.yaml", "-n", "3"]) == 0
    assert (slurm.folder / "environment").read_text() == "SLURM_CONF=/etc/slurm.conf\n"


def test_the_site_file_is_the_one_of_the_variable(
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path("slurm/env/ours.sh").absolute()
    file.parent.mkdir(parents=True)
    file.touch()
    monkeypatch.setenv("SITE", "ours")
    assert main(["submit", "toy.yaml", "-n", "3", "--run-dir", "r"]) == 0
    assert f"site_file=${{MPI_DCASGD_ENV:-{file}}}" in Path("r/slurm/submit-1.sbatch").read_text()


def test_many_parts_are_dealt_out() -> None:
    parts = [["a"], ["b", "c"], ["d"], ["e"]]
    assert dealt(parts, 9) == (("a",), ("b", "c"), ("d",), ("e",))
    assert dealt(parts, 2) == (("a", "d"), ("b", "c", "e"))


def test_a_damaged_note_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "slurm").mkdir()
    SlurmFolder(tmp_path).remember(Submission("1", "a", (("x", "y"),), "2"))
    with open(tmp_path / "slurm" / "submissions.jsonl", "a") as file:
        file.write("{}\nnot json\n")
    SlurmFolder(tmp_path).remember(Submission("3", "b"))
    assert SlurmFolder(tmp_path).submissions() == [
        Submission("1", "a", (("x", "y"),), "2"),
        Submission("3", "b"),
    ]


# status


def shown(capsys: pytest.CaptureFixture[str], *folders: str) -> dict[str, dict[str, Any]]:
    assert main(["status", "--json", *folders]) == 0
    found = json.loads(capsys.readouterr().out)
    return {run["name"]: run for runs in found.values() for run in runs}


def begin(folder: Path, *, epoch: float = 1.5) -> None:
    """Leave what a run that has not ended leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.yaml").write_text("name: toy\n")
    events = [
        {"event": "start", "time_s": 0.0},
        {"event": "evaluation", "time_s": 1.0, "epoch": 1.0, "test_error": 0.25},
        {"event": "progress", "time_s": 2.0, "epoch": epoch},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))


def test_every_state_of_a_study(slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "grid.yaml", "-o", "out"]) == 0
    out = Path("out")
    finish(out / "sgd-s0", out / "jobs" / "sgd-s0.yaml", 1)
    begin(out / "ssgd-w2-s0")
    begin(out / "ssgd-w4-s0")
    (out / "ssgd-w4-s0" / "output.log").write_text("+ mpirun\nDataError: it broke\n")
    capsys.readouterr()
    slurm.queue(
        ("1_1", "RUNNING", "None", 2),
        ("1_3", "PENDING", "BeginTime", 1),
        ("2", "PENDING", "Dependency", 0),
    )
    slurm.program(
        "scontrol",
        "echo 'JobId=1 ArrayJobId=1 ArrayTaskId=2 JobState=TIMEOUT Reason=TimeLimit Restarts=0'\n"
        "echo 'JobId=9 ArrayJobId=1 ArrayTaskId=4 JobState=NODE_FAIL Reason=NodeDown Restarts=0'",
    )
    runs = shown(capsys, "out")
    assert {name: run["state"] for name, run in runs.items()} == {
        "sgd-s0": "done",
        "ssgd-w2-s0": "running",
        "ssgd-w4-s0": "failed",
        "asgd-w2-s0": "pending",
        "asgd-w4-s0": "failed",
    }
    running = runs["ssgd-w2-s0"]
    assert (running["epoch"], running["test_error"], running["restarts"]) == (1.5, 0.25, 2)
    assert runs["ssgd-w4-s0"]["reason"] == "TIMEOUT: TimeLimit: DataError: it broke"
    assert runs["asgd-w4-s0"]["reason"] == "NODE_FAIL: NodeDown"
    assert (runs["asgd-w2-s0"]["reason"], runs["asgd-w2-s0"]["job_id"]) == ("BeginTime", "1_3")
    assert main(["status", "out"]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0] == "out: 1 pending, 2 failed, 1 done, 1 running"
    line = next(line for line in text.splitlines() if "ssgd-w2-s0" in line)
    assert "epoch 1.5  test error 25.00 %  restarted 2 times" in line


def test_silence_of_slurm_is_not_taken_for_an_empty_queue(
    slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    job = ["submit", "toy.yaml", "-n", "3", "--run-dir", "r"]
    study = ["submit", "grid.yaml", "-o", "out"]
    assert main(job) == main(study) == 0
    calls = len(slurm.calls)
    slurm.program("squeue", "echo 'slurm_load_jobs error: Unable to contact' >&2; exit 1")
    for words in (job, study):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert "does not say whether the jobs" in error
        assert "squeue: slurm_load_jobs error: Unable to contact" in error
    assert len(slurm.calls) == calls
    assert main([*study, "--dry-run"]) == 0
    capsys.readouterr()
    run = shown(capsys, "r")["r"]
    assert (run["state"], run["job_id"]) == ("unknown", "1")
    assert "SLURM does not say whether it is in the queue: squeue: slurm_load" in run["reason"]


def test_a_slurm_that_hangs_is_waited_for_once_and_not_for_what_is_finished(
    slurm: FakeSlurm, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        assert main(["submit", "toy.yaml", "-n", "3", "--run-dir", f"runs/{name}"]) == 0
    for name in ("a", "b"):
        begin(Path("runs", name))
        os.utime(f"runs/{name}/metrics.jsonl", (0, 0))
    finish(Path("runs/c"), Path("toy.yaml"), 2)
    for program in ("squeue", "scontrol", "sacct"):
        slurm.program(program, f"echo {program} >> asked; exec sleep 600")
    monkeypatch.setattr("mpi_dcasgd.runs.status._PATIENCE_S", 1.0)
    capsys.readouterr()
    runs = shown(capsys)
    assert {name: run["state"] for name, run in runs.items()} == {
        "a": "unfinished",
        "b": "unfinished",
        "c": "done",
    }
    assert "squeue: no answer in 1 s" in runs["a"]["reason"]
    assert Path("asked").read_text() == "squeue\n"
    Path("asked").unlink()
    assert shown(capsys, "runs/c")["c"]["state"] == "done"
    assert not Path("asked").exists()


def test_no_array_is_larger_than_slurm_takes(
    slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.program("scontrol", "echo 'MaxArraySize            = 3'")
    assert main(["submit", "grid.yaml", "-o", "out"]) == 0
    assert [len(part) for part in SlurmFolder(Path("out")).submissions()[-1].parts] == [2, 2, 1]
    slurm.program("scontrol", "echo 'MaxArraySize            = 0'")
    assert main(["submit", "grid.yaml", "-o", "other"]) == 2
    assert "takes no job arrays" in capsys.readouterr().err


def test_a_job_that_never_began_tells_its_scripts_last_words(
    slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", "toy.yaml", "-n", "3", "--run-dir", "r"]) == 0
    capsys.readouterr()
    Path("r/slurm/toy-1.out").write_text("toy: mpi-dcasgd is not on PATH\n")
    slurm.program("scontrol", "echo 'JobId=1 JobState=FAILED Reason=NonZeroExitCode Restarts=0'")
    run = shown(capsys, "r")["r"]
    assert run["state"] == "failed"
    assert run["reason"] == "FAILED: NonZeroExitCode: toy: mpi-dcasgd is not on PATH"


def test_without_slurm_folders_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    begin(Path("runs/now"))
    begin(Path("runs/long-ago"))
    os.utime("runs/long-ago/metrics.jsonl", (0, 0))
    begin(Path("runs/stopped"))
    Path("runs/stopped/summary.json").write_text(
        '{"status": "interrupted", "reason": "stopped by SIGUSR1"}'
    )
    begin(Path("runs/broken"))
    Path("runs/broken/summary.json").write_text('{"status": "failed", "reason": "NaN"}')
    Path("runs/notes").mkdir()
    runs = shown(capsys)
    assert {name: run["state"] for name, run in runs.items()} == {
        "now": "running",
        "long-ago": "unfinished",
        "stopped": "interrupted",
        "broken": "failed",
    }
    assert runs["broken"]["reason"] == "NaN"
    assert "no sign of life for" in runs["long-ago"]["reason"]


def test_a_run_of_a_plain_script_is_found_in_the_queue_by_its_own_record(
    slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(Path("runs/async-12"))
    variables = {"variables": {"SLURM_JOB_ID": "12"}}
    Path("runs/async-12/environment.json").write_text(json.dumps(variables))
    slurm.queue(("12", "PENDING", "BeginTime", 3))
    run = shown(capsys, "runs/async-12")["async-12"]
    assert (run["state"], run["restarts"], run["job_id"]) == ("pending", 3, "12")


def test_status_of_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["status"]) == 2
    assert "no runs here" in capsys.readouterr().err
    assert main(["status", "nowhere"]) == 2
    assert "no such folder" in capsys.readouterr().err
    Path("empty").mkdir()
    assert main(["status", "empty"]) == 2
    assert "neither a run folder nor a study's" in capsys.readouterr().err


def test_slurms_words_are_read() -> None:
    assert parse_sacct("5_1|CANCELLED by 1000|0:15\n5_2|COMPLETED|0:0\n5_2.batch|FAILED|1:0\n") == {
        "5_1": JobState("CANCELLED", "exit status 0:15"),
        "5_2": JobState("COMPLETED"),
    }
    waiting = "JobId=5 ArrayJobId=5 ArrayTaskId=3-7%2 JobState=PENDING Reason=Resources Restarts=0"
    assert parse_scontrol(waiting) == {}
    assert parse_scontrol("JobId=7 JobName=a b JobState=OUT_OF_MEMORY Reason=OutOfMemory") == {
        "7": JobState("OUT_OF_MEMORY", "OutOfMemory")
    }
    assert job_states([]) == Answer()

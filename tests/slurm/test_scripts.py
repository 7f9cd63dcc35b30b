"""The scripts of slurm/ as they stand, submitted to a real SLURM."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from local_slurm import LocalSlurm

from mpi_dcasgd.record.checkpoints import checkpoints_in
from mpi_dcasgd.record.trace import read_trace
from mpi_dcasgd.server.records import Action

pytestmark = [pytest.mark.slurm, pytest.mark.mpi, pytest.mark.timeout(240)]

REPOSITORY = Path(__file__).parents[2]
TRAIN_SAMPLES = 1437  # of digits
# A step of 50 ms, of which a rank sleeps nearly all: 90 steps an epoch, for three workers.
SLOW = "inject.delays={model: constant, mean_s: 0.05}"


def submit(slurm: LocalSlurm, script: str | Path, *words: str, **variables: str) -> int:
    """Submit a script as a user does who stands in the repository."""
    file = f"slurm/{script}.sbatch" if isinstance(script, str) else str(script)
    options = [word for word in words if word.startswith("-")]
    job_words = [word for word in words if not word.startswith("-")]
    # The environment of these tests, if it is another one than the script's own .venv.
    path = f"{Path(sys.executable).parent}:{slurm.env['PATH']}"
    output = slurm.run(
        *("sbatch", "--parsable", f"--chdir={REPOSITORY}", f"--output={slurm.folder}/%j.out"),
        *options,
        file,
        *job_words,
        env={"PATH": path, **variables},
    )
    return int(output.strip())


def summary(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return result


def check_whole(folder: Path, epochs: int, restarts: int) -> None:
    """The run is finished, and took every minibatch of every epoch exactly once."""
    found = summary(folder)
    assert (found["status"], found["restarts"]) == ("completed", restarts)
    assert found["samples"] == epochs * TRAIN_SAMPLES
    records = read_trace(folder / "trace.bin", strict=True).records()
    taken = Counter(r.ticket for r in records if r.action in (Action.APPLIED, Action.HELD))
    assert set(taken.values()) == {1}
    assert sorted(taken) == list(range(90 * epochs))


def times_resumed(folder: Path) -> int:
    """How often a run has gone on from a checkpoint so far."""
    metrics = folder / "metrics.jsonl"
    return metrics.read_text().count('"event": "resume"') if metrics.exists() else 0


def processes_of(folder: Path) -> list[str]:
    """The command lines that name a run folder."""
    lines = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if process.info["status"] != psutil.STATUS_ZOMBIE and str(folder) in words:
            lines.append(" ".join(words))
    return lines


@pytest.mark.parametrize("script", ["async", pytest.param("sync", marks=pytest.mark.horovod)])
def test_a_job_trains_over_four_nodes(slurm: LocalSlurm, tmp_path: Path, script: str) -> None:
    run = tmp_path / "run"
    job = submit(slurm, script, "--nodes=4", "--ntasks-per-node=1", "epochs=2", RUN_DIR=str(run))
    slurm.wait(job, "COMPLETED", timeout=120)
    found = summary(run)
    assert found["status"] == "completed"
    assert found["world_size"] == 4
    assert found["num_workers"] == (3 if script == "async" else 4)
    assert found["samples"] == 2 * TRAIN_SAMPLES


def test_a_job_trains_over_the_two_nodes_that_are_not_drained(
    slurm: LocalSlurm, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    slurm.drain("n1")
    slurm.drain("n3")
    job = submit(slurm, "async", "epochs=2", RUN_DIR=str(run))
    known = slurm.wait(job, "COMPLETED", timeout=120)
    assert known["NodeList"] == "n[2,4]"
    found = summary(run)
    assert (found["status"], found["world_size"]) == ("completed", 4)
    assert found["samples"] == 2 * TRAIN_SAMPLES


def test_a_cancelled_job_leaves_no_process_and_a_run_that_can_go_on(
    slurm: LocalSlurm, tmp_path: Path, wait_for: Callable[..., None]
) -> None:
    run = tmp_path / "run"
    words = ("--nodes=2", SLOW, "epochs=1000", "checkpoint.every=1")
    job = submit(slurm, "async", *words, RUN_DIR=str(run))
    slurm.wait(job, "RUNNING")
    wait_for(lambda: bool(checkpoints_in(run / "checkpoints")), 60)
    slurm.cancel(job)
    slurm.wait(job, "CANCELLED", timeout=30)
    wait_for(lambda: not processes_of(run), 15)
    assert "CANCELLED" in slurm.log(job)
    assert checkpoints_in(run / "checkpoints")
    # mpirun is told, too, and may end the ranks before they have written what they came to.
    assert not (run / "summary.json").exists() or summary(run)["status"] == "interrupted"


@pytest.mark.timeout(400)
def test_a_job_that_is_out_of_time_twice_applies_each_sample_once(
    slurm: LocalSlurm, tmp_path: Path, wait_for: Callable[..., None]
) -> None:
    # The shortest limit there is. SLURM looks every 30 s which jobs to warn, here this one each
    # time; two times 30 s less twice starting are not enough for the steps' 60 s of sleep. Where
    # starting takes long, some attempts end before they have begun: only those that trained count.
    run, epochs = tmp_path / "run", 40
    job = submit(
        slurm,
        *("async", "--nodes=2", "--ntasks-per-node=2", "--time=1", "--signal=B:USR1@50"),
        *(SLOW, f"epochs={epochs}"),
        RUN_DIR=str(run),
    )
    wait_for(lambda: times_resumed(run) >= 2, 250)
    slurm.run("scontrol", "update", f"JobId={job}", "TimeLimit=10")
    slurm.wait(job, "COMPLETED", timeout=120)
    restarts = summary(run)["restarts"]
    assert 2 <= restarts <= int(slurm.job(job)["Restarts"])
    check_whole(run, epochs, restarts)


def test_a_job_that_gives_way_comes_back_and_applies_each_sample_once(
    slurm: LocalSlurm, tmp_path: Path, wait_for: Callable[..., None]
) -> None:
    run, epochs = tmp_path / "run", 5
    words = ("--partition=low", "--nodes=4", "--ntasks-per-node=1", SLOW, f"epochs={epochs}")
    words += ("checkpoint.every=1",)
    job = submit(slurm, "async", *words, RUN_DIR=str(run))
    slurm.wait(job, "RUNNING")
    wait_for(lambda: bool(checkpoints_in(run / "checkpoints")), 60)
    urgent = slurm.submit("#!/bin/bash\ntrue\n", "--nodes=4", "--exclusive")
    slurm.wait(urgent, "COMPLETED")
    slurm.wait(job, "COMPLETED", timeout=120)
    assert slurm.job(job)["Restarts"] == "1"
    check_whole(run, epochs, restarts=1)


@pytest.mark.parametrize(
    ("script", "site"),
    [("async", "srun-pmix"), pytest.param("sync", "generic", marks=pytest.mark.horovod)],
)
def test_ranks_are_warned_under_srun_and_in_horovod_and_requeues_have_a_bound(
    slurm: LocalSlurm,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    wait_for: Callable[..., None],
    script: str,
    site: str,
) -> None:
    if site == "srun-pmix":
        request.getfixturevalue("pmix")
    run = tmp_path / "run"
    variables = {"RUN_DIR": str(run), "SITE": site, "MAX_REQUEUES": "0"}
    job = submit(slurm, script, "--nodes=2", SLOW, "epochs=1000", **variables)
    slurm.wait(job, "RUNNING")
    wait_for(lambda: "test error" in slurm.log(job), 60)
    slurm.cancel(job, "--batch", "--signal=USR1")
    known = slurm.wait(job, "FAILED", timeout=60)
    # USR1; or TERM, with which srun ends the other ranks as soon as one has ended with that.
    assert known["ExitCode"] in ("138:0", "143:0")
    assert "MAX_REQUEUES=0" in slurm.log(job)
    assert summary(run)["status"] == "interrupted"
    assert checkpoints_in(run / "checkpoints")


def test_an_array_comes_back_too_and_its_last_job_writes_the_report(
    slurm: LocalSlurm, tmp_path: Path, wait_for: Callable[..., None]
) -> None:
    study, out = tmp_path / "small.yaml", tmp_path / "out"
    key, _, value = SLOW.partition("=")
    study.write_text(
        f"job: {REPOSITORY}/jobs/digits.yaml\n"
        "algorithms: [asgd, dcasgd-c]\nworkers: [2]\nseeds: [0]\n"
        f"set: {{epochs: 5, {key}: {value}}}\n"
    )
    variables = {"STUDY": str(study), "OUT": str(out)}
    # The report's own log, which would go into the repository.
    variables |= {"SBATCH_OUTPUT": f"{slurm.folder}/%j.out"}
    array = submit(slurm, "compare", "--array=0-1", "--ntasks=3", **variables)
    log = out / "asgd-w2-s0" / "output.log"
    wait_for(lambda: log.exists() and "test error" in log.read_text(), 60)
    slurm.cancel(f"{array}_0", "--batch", "--signal=USR1")
    wait_for(lambda: slurm.job(f"{array}_0")["Restarts"] == "1", 30)
    report = max(slurm.jobs())
    slurm.wait(report, "COMPLETED", timeout=120)
    assert slurm.elements(array) == {0: "COMPLETED", 1: "COMPLETED"}
    # Which of them element 0 took is its own affair.
    runs = [summary(out / f"{algorithm}-w2-s0") for algorithm in ("asgd", "dcasgd-c")]
    assert sorted(run["restarts"] for run in runs) == [0, 1]
    text = (out / "report" / "report.md").read_text()
    assert "asgd" in text
    assert "dcasgd-c" in text


def test_a_heterogeneous_job_is_one_world(slurm: LocalSlurm, pmix: None, tmp_path: Path) -> None:
    run, text = tmp_path / "run", (REPOSITORY / "slurm" / "hetjob.sbatch").read_text()
    four = "#SBATCH --ntasks-per-node=4\n"
    assert four in text
    script = tmp_path / "hetjob.sbatch"
    script.write_text(text.replace(four, four.replace("4", "2")))  # the nodes have two cores
    job = submit(slurm, script, "epochs=2", RUN_DIR=str(run))
    slurm.wait(job, "COMPLETED", timeout=120)
    assert slurm.job(job)["NodeList"] != slurm.job(job + 1)["NodeList"]
    found = summary(run)
    assert (found["status"], found["world_size"], found["num_workers"]) == ("completed", 3, 2)

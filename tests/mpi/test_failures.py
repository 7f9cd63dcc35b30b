"""Users' mistakes and failing ranks: one clear message, the right status, no traceback, no hang."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(120)]

TRAIN = ("-m", "mpi_dcasgd", "train")
JOB = "jobs/digits.yaml"


def refused(finished: Any, *words: str) -> None:
    """Exit status 2 and one message that holds these words."""
    assert finished.status == 2, finished
    tells_once(finished.stderr, *words)


def tells_once(text: str, *words: str) -> None:
    for word in words:
        assert word in text, text
    assert "Traceback" not in text, text
    # mpirun adds a banner of its own; the message itself must not come from every rank.
    assert text.count("Error: ") == 1, text


@pytest.fixture
def refused_by_all(shared_world: Callable[..., Any]) -> Callable[..., None]:
    """Has every rank of the shared world execute a command that all have to refuse."""

    def check(function: str, arguments: Sequence[str], *words: str) -> None:
        answers = shared_world(function, *arguments)
        assert [answer.value for answer in answers] == 5 * [2]
        tells_once("".join(answer.stderr for answer in answers), *words)

    return check


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["algorithm=dcasdg-a"], ["unknown", "did you mean dcasgd-a"]),
        (["batch_size=many"], ["batch_size", "'many'"]),
        (["model.nme=mlp"], ["model.nme", "did you mean"]),
        (["model.name=resnet20", "data.name=synthetic", "data.shape=[7]"], ["resnet20"]),
    ],
)
def test_a_bad_job_is_refused_by_all_ranks_with_one_message(
    refused_by_all: Callable[..., None], overrides: list[str], words: list[str], tmp_path: Path
) -> None:
    run = str(tmp_path / "run")
    refused_by_all("world_calls:command", ["train", JOB, *overrides, "--run-dir", run], *words)


def test_a_launched_job_whose_data_are_missing_is_refused_with_one_message(
    mpirun: Callable[..., Any], tmp_path: Path
) -> None:
    overrides = ("data.name=cifar10", "data.path=/nowhere/at/all")
    finished = mpirun(3, *TRAIN, JOB, *overrides, "--run-dir", str(tmp_path / "run"))
    refused(finished, "/nowhere/at/all")


def test_a_broken_file_is_refused_with_the_line(mpirun: Callable[..., Any], tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("epochs: 3\nmodel: {name: mlp\nlr: 0.1\n")
    refused(mpirun(2, *TRAIN, str(broken)), "broken.yaml", "line")


def test_one_rank_is_too_few_for_an_asynchronous_run(mpirun: Callable[..., Any]) -> None:
    refused(mpirun(1, *TRAIN, JOB, "algorithm=asgd"), "got 1 rank", "mpirun -n 5")


def test_a_sequential_run_refuses_a_launcher_that_started_more(mpirun: Callable[..., Any]) -> None:
    finished = mpirun(2, *TRAIN, JOB, "algorithm=sgd")
    assert finished.status == 2, finished
    assert "is one process" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_world_that_fell_apart_is_refused(processes: Any) -> None:
    # What srun's PMI-2 does to Open MPI: four tasks in the step, and each finds itself alone.
    env = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    finished = processes.run([sys.executable, *TRAIN, JOB, "algorithm=asgd"], env=env)
    refused(finished, "srun started 4 processes", "--mpi=pmix")


def test_no_request_of_mpi_is_left_after_an_error(
    shared_world: Callable[..., Any], tmp_path: Path
) -> None:
    answers = shared_world("world_calls:left_after_error", JOB, tmp_path / "run", ranks=2)
    assert [made > 0 for made, _ in (answer.value for answer in answers)] == [True, True]
    assert [left for _, left in (answer.value for answer in answers)] == [0, 0]


def test_ssgd_without_horovod_says_how_to_get_it(
    mpirun: Callable[..., Any], tmp_path: Path
) -> None:
    fake = tmp_path / "horovod"
    fake.mkdir()
    (fake / "__init__.py").write_text("raise ImportError('no Horovod for this test')\n")
    finished = mpirun(
        2,
        *TRAIN,
        JOB,
        "algorithm=ssgd",
        "--run-dir",
        str(tmp_path / "run"),
        env={"PYTHONPATH": str(tmp_path)},
    )
    refused(finished, "no Horovod for this test", "build_horovod")


def test_data_that_one_rank_lacks_stop_all_of_them(
    refused_by_all: Callable[..., None], tmp_path: Path
) -> None:
    # Data that cannot be loaded on rank 1 stand for any start-up failure there.
    words = ["train", JOB, "--run-dir", str(tmp_path / "run")]
    told = ("the disk of this node is not mounted", "rank 1 on")
    refused_by_all("world_calls:command_without_data", words, *told)


def test_an_exception_in_one_rank_ends_the_job_with_rank_host_and_reason(
    mpirun: Callable[..., Any], tmp_path: Path
) -> None:
    program = tmp_path / "rank.py"
    program.write_text(
        "import sys\n"
        "from mpi4py import MPI\n"
        "from mpi_dcasgd.learning.learner import Learner\n"
        "def failing(self, batch):\n"
        "    raise OSError('a lightning struck')\n"
        "if MPI.COMM_WORLD.rank == 2:\n"
        "    Learner.gradient = failing\n"
        "from mpi_dcasgd.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    run = tmp_path / "run"
    finished = mpirun(4, str(program), "train", JOB, "--run-dir", str(run))
    assert finished.status == 1, finished
    assert f"rank 2 on {os.uname().nodename}: OSError: a lightning struck" in finished.stderr
    assert "a lightning struck" in (run / "logs" / "rank-2.log").read_text()


def test_a_signal_stops_at_a_safe_point_and_keeps_what_was_learnt(
    processes: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    argv = ["-m", "mpi_dcasgd", "run", "-n", "3", JOB, "epochs=100000", "--run-dir", str(run)]
    process = processes.start([sys.executable, *argv])
    processes.wait_for(process, lines=5)
    process.send_signal(signal.SIGINT)
    finished = processes.finish(process)
    assert finished.status == 128 + signal.SIGINT, finished
    assert (run / "weights.pt").is_file()
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["reason"]) == ("interrupted", "stopped by SIGINT")

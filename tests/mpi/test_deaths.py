"""Deaths of any rank at any moment: the others end or go on within seconds, and say why."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpi_dcasgd.record.checkpoints import checkpoints_in
from mpi_dcasgd.record.metrics import read_metrics
from mpi_dcasgd.record.trace import read_trace
from mpi_dcasgd.server.records import Action

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(120)]

HERE = Path(__file__).parent
RANKS = HERE / "lost_ranks.py"
FAULTS = HERE / "faults"
HOST = os.uname().nodename
JOB = "jobs/digits.yaml"


@pytest.fixture
def lost(mpirun: Callable[..., Any]) -> Callable[[str], Any]:
    path = os.pathsep.join([str(HERE.parent), str(HERE.parents[1])])

    def run(what: str) -> Any:
        return mpirun(3, str(RANKS), what, env={"PYTHONPATH": path}, fault_tolerant=True)

    return run


@pytest.fixture
def faulty(processes: Any) -> Callable[..., Any]:
    """Runs the command ``run --fault-tolerant`` with a fault in it (faults/sitecustomize.py)."""

    def run(fault: str, run_dir: Path, ranks: int, *words: str) -> Any:
        argv = ["-m", "mpi_dcasgd", "run", "--fault-tolerant", "-n", str(ranks), JOB]
        argv += ["--run-dir", str(run_dir), "model.hidden=[16]", *words]
        path = os.pathsep.join([str(FAULTS), str(HERE.parents[1])])
        env = {"PYTHONPATH": path, "MPI_DCASGD_TEST_FAULT": fault}
        return processes.run([sys.executable, *argv], env=env)

    return run


@pytest.mark.ulfm
def test_a_rank_that_dies_before_mpi_begins_is_named_and_ends_the_run(
    lost: Callable[[str], Any],
) -> None:
    finished = lost("killed_before_mpi")
    assert finished.status != 0, finished
    assert f"rank 1 on {HOST} died before MPI had begun" in finished.stderr


@pytest.mark.ulfm
def test_a_rank_that_dies_during_start_up_is_named_by_all_and_told_by_one(
    lost: Callable[[str], Any],
) -> None:
    finished = lost("killed_in_a_meeting")
    assert sorted(finished.stdout.splitlines()) == [
        f"{rank} RanksLostError told={rank != 0}: rank 1 on {HOST} died during start-up, while "
        "reading the data"
        for rank in (0, 2)
    ]


@pytest.mark.ulfm
def test_a_server_that_dies_is_named_by_all_workers_and_told_by_one(
    lost: Callable[[str], Any],
) -> None:
    finished = lost("killed_server")
    assert sorted(finished.stdout.splitlines()) == [
        f"{rank} RanksLostError told={rank != 1}: the server (rank 0 on node7) died"
        for rank in (1, 2)
    ]


@pytest.mark.ulfm
def test_a_workers_exception_costs_that_worker_alone(
    faulty: Callable[..., Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    fault = "2 mpi_dcasgd.learning.learner:Learner.gradient 30 MemoryError"
    finished = faulty(fault, run, 4, "algorithm=asgd", "epochs=4", "ahead=2")
    assert finished.status == 0, finished
    assert f"rank 2 on {HOST}: MemoryError" in finished.stderr
    (event,) = (e for e in read_metrics(run / "metrics.jsonl") if e["event"] == "fault")
    assert event["text"].startswith(f"worker 1 (rank 2 on {HOST}) failed: MemoryError; its tickets")
    assert event["text"] in finished.stdout
    assert event["missing"] == [f"worker 1 (rank 2 on {HOST}) failed"]
    records = list(read_trace(run / "trace.bin", strict=True).records())
    applied = Counter(r.ticket for r in records if r.action is Action.APPLIED)
    assert applied == Counter(range(4 * 90))


@pytest.mark.ulfm
def test_a_rank_of_a_group_that_dies_is_named_and_the_state_is_saved(
    faulty: Callable[..., Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    fault = "1 mpi_dcasgd.drivers.synchronous:_Group.compute 30 SIGKILL"
    words = ("algorithm=ssgd", "sync.backend=ddp", "epochs=40", "checkpoint={every: null}")
    finished = faulty(fault, run, 2, *words)
    assert finished.status == 1, finished
    assert f"RanksLostError: rank 1 on {HOST} died; to resume, rerun" in finished.stderr
    summary = json.loads((run / "summary.json").read_text())
    assert summary["reason"] == f"RanksLostError: rank 1 on {HOST} died"
    (checkpoint,) = checkpoints_in(run / "checkpoints")
    assert checkpoint.name == "update-000000029.pt"


def test_a_worker_that_leaves_without_a_word_is_noticed_at_once(
    shared_world: Callable[..., Any],
) -> None:
    answers = shared_world("lost_ranks:lifelines", ranks=3, path=[HERE])
    ((worker, text),) = answers[0].value
    assert worker == 1
    assert text.startswith("its process has ended without a word")


def test_a_server_that_answers_is_waited_for_and_one_that_does_not_is_named(
    shared_world: Callable[..., Any],
) -> None:
    answers = shared_world("lost_ranks:watch_server", True, 2.0, ranks=2, path=[HERE])
    assert answers[1].value == [True, ""]
    answers = shared_world("lost_ranks:watch_server", False, 60.0, ranks=2, path=[HERE])
    there, text = answers[1].value
    assert not there
    assert text.startswith("the server (rank 0 on node7) hangs: nothing came from it for 2.")


def test_nobody_is_found_to_hang_who_has_closed_its_watch_at_the_end(
    shared_world: Callable[..., Any],
) -> None:
    answers = shared_world("lost_ranks:close_while_asking", ranks=2, path=[HERE])
    assert [answer.value for answer in answers] == [[], []]


def test_an_evaluation_that_hangs_is_told_from_one_that_is_at_work(
    shared_world: Callable[..., Any],
) -> None:
    at_work = shared_world("lost_ranks:watch_group", True, 4.0, ranks=2, path=[HERE])
    assert [answer.value for answer in at_work] == [[], []]
    hangs = shared_world("lost_ranks:watch_group", False, 60.0, ranks=2, path=[HERE])
    (text,) = hangs[0].value
    assert text.startswith("rank 0 on a hangs while it evaluates or saves: no sign of life for 2.")

"""Runs whose model is divided among several servers: as with one, and replayed with one."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpi_dcasgd.record.checkpoints import checkpoints_in
from mpi_dcasgd.record.trace import read_trace
from mpi_dcasgd.runs.replay import replay
from mpi_dcasgd.server.records import Action

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(120)]

FAULTS = Path(__file__).parent / "faults"
JOB = "jobs/digits.yaml"
GROUPS = "groups=[{match: '*bias', lr: 0.5, weight_decay: 0}]"
NET = "model={name: cnn, batchnorm: true}"

RUNS = {
    "statistics-and-groups": [
        *("algorithm=dcasgd-a", "servers=2", NET, GROUPS),
        *("transport=messages", "wire.push=fp16", "wire.reply=bf16"),
    ],
    "held": ["algorithm=rennala", "servers=3", "lr=0.2", "transport=shared", "wire.push=fp16"],
    "dropped-and-ahead": [
        *("algorithm=ringmaster", "servers=2", "ahead=2", "rule.momentum=dana"),
        "transport=messages",
    ],
}


def applied(run: Path) -> Counter[int]:
    """How often each ticket's gradient entered the weights."""
    records = read_trace(run / "trace.bin", strict=True).records()
    return Counter(r.ticket for r in records if r.action in (Action.APPLIED, Action.HELD))


def test_runs_replay_identically_on_one_server(
    shared_world: Callable[..., Any], tmp_path: Path
) -> None:
    runs = [(str(tmp_path / name), ["epochs=2", *words]) for name, words in RUNS.items()]
    answers = shared_world("world_calls:train", JOB, runs, ranks=5)
    assert [answer.value for answer in answers] == 5 * [len(runs) * ["completed"]]
    for name in RUNS:
        assert replay(tmp_path / name).identical, name
        assert applied(tmp_path / name) == Counter(range(2 * 90)), name
    environment = json.loads((tmp_path / "held" / "environment.json").read_text())
    roles = [rank["role"] for rank in environment["ranks"]]
    assert roles == 3 * ["server"] + 2 * ["worker"]
    log = (tmp_path / "held" / "logs" / "rank-0.log").read_text()
    assert "3 servers and 2 workers" in log
    assert "2 of 2 workers share memory with all 3 servers" in log
    assert [rank["transport"] for rank in environment["ranks"]] == 3 * [""] + 2 * ["shared"]


def test_a_run_resumes_with_another_number_of_servers(
    shared_world: Callable[..., Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = ["algorithm=dana", "lr=0.01", "epochs=4", NET]
    first, *_ = shared_world("world_calls:interrupt", JOB, str(run), [*words, "servers=2"], ranks=4)
    assert first.value == ["interrupted", signal.SIGUSR1]
    first, *_ = shared_world("world_calls:interrupt", JOB, str(run), [*words, "servers=3"], ranks=5)
    assert first.value == ["interrupted", signal.SIGUSR1]
    shared_world("world_calls:train", JOB, [(str(run), words)], ranks=3)
    assert json.loads((run / "summary.json").read_text())["status"] == "completed"
    assert applied(run) == Counter(range(4 * 90))
    assert replay(run).identical


def test_a_model_that_is_too_small_for_its_servers_is_refused(
    shared_world: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "job.yaml").write_text(
        "algorithm: asgd\nepochs: 1\nbatch_size: 8\nlr: 0.1\nservers: 2\n"
        "task: {name: quadratic, dimension: 3}\n"
    )
    run = tmp_path / "run"
    answers = shared_world("world_calls:refused", str(tmp_path / "job.yaml"), str(run), [], ranks=3)
    for answer in answers:
        assert "servers: got 2; allowed: up to 1 for this model" in answer.value
    assert not run.exists()


@pytest.mark.ulfm
def test_a_server_that_follows_and_dies_ends_the_run_by_name_and_another_number_resumes(
    processes: Any, shared_world: Callable[..., Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = ["algorithm=asgd", "epochs=3", "checkpoint.every=1"]
    argv = ["-m", "mpi_dcasgd", "run", "--fault-tolerant", "-n", "4", JOB, *words, "servers=2"]
    env = {
        "PYTHONPATH": os.pathsep.join([str(FAULTS), str(FAULTS.parents[2])]),
        "MPI_DCASGD_TEST_FAULT": "1 mpi_dcasgd.server.follower:Follower.carry_out 300 SIGKILL",
    }
    finished = processes.run([sys.executable, *argv, "--run-dir", str(run)], env=env)
    assert finished.status == 1, finished
    told = f"RanksLostError: server 1 (rank 1 on {os.uname().nodename}) died"
    assert f"{told}; to resume, rerun the same command" in finished.stderr
    assert json.loads((run / "summary.json").read_text())["reason"] == told
    assert checkpoints_in(run / "checkpoints")
    shared_world("world_calls:train", JOB, [(str(run), words)], ranks=3)
    assert applied(run) == Counter(range(3 * 90))
    assert replay(run).identical


def test_a_server_that_does_not_answer_is_named_and_nobody_else_is_blamed_meanwhile(
    shared_world: Callable[..., Any],
) -> None:
    answers = shared_world("lost_ranks:watch_follower", ranks=2, path=[Path(__file__).parent])
    answered, told = answers[0].value
    assert answered == [True, False]
    assert told.startswith("server 1 (rank 1 on b) hangs: nothing came from it for 1.")


def test_a_server_that_follows_leaves_when_its_last_reply_is_received(
    shared_world: Callable[..., Any],
) -> None:
    answers = shared_world("lost_ranks:last_reply", ranks=3, path=[Path(__file__).parent])
    assert [answer.value for answer in answers] == 3 * [False]


@pytest.mark.ulfm
def test_a_worker_that_dies_costs_its_tickets_and_no_more(processes: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    argv = ["-m", "mpi_dcasgd", "run", "--fault-tolerant", "-n", "4", JOB, "--run-dir", str(run)]
    argv += ["algorithm=dcasgd-a", "epochs=2", "servers=2", "transport=messages"]
    env = {
        "PYTHONPATH": os.pathsep.join([str(FAULTS), str(FAULTS.parents[2])]),
        "MPI_DCASGD_TEST_FAULT": "3 mpi_dcasgd.learning.learner:Learner.gradient 20 SIGKILL",
    }
    finished = processes.run([sys.executable, *argv], env=env)
    assert finished.status == 0, finished
    assert "worker 1 (rank 3 on " in finished.stdout
    assert applied(run) == Counter(range(2 * 90))
    assert replay(run).identical

"""The Python API in a world: sub-communicators, many runs in one process, one rank's exception."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(180)]

PROGRAM = Path(__file__).with_name("api_ranks.py")


@pytest.mark.horovod
def test_runs_follow_each_other_and_go_side_by_side(
    shared_world: Callable[..., Any], tmp_path: Path
) -> None:
    answers = shared_world("api_ranks:again_and_again", tmp_path, timeout=150)
    assert {answer.stdout for answer in answers} == {""}, "nothing is printed"
    shas: dict[str, set[str]] = {}
    for file in tmp_path.glob("*/summary.json"):
        summary = json.loads(file.read_text())
        if summary["driver"] == "horovod":
            name = file.parent.name.rpartition("-")[0]
            shas.setdefault(name, set()).add(summary["weights_sha256"])
    assert sorted(shas) == ["all-ssgd-5", "half-ssgd-2", "half-ssgd-3"]
    assert all(len(found) == 1 for found in shas.values()), "the same, however often"


def test_a_run_sends_on_a_communicator_of_its_own(
    shared_world: Callable[..., Any], tmp_path: Path
) -> None:
    shared_world("api_ranks:beside_messages", tmp_path, ranks=3)


def test_one_ranks_exception_may_be_raised(mpirun: Callable[..., Any], tmp_path: Path) -> None:
    finished = mpirun(3, PROGRAM, "raised", tmp_path)
    assert finished.status == 7, finished
    assert "raised: a lightning struck" in finished.stdout
    assert "Traceback" not in finished.stderr, finished


def test_mistakes_are_raised_on_all_ranks_and_the_world_goes_on(
    shared_world: Callable[..., Any], tmp_path: Path
) -> None:
    answers = shared_world("api_ranks:mistakes", tmp_path, ranks=3)
    told = answers[0].stdout
    assert "lr: got -1" in told
    assert "comm: algorithm sgd is one process, but got 3 ranks" in told
    assert "algorithm asgd got 1 rank" in told
    assert "start-up failed\n  rank 1 on " in told
    assert "there is no worker 9" in told
    assert not any("Traceback" in answer.stderr for answer in answers)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"good", "alone-0", "alone-1", "alone-2"}, "what cannot begin leaves no folder"

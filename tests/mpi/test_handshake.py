"""Ranks that do not agree on code, job or data are refused on all ranks, by the names of both."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpi_dcasgd.drivers.handshake import source_digest

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(120)]

JOB = "jobs/digits.yaml"
HOST = os.uname().nodename


@pytest.mark.parametrize(
    ("odd", "words", "told"),
    [
        ("job", ["lr=0.007"], "lr: 0.1 on ranks 0, 2 ({host}); 0.007 on rank 1 ({host})"),
        ("job", ["seed=3"], "seed: 0 on"),
        ("job", ["algorithm=ssgd"], "algorithm: 'dcasgd-a' on"),
        ("job", ["algorithm=sgd"], "algorithm sgd is one process"),
        ("job", ["model.hidden=[3]"], "model.hidden: "),
        ("version", [], "9.9 on rank 1 ({host})"),
        ("source", [], "source files of mpi_dcasgd: {digest} on ranks 0, 2 ({host}); feedbead on"),
        ("data", [], "training samples: 1437 on ranks 0, 2 ({host}); 1436 on rank 1 ({host})"),
    ],
)
def test_a_rank_that_is_not_like_the_others_is_named_before_anything_is_trained(
    shared_world: Callable[..., Any], tmp_path: Path, odd: str, words: list[str], told: str
) -> None:
    run = tmp_path / "run"
    answers = shared_world("world_calls:refused_odd", JOB, run, odd, words, ranks=3)
    (text,) = {answer.value for answer in answers}
    assert told.format(host=HOST, digest=source_digest()) in text
    assert not (run / "metrics.jsonl").exists()
    assert not (run / "summary.json").exists()


def test_ranks_may_have_their_own_devices(shared_world: Callable[..., Any], tmp_path: Path) -> None:
    answers = shared_world(
        "world_calls:refused_odd", JOB, tmp_path / "run", "job", ["device=cpu"], ranks=2
    )
    assert [answer.value for answer in answers] == ["trained", "trained"]

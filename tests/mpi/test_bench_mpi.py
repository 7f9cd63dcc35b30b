"""``bench mpi`` measures real worlds, and refuses what has no server."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from in_process import command

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(120)]

BENCH = [sys.executable, "-m", "mpi_dcasgd", "bench", "mpi"]


def test_every_size_and_world_is_measured(processes: Any) -> None:
    words = ["--workers", "1", "2", "--params", "100", "5000", "--rounds", "2", "--rules", "asgd"]
    finished = processes.run([*BENCH, *words, "--json"], timeout=90)
    assert finished.status == 0, finished
    results = json.loads(finished.stdout)["results"]
    assert [(r["workers"], r["params"]) for r in results] == [
        (1, 100),
        (1, 5000),
        (2, 100),
        (2, 5000),
    ]
    for result in results:
        assert list(result["per_s"]) == ["raw MPI", "asgd"]
        assert all(len(rates) == 2 and min(rates) > 0 for rates in result["per_s"].values())


@pytest.mark.parametrize(
    ("rule", "words"),
    [("dcasgd_a", "did you mean dcasgd-a"), ("ssgd", "has no server; choose an asynchronous")],
)
def test_what_has_no_server_is_refused(
    capsys: pytest.CaptureFixture[str], rule: str, words: str
) -> None:
    assert command("bench", "mpi", "--rules", rule) == 2
    told = capsys.readouterr().err
    assert words in told
    assert "Traceback" not in told

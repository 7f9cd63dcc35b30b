"""``bench mpi`` measures real worlds, and refuses what has no server."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from in_process import command

from mpi_dcasgd.tools.bench.idle import Idle

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(180)]

BENCH = [sys.executable, "-m", "mpi_dcasgd", "bench", "mpi"]


def test_every_size_and_rule_is_measured(processes: Any) -> None:
    words = ["--workers", "2", "--params", "100", "5000", "--rounds", "2"]
    words += ["--transport", "messages", "chunks", "shared", "--chunk-mb", "0.004"]
    rules = ["asgd", "dcasgd-a"]
    finished = processes.run([*BENCH, *words, "--rules", *rules, "--json"], timeout=170)
    assert finished.status == 0, finished
    results = json.loads(finished.stdout)["results"]
    assert [(r["workers"], r["params"], r["rule"], r["transport"]) for r in results] == [
        (2, size, rule, transport)
        for size in (100, 5000)
        for rule in rules
        for transport in ("messages", "chunks", "shared")
    ]
    for result in results:
        for name in ("per_s", "raw_per_s", "update_per_s"):
            assert len(result[name]) == 2
            assert min(result[name]) > 0
        for name in ("over_raw", "over_limit", "over_update"):
            assert 0 < result[f"{name}_min"] <= result[name] <= result[f"{name}_max"]
        assert result["over_limit"] > max(result["over_raw"], result["over_update"])


def test_several_servers_are_measured_in_turns_with_one(shared_world: Callable[..., Any]) -> None:
    spec = {"params": [4096], "rules": ["dcasgd-a"], "rounds": 1, "pushes": 40}
    spec |= {"servers": [2, 1], "transports": ["messages", "shared", "bf16"]}
    first, *others = shared_world("world_calls:bench", spec)
    results = json.loads(first.stdout)
    assert [(r["servers"], r["workers"]) for r in results] == 3 * [(1, 3)] + 3 * [(2, 3)]
    assert all(min(*r["per_s"], *r["raw_per_s"], *r["update_per_s"]) > 0 for r in results)
    assert not any(other.stdout for other in others)


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


def test_what_waiting_costs_is_measured(shared_world: Callable[..., Any]) -> None:
    waiter, sender = shared_world("world_calls:idle", 20, ranks=2)
    share, *late_s = waiter.value
    assert sender.value == []
    assert 0 < share < 1.2
    assert len(late_s) == 20
    assert 0 < late_s[0] <= late_s[-1]
    assert str(Idle(0.065, [1e-4, 2e-4, 3e-4])) == (
        "6.5 % of a core; a message is seen after 200 us (median), 300 (nine of ten), 300"
    )

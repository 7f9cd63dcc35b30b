"""Plans of clusters that nobody has at hand: ``mpi-dcasgd plan`` and docs/scaling.md."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from mpi_dcasgd.cli import main
from mpi_dcasgd.drivers.simulation.cluster import Cluster, Network, ServerTimes
from mpi_dcasgd.drivers.simulation.delays import Constant
from mpi_dcasgd.runs.scaling import kept_bytes, needed, plan_scaling

SCALING_MD = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
FREE = ["network={}", "server={service_s: 0}", "delays=constant", "delays.mean_s=0.5"]


def plan(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["plan", *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_free_network_and_server_leave_workers_what_they_can_do() -> None:
    (row,) = plan_scaling(1000, [8], words=FREE).rows
    assert row.servers == 1
    assert row.ideal_per_s == 16.0
    assert [row.async_per_s, row.one_server_per_s] == pytest.approx([16.0, 16.0], rel=0.01)
    assert row.sync_per_s == pytest.approx(16.0)
    assert row.staleness == 7.0
    assert row.sync_slow_per_s == pytest.approx(4.0)
    assert row.async_slow_per_s == pytest.approx(14.0 + 0.5, rel=0.01)
    assert row.pays_slow == pytest.approx(14.5 / 4, rel=0.01)


def test_there_are_as_many_servers_as_keep_links_and_servers_below_the_limit() -> None:
    # A push is a second's work for a server, or for its link; 4 workers make one every 1/4 s or so.
    by_link = Cluster(delays=Constant(), network=Network(server_bytes_per_s=100.0))
    by_work = Cluster(delays=Constant(), server=ServerTimes(bytes_per_s=100.0))
    for cluster, alone_s in ((by_link, 2.0), (by_work, 1.0)):
        servers, enough = needed(cluster, 4, 100, None)
        assert enough
        assert 4 / (1 + alone_s / servers) <= 0.8 * servers
        fewer = servers - 1
        assert 4 / (1 + alone_s / fewer) > 0.8 * fewer


def test_a_time_that_no_number_of_servers_shortens_is_told() -> None:
    fixed = Cluster(delays=Constant(), server=ServerTimes(service_s=0.1, bytes_per_s=1e4))
    servers, enough = needed(fixed, 100, 1000, None)
    assert not enough
    assert servers <= 11  # the part that is shared is a tenth of the other by then


def test_servers_that_vectors_do_not_fit_into_are_too_few() -> None:
    free = Cluster(delays=Constant())
    assert kept_bytes(10, 100) == 2200
    assert needed(free, 10, 100, None) == (1, True)
    assert needed(free, 10, 100, 1000.0) == (3, True)


def test_options_and_words_say_the_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    found = plan(
        capsys,
        *("--params", "1e6", "--workers", "4", "--gbit", "8", "--step-s", "2", "--servers", "3"),
    )
    assert found["network"]["server_bytes_per_s"] == found["network"]["bytes_per_s"] == 1e9
    assert found["network"]["hidden_s"] == 1.0
    assert found["step_s"] == 2.0
    (row,) = found["rows"]
    assert row["servers"] == 3
    assert row["server_bytes"] == pytest.approx(10 * 4e6 / 3, rel=1e-3)
    words = ["network.latency_s=1.0", "exchange.element_bytes=2", "server.bytes_per_s=1e8"]
    other = plan(capsys, "--params", "1e6", *words, "--workers", "4", "--gbit", "8")
    assert other["network"]["latency_s"] == 1.0
    assert other["network"]["server_bytes_per_s"] == 1e9  # what was not said stays
    assert other["server"] == {"service_s": 25e-6, "bytes_per_s": 1e8}
    assert other["exchange"]["element_bytes"] == 2
    named = plan(capsys, "--params", "9", "delays=pareto", "--workers", "2", "--step-s", "3")
    assert named["step_s"] == 3.0
    assert named["delays"]["model"] == "pareto"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["workers=3"], "workers: use --workers"),
        (["exchange.servers=3"], "exchange.servers: use --servers"),
        (["delays.mean_s=0"], "delays.mean_s: got 0"),
        (["delays.mean=1"], "delays.mean: unknown; did you mean mean_s?"),
        (["lr=0.1"], "lr: unknown"),
        (["cluster=x.yaml", "--gbit", "3"], "--gbit: has no effect beside cluster=FILE"),
    ],
)
def test_what_makes_no_sense_is_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--params", "10", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "option", [["--params", "0.5"], ["--params", "3", "--gbit", "0"], ["--params", "nan"]]
)
def test_numbers_that_cannot_be_are_refused(
    option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *option]) == 2
    assert "allowed: " in capsys.readouterr().err


def test_the_page_shows_what_its_commands_print(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```\n\$ mpi-dcasgd (plan .*)\n((?:.*\n)*?)```", SCALING_MD)
    assert len(blocks) >= 9
    for command, shown in blocks:
        words = shlex.split(command)
        at = words.index("--workers")
        fewest = words[at + 1]
        while len(words) > at + 2 and words[at + 2].isdigit():
            del words[at + 2]  # the rows of many workers take seconds
        assert main(words) == 0
        row = next(
            line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == [fewest]
        )
        assert row in shown, command

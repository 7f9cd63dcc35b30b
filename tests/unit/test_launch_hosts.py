"""Hosts in mpirun's arguments: when they are watched, and how lost ones are left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.tools.launch.hosts import Without, keepalive, leave_out, lost_hosts


@pytest.fixture
def without(tmp_path: Path) -> Without:
    return Without(("h3.cluster",), {"h1": 2, "h2": 2, "h3": 2}, tmp_path / "left")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--host", "h1:2,h2,h3:2"], ["--host", "h1:2,h2"]),
        (["-x", "A", "-H=h3,user@h2:4"], ["-x", "A", "-H", "user@h2:4"]),
        # The scheduler's hosts, of which mpirun's arguments say nothing.
        (["--map-by", "node"], ["--map-by", "node", "--host", "h1:2,h2:2"]),
    ],
)
def test_a_lost_host_is_left_out(words: list[str], expected: list[str], without: Without) -> None:
    assert leave_out(words, without) == expected


def test_addresses_are_told_apart() -> None:
    lost = Without(("10.0.0.3",), {}, Path())
    assert leave_out(["--host", "10.0.0.1,10.0.0.3:2"], lost) == ["--host", "10.0.0.1"]


def test_a_hostfile_of_the_user_stays_as_it_is(without: Without, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    text = "h1 slots=2 # the first\n\nme@h3.other slots=2\nh2:2\n"
    hosts.write_text(text)
    assert leave_out(["--hostfile", str(hosts)], without) == ["--hostfile", str(without.hostfile)]
    assert without.hostfile.read_text() == "h1 slots=2 # the first\n\nh2:2\n"
    assert hosts.read_text() == text


@pytest.mark.parametrize("words", [["--host", "h3:2"], ["--hostfile", "FILE"]])
def test_a_start_without_hosts_is_refused(
    words: list[str], without: Without, tmp_path: Path
) -> None:
    (tmp_path / "hosts").write_text("# only this\nh3\n")
    words = [str(tmp_path / "hosts") if word == "FILE" else word for word in words]
    with pytest.raises(LaunchError, match="no host is left"):
        leave_out(words, without)
    with pytest.raises(LaunchError, match=r"missing: cannot be read"):
        leave_out(["--hostfile", str(tmp_path / "missing")], without)


def test_a_scheduler_without_hosts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="no host is left without h3"):
        leave_out([], Without(("h3",), {"h3": 4}, tmp_path / "left"))


def test_other_hosts_are_watched_and_the_users_word_goes_first() -> None:
    assert keepalive([], {}) == {}
    watched = keepalive(["--hostfile", "hosts"], {})
    assert watched == {
        "PRTE_MCA_oob_tcp_keepalive_time": "20",
        "PRTE_MCA_oob_tcp_keepalive_intvl": "10",
        "PRTE_MCA_oob_tcp_keepalive_probes": "4",
    }
    assert keepalive(["--host=h1,h2"], {}) == watched
    assert keepalive([], {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2"}) == watched
    assert keepalive([], {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1"}) == {}
    assert keepalive(["--host", "h1", "--prtemca", "oob_tcp_keepalive_time", "0"], {}) == {}
    assert keepalive(["--host", "h1"], {"PRTE_MCA_oob_tcp_keepalive_time": "2"}) == {}


def test_lost_hosts_are_named_once_each() -> None:
    one = "PRTE has lost communication with a remote daemon.\n\n  HNP daemon   : [a] on node h1\n"
    text = "".join(f"{one}  Remote daemon: [b] on node {host}\n\n" for host in ("h3", "h2", "h3"))
    assert lost_hosts(text) == ["h3", "h2"]
    assert lost_hosts("  Remote daemon: [b] on node h3\n") == []

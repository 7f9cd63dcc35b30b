"""Hosts whose names lead nowhere are named before torch.distributed tries them for minutes."""

from __future__ import annotations

import socket

import pytest

from mpi_dcasgd.drivers.reducers import check_names
from mpi_dcasgd.errors import LaunchError

NAMES = {"node1": "10.0.0.1", "10.0.0.1": "10.0.0.1", "laptop": "127.0.1.1", "node2": "10.0.0.2"}


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(name: str, port: None) -> list[tuple[object, ...]]:
        if name not in NAMES:
            raise socket.gaierror(-3, "Temporary failure in name resolution")
        return [(0, 0, 0, "", (NAMES[name], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)


@pytest.mark.parametrize(
    ("address", "own", "backend", "told"),
    [
        ("node1", "node2", "gloo", ""),
        ("node9", "node2", "nccl", "cannot resolve node9, where rank 0 is; set MASTER_ADDR to its"),
        ("10.0.0.1", "node9", "nccl", ""),
        ("10.0.0.1", "node9", "gloo", "cannot resolve its own name, node9; set GLOO_SOCKET_IFNAME"),
        ("node1", "laptop", "gloo", "laptop, to 127.0.1.1, where no other host can reach it; set"),
    ],
)
def test_names_that_lead_nowhere_are_refused(
    address: str, own: str, backend: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: own)
    if not told:
        check_names(address, backend)
        return
    with pytest.raises(LaunchError) as caught:
        check_names(address, backend)
    assert told in str(caught.value)
    assert str(caught.value).endswith(", or sync.backend=horovod")
    if backend == "gloo":
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth0")
        check_names(address, backend)

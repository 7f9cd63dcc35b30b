"""Benchmark against other parameter servers: the same push, DC-ASGD-a update and pull.

torch.distributed.rpc and Ray are used as their own documentation uses them for a parameter server
(``peer_rpc.py``, ``peer_ray.py``), on the same machine and in turns with this package's server.
"""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from mpi_dcasgd.drivers.topology import SERVER, Topology
from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.tools.bench import mpi
from mpi_dcasgd.tools.bench.spread import rate, ratios, table
from mpi_dcasgd.tools.bench.worlds import Starter, answer_in, finish

RULE = "dcasgd-a"
SIZES = (270_000, 25_600_000)
"""Parameters of ResNet-20 (CIFAR) and ResNet-50."""
PEERS = ("rpc", "ray")

_MODULE = "mpi_dcasgd.tools.bench.peer_"


@dataclass(frozen=True)
class Case:
    """Rates at one size with so many workers, one a round.

    Attributes:
        workers: Number of workers.
        params: Elements of a vector.
        per_s: Pushes and pulls a second of this package's server.
        peers_per_s: The same of others, by the names of ``PEERS``.
        skipped: Why others were not measured.
    """

    workers: int
    params: int
    per_s: Sequence[float]
    peers_per_s: Mapping[str, Sequence[float]]
    skipped: Mapping[str, str]

    def entry(self) -> dict[str, Any]:
        """Return it as JSON has it; ratios are missing for those that were not measured."""
        found: dict[str, Any] = {
            "workers": self.workers,
            "params": self.params,
            "rule": RULE,
            "per_s": self.per_s,
            **{f"{peer}_per_s": rates for peer, rates in self.peers_per_s.items()},
            "skipped": dict(self.skipped),
        }
        for peer, rates in self.peers_per_s.items():
            found |= ratios(self.per_s, rates).entry(f"over_{peer}")
        return found


def missing_peers() -> dict[str, str]:
    """Return why peers cannot be measured here, by name."""
    missing = {}
    if importlib.util.find_spec("ray") is None:
        missing["ray"] = "ray is not installed: pip install 'mpi-dcasgd[peers]'"
    if not _has_rpc():
        missing["rpc"] = "this PyTorch is built without torch.distributed.rpc"
    return missing


def _has_rpc() -> bool:
    import torch.distributed.rpc as rpc

    return rpc.is_available()


def measure(
    workers: int,
    sizes: Sequence[int],
    rounds: int,
    starter: Starter,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Case]:
    """Measure every peer and this package's server once a round, in turns.

    Args:
        workers: Number of workers.
        sizes: Lengths of the vectors.
        rounds: Measurements of each.
        starter: Starts this package's world.
        tell: Is given a line about what is being measured.

    Raises:
        LaunchError: A world failed.
    """
    skipped = missing_peers()
    peers = [peer for peer in PEERS if peer not in skipped]
    ways: dict[str, Callable[[], list[float]]] = {
        "rpc": lambda: rpc_rates(workers, sizes),
        "ray": lambda: ray_rates(workers, sizes),
        "ours": lambda: [
            case.per_s[0] for case in mpi.measure(workers, sizes, [RULE], 1, starter, ["shared"])
        ],
    }
    found: dict[str, list[list[float]]] = {name: [] for name in (*peers, "ours")}
    for number in range(rounds):
        for name, rates in found.items():
            tell(f"round {number + 1} of {rounds}, {workers} workers: {name}")
            rates.append(ways[name]())
    return [
        Case(
            workers,
            size,
            [rates[place] for rates in found["ours"]],
            {peer: [rates[place] for rates in found[peer]] for peer in peers},
            skipped,
        )
        for place, size in enumerate(sizes)
    ]


def rpc_rates(workers: int, sizes: Sequence[int]) -> list[float]:
    """Start a server and its workers for torch.distributed.rpc; return the server's rates.

    Raises:
        LaunchError: One of them failed.
    """
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    spec = json.dumps({"workers": workers, "sizes": list(sizes), "port": port})
    program = [sys.executable, "-m", f"{_MODULE}rpc", spec]
    with ExitStack() as stack:
        errors = stack.enter_context(tempfile.TemporaryFile("w+"))
        helpers = []
        for rank in Topology("asynchronous", workers).worker_ranks:
            one = subprocess.Popen(
                [*program, str(rank)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
            helpers.append(one)
            stack.callback(one.wait)
            stack.callback(one.kill)  # of one that has ended this does nothing
        try:
            rates: list[float] = answer_in(finish([*program, str(SERVER)]))
        except LaunchError as error:
            errors.seek(0)
            raise LaunchError(f"{error}\nand its workers:\n{errors.read()}") from None
        for one in helpers:
            one.wait()
    return rates


def ray_rates(workers: int, sizes: Sequence[int]) -> list[float]:
    """Start Ray with a server and workers as actors; return the server's rates.

    Raises:
        LaunchError: It failed.
    """
    spec = json.dumps({"workers": workers, "sizes": list(sizes)})
    rates: list[float] = answer_in(finish([sys.executable, "-m", f"{_MODULE}ray", spec]))
    return rates


def as_table(cases: Sequence[Case]) -> str:
    """Return rates and ratios as a Markdown table, with a line for whoever was not measured."""
    names = {"rpc": "torch.distributed.rpc", "ray": "Ray"}
    peers = [peer for peer in PEERS if cases and peer in cases[0].peers_per_s]
    heads = ["workers", "parameters", "this server /s"]
    for peer in peers:
        heads += [f"{names[peer]} /s", f"over {names[peer]}"]
    rows = []
    for case in cases:
        cells = [str(case.workers), f"{case.params / 1e6:.2f} M", rate(case.per_s)]
        for peer in peers:
            cells += [
                rate(case.peers_per_s[peer]),
                str(ratios(case.per_s, case.peers_per_s[peer])),
            ]
        rows.append(cells)
    skipped = cases[0].skipped if cases else {}
    notes = [f"{names[peer]} was not measured: {reason}" for peer, reason in skipped.items()]
    return "\n".join([table(heads, rows), *(["", *notes] if notes else [])])

"""Runs over three hosts, which are network namespaces with a slow network between them."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import mpi_dcasgd
from mpi_dcasgd.runs.replay import replay
from mpi_dcasgd.tools.launch import world as launch

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.root,
    pytest.mark.netns,
    pytest.mark.ulfm,  # stands for: Open MPI, whose flags for other hosts these are
    pytest.mark.timeout(150),
]

HERE = Path(__file__).parent
HOSTS = 3
LATENCY_MS = 2
JOB = "jobs/digits.yaml"
# The hosts end with their first process, that with unshare, and that with the tests.
NAMESPACES = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"),
)
NETWORK = ("--latency-ms", str(LATENCY_MS), "--mbit", "200", str(HOSTS))


def on_hosts(*argv: str) -> list[str]:
    """What executes a command on the first of the hosts."""
    return [*NAMESPACES, sys.executable, str(HERE / "hosts.py"), *NETWORK, *argv]


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    """What tells mpirun of the hosts: two ranks each."""
    hostfile = tmp_path / "hosts"
    hostfile.write_text("".join(f"h{number} slots=2\n" for number in range(1, HOSTS + 1)))
    agent = ["--prtemca", "plm", "ssh", "--prtemca", "plm_ssh_agent", str(HERE / "agent")]
    return [*agent, "--hostfile", str(hostfile)]


RUNS = {"dcasgd-a": ["algorithm=dcasgd-a"], "ssgd": ["algorithm=ssgd", "sync.lr_scaling=none"]}
PROGRAM = """
import json, sys
from mpi4py import MPI  # with threads, which Horovod needs
import mpi_dcasgd
for path, words in json.loads(sys.argv[1]).items():
    mpi_dcasgd.train("jobs/digits.yaml", run_dir=path, words=["epochs=2", *words])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def trained(
    processes: Any, flags: list[str], folder: Path, request: pytest.FixtureRequest
) -> Callable[[str], Path]:
    """Where an algorithm was trained on all hosts with six ranks; all are, in one world."""

    def find(algorithm: str) -> Path:
        if not (folder / algorithm).exists():
            possible = [name for name in RUNS if name != "ssgd" or find_spec("horovod")]
            runs = {str(folder / name): RUNS[name] for name in possible}
            program = [sys.executable, "-c", PROGRAM, json.dumps(runs)]
            command = launch.plan(6, program, extra=flags)
            finished = processes.run(on_hosts(*command.argv), env=dict(command.env), timeout=120)
            assert finished.status == 0, finished
        ranks = json.loads((folder / algorithm / "environment.json").read_text())["ranks"]
        assert Counter(rank["host"] for rank in ranks) == {"h1": 2, "h2": 2, "h3": 2}
        return folder / algorithm

    return find


def test_the_hosts_are_apart(processes: Any, flags: list[str]) -> None:
    code = """
from time import monotonic
from mpi4py import MPI
comm = MPI.COMM_WORLD
names = comm.gather((MPI.Get_processor_name(), comm.Split_type(MPI.COMM_TYPE_SHARED).size))
trips = []
for _ in range(5):  # between the first rank, on the first host, and the last, on the last
    begun = monotonic()
    if comm.rank == 0:
        comm.sendrecv(None, 5, source=5)
    elif comm.rank == 5:
        comm.send(comm.recv(source=0), 0)
    trips.append(1e3 * (monotonic() - begun))
if comm.rank == 0:
    print(names, min(trips), sep="\\n", flush=True)
"""
    command = launch.plan(6, [sys.executable, "-c", code], extra=flags)
    finished = processes.run(on_hosts(*command.argv), env=dict(command.env))
    assert finished.status == 0, finished
    names, fastest_ms = finished.stdout.splitlines()
    assert names == str([(f"h{number}", 2) for number in (1, 1, 2, 2, 3, 3)])
    assert float(fastest_ms) >= 2 * LATENCY_MS


def test_an_asynchronous_run_over_hosts_is_replayed_identically(
    trained: Callable[[str], Path],
) -> None:
    folder = trained("dcasgd-a")
    ranks = json.loads((folder / "environment.json").read_text())["ranks"]
    assert [rank["transport"] for rank in ranks] == ["", "shared", *4 * ["messages"]]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["samples"] == 2 * 1437
    found = replay(folder)
    assert found.identical, found


@pytest.mark.horovod
def test_synchronous_weights_are_those_of_one_process_to_rounding(
    trained: Callable[[str], Path], tmp_path: Path
) -> None:
    # Six ranks on one host would be the same, but contend for its cores.
    apart, alone = trained("ssgd"), tmp_path / "alone"
    mpi_dcasgd.train(JOB, run_dir=alone, algorithm="sgd", epochs=2, batch_size=6 * 16)
    weights, expected = (
        torch.load(folder / "weights.pt", weights_only=True)["state_dict"]
        for folder in (apart, alone)
    )
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-5)


def test_a_host_that_is_cut_off_ends_the_job_with_its_name(
    processes: Any, flags: list[str], tmp_path: Path
) -> None:
    # By default mpirun looks after 5 minutes of silence, and by no means outlives a host.
    for name, value in {"time": 2, "intvl": 1, "probes": 2}.items():
        flags += ["--prtemca", f"oob_tcp_keepalive_{name}", str(value)]
    command = [sys.executable, "-m", "mpi_dcasgd", "run", "-n", "6", JOB, "epochs=100000"]
    options = ["--run-dir", str(tmp_path / "run"), "--mpirun-args", shlex.join(flags)]
    process = processes.start(on_hosts(*command, *options))
    processes.wait_for(process, lines=3, timeout=60)
    psutil.Process(process.pid).children()[0].send_signal(signal.SIGUSR1)
    finished = processes.finish(process)
    assert finished.status == 1, finished
    assert "lost communication" in finished.stderr, finished
    assert "on node h3" in finished.stderr
    assert not (tmp_path / "run" / "summary.json").exists()

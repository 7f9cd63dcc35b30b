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
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.runs.replay import replay
from mpi_dcasgd.server.records import Action
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


RUNS = {
    "dcasgd-a": ["algorithm=dcasgd-a", "chunk_mb=0.002"],
    "ssgd": ["algorithm=ssgd", "sync.lr_scaling=none"],
}
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
    assert [rank["chunks"] > 1 for rank in ranks] == [False, False, *4 * [True]]
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


LISTENER = """
import socket
with socket.create_server(("", 7777)) as listener:
    connection, _ = listener.accept()
    print("connected", flush=True)
    while connection.recv(1000):
        pass
"""
TALKER = """
import os, socket, time
from mpi_dcasgd.tools.launch.unanswered import unanswered
def connected(host):
    while True:
        try:
            return socket.create_connection((host, 7777))
        except ConnectionRefusedError:
            time.sleep(0.1)
connections = [connected(host) for host in ("h2", "h3")]
print("connected", flush=True)
while not (found := unanswered(os.getpid(), retries=4)):
    for each in connections:
        each.sendall(b"hear")
    time.sleep(0.1)
print(found, unanswered(1), flush=True)
"""


def test_a_host_that_confirms_nothing_is_named(processes: Any) -> None:
    listen = shlex.join([sys.executable, "-c", LISTENER])
    others = "".join(f"{HERE}/agent {host} {shlex.quote(listen)} & " for host in ("h2", "h3"))
    command = others + "exec " + shlex.join([sys.executable, "-c", TALKER])
    env = {"PYTHONPATH": str(HERE.parent.parent)}
    process = processes.start(on_hosts("bash", "-c", command), env=env)
    processes.wait_for(process, 3)
    psutil.Process(process.pid).children()[0].send_signal(signal.SIGUSR1)
    finished = processes.finish(process)
    assert finished.stdout.splitlines() == [*3 * ["connected"], "['h3'] []"], finished


def test_a_host_that_is_cut_off_is_taken_up_again_or_left_out(
    processes: Any, flags: list[str], tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    # mpirun is to see it within 10 s, but not the first time, when the host is back in half of it.
    for name, value in {"time": 6, "intvl": 2, "probes": 2}.items():
        flags += ["--prtemca", f"oob_tcp_keepalive_{name}", str(value)]
    command = [sys.executable, "-m", "mpi_dcasgd", "run", "-n", "6", "--restarts", "2", JOB]
    words = ["algorithm=asgd", "epochs=1000", "faults.patience=2", "record.log_every_s=0.1"]
    words += ["inject.delays={model: constant, mean_s: 0.02}"]  # two cores are enough for it
    options = ["--run-dir", str(folder.path), "--mpirun-args", shlex.join(flags)]
    process = processes.start(on_hosts(*command, *words, *options))

    def tell_network(signum: int) -> None:
        psutil.Process(process.pid).children()[0].send_signal(signum)

    def until(*told: str) -> None:
        processes.wait_until(process, lambda: all(w in processes.output(process) for w in told))

    until("run folder")
    processes.wait_until(process, folder.trace_bin.exists)
    processes.wait_until(process, lambda: folder.trace_bin.stat().st_size > 4096)
    tell_network(signal.SIGUSR1)
    until("(rank 4 on h3) hangs", "(rank 5 on h3) hangs")
    tell_network(signal.SIGUSR2)
    until("(rank 4 on h3) is back", "(rank 5 on h3) is back")
    tell_network(signal.SIGUSR1)  # for good
    until("resumed after")
    (restart,) = folder.restarts()
    assert (restart.cause, restart.ranks, restart.left_out) == ("lost host h3", 4, ("h3",))
    ranks = folder.environment()["ranks"]
    assert [rank["host"] for rank in ranks] == ["h1", "h1", "h2", "h2"]
    launchers = [p for p in processes.alive() if p.cmdline()[1:4] == ["-m", "mpi_dcasgd", "run"]]
    launchers[0].send_signal(signal.SIGTERM)
    finished = processes.finish(process)

    assert finished.status == 143, finished
    assert "with 4 ranks in place of 6, without h3" in finished.stderr
    summary = folder.summary()
    assert (summary["status"], summary["restarts"]) == ("interrupted", 1)
    # The server, whom mpirun leaves behind, has saved all that it had applied.
    trace = folder.trace()
    (resumed,) = trace.restarts
    assert restart.version is not None
    assert resumed.num_workers == 3
    applied = Counter(r.ticket for r in trace.records() if r.action is Action.APPLIED)
    assert set(applied.values()) == {1}

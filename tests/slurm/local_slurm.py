"""A real SLURM on this machine: munged, slurmctld and four slurmd, as root, without systemd.

    with LocalSlurm(folder) as slurm:
        job = slurm.submit("job.sbatch", "--nodes=2")
        slurm.wait(job, "COMPLETED", timeout=60)
        print(slurm.log(job))

Everything has its own folder, ports and keys, so that a site's SLURM on the same machine is not
touched, and ends with the ``with`` or with the process that entered it, even when that is killed
(supervisor.py). ``python local_slurm.py COMMAND ...`` runs one command in it, by hand.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

NODES = ("n1", "n2", "n3", "n4")
CPUS = 2  # a node
GPUS = 4  # likewise, in name only: they can be asked for, and nothing is there
_START_S = 60.0
_LOOK_S = 0.2
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "DEADLINE", "OUT_OF_MEMORY")

# cred_expire is also what a requeued job waits before it can start again (120 s by default).
# KillWait is the time from SIGTERM to SIGKILL. MinJobAge keeps ended jobs for `scontrol show job`.
_CONF = """\
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire={requeue_s}
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool/%n
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TmpFS={folder}/tmp/%n
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=2
GresTypes=gpu
MpiDefault=none
ReturnToService=2
KillWait={kill_wait_s}
OverTimeLimit=0
InactiveLimit=0
MinJobAge=86400
{nodes}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=n[1-4] Default=YES MaxTime=INFINITE PriorityTier=2
PartitionName=low Nodes=n[1-4] MaxTime=INFINITE PriorityTier=1 GraceTime={grace_s}
"""


class SlurmError(AssertionError):
    """SLURM did not do what a test waits for; the text has the job's state and logs."""


class LocalSlurm:
    """A SLURM of four nodes with two CPUs each, all of them this machine.

    Args:
        folder: Where all its files go. Its path must be short (a socket's name has 107 bytes).
        requeue_s: What a requeued job waits before it can start again.
        kill_wait_s: From SIGTERM to SIGKILL where a job is cancelled or out of time.
        grace_s: Likewise where one of partition ``low`` gives way to one of ``main``.
    """

    def __init__(
        self, folder: Path, *, requeue_s: int = 5, kill_wait_s: int = 5, grace_s: int = 20
    ) -> None:
        self.folder = folder
        self._requeue_s = requeue_s
        self._kill_wait_s = kill_wait_s
        self._grace_s = grace_s
        self._supervisor: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        """The environment in which SLURM's commands, and programs that call them, reach it."""
        # Variables of an allocation that the tests may run in themselves would steer sbatch.
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SLURM_", "SBATCH_", "SALLOC_", "SRUN_"))
        }
        return {
            **clean,
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PRTE_MCA_prte_tmpdir_base": str(self.folder / "tmp"),  # conftest.py says why
        }

    def __enter__(self) -> LocalSlurm:
        try:
            self._start()
            self._wait_for_nodes()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all daemons and jobs, and return when none is left."""
        if self._supervisor:
            assert self._supervisor.stdin
            self._supervisor.stdin.close()
            self._supervisor.wait()
            self._supervisor = None

    def run(self, *argv: str, check: bool = True, env: Mapping[str, str] | None = None) -> str:
        """Execute a command that talks to this SLURM, and return its output."""
        done = subprocess.run(
            argv,
            env={**self.env, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if check and done.returncode:
            raise SlurmError(f"{argv}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def submit(self, script: str, *options: str, env: Mapping[str, str] | None = None) -> int:
        """Submit a script, given as its text, and return the job's number."""
        handle, file = tempfile.mkstemp(".sbatch", dir=self.folder)
        with os.fdopen(handle, "w") as text:
            text.write(script)
        log = f"--output={self.folder}/%j.out"
        words = self.run("sbatch", "--parsable", log, *options, file, env=env)
        return int(words.strip().partition(";")[0])

    def job(self, job: int | str) -> dict[str, str]:
        """What ``scontrol show job`` says of a job, or of an array's element (``5_2``)."""
        text = self.run("scontrol", "--oneliner", "show", "job", str(job)).splitlines()[0]
        return dict(re.findall(r"(\S+?)=(.*?)\s*(?=\s\S+=|$)", text))

    def state(self, job: int | str) -> str:
        """Its state, ``RUNNING`` and the like."""
        return self.job(job)["JobState"]

    def wait(self, job: int | str, *states: str, timeout: float = 60) -> dict[str, str]:
        """Return what is known of a job as soon as it is in one of the states (or has ended).

        Raises:
            SlurmError: It is not in time, or it has ended in another state.
        """
        wanted = states or ENDED
        deadline = time.monotonic() + timeout
        while True:
            known = self.job(job)
            if known["JobState"] in wanted:
                return known
            if known["JobState"] in ENDED or time.monotonic() > deadline:
                raise SlurmError(f"waited for {wanted}\n{known}\n{self.describe(job)}")
            time.sleep(_LOOK_S)  # SLURM has no call that waits for a job's state

    def elements(self, array: int) -> dict[int, str]:
        """The state of each element of an array, by its index."""
        lines = self.run("scontrol", "--oneliner", "show", "job", str(array)).splitlines()
        found = [re.search(r"ArrayTaskId=(\d+) .*JobState=(\w+)", line) for line in lines]
        return {int(match[1]): match[2] for match in found if match}

    def jobs(self) -> list[int]:
        """The numbers of all jobs that are not over, of arrays the one number."""
        return sorted({int(n) for n in self.run("squeue", "--noheader", "--format=%F").split()})

    def log(self, job: int | str) -> str:
        """What a job has written so far."""
        known = self.job(job)
        files = dict.fromkeys(known.get(key, "/dev/null") for key in ("StdOut", "StdErr"))
        return "".join(
            Path(file).read_text(errors="replace") for file in files if Path(file).exists()
        )

    def cancel(self, job: int | str, *options: str) -> None:
        """``scancel``, with ``--signal=USR1 --batch`` and the like."""
        self.run("scancel", *options, str(job))

    def drain(self, node: str, reason: str = "a test") -> None:
        """Let a node's jobs end and give it no others."""
        self.run("scontrol", "update", f"NodeName={node}", "State=DRAIN", f"Reason={reason}")

    def resume(self, node: str) -> None:
        """Take a drained node back."""
        self.run("scontrol", "update", f"NodeName={node}", "State=RESUME")

    def clear(self) -> None:
        """Cancel all jobs, take all nodes back, and return when each is idle."""
        self.run("scancel", "--user=root")
        for node in NODES:
            if "drain" in self._sinfo(f"--nodes={node}"):
                self.resume(node)
        self._wait_for_nodes()

    def describe(self, job: int | str) -> str:
        """A job's log, all processes and the ends of the daemons' logs, for a failed test."""
        texts = [f"--- log of job {job}\n{self.log(job)}", f"--- processes\n{self._processes()}"]
        for file in sorted(self.folder.glob("*.log")):
            lines = file.read_text(errors="replace").splitlines()[-15:]
            texts.append("\n".join([f"--- {file.name}", *lines]))
        return "\n".join(texts)

    def _processes(self) -> str:
        """Those of this SLURM and of its jobs: each one's parent, age and words."""
        lines = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):  # it has ended in the meantime
                if process.environ().get("SLURM_CONF") == self.env["SLURM_CONF"]:
                    age_s = time.time() - process.create_time()
                    words = " ".join(process.cmdline())[:200]
                    lines.append(f"{process.pid:>8} {process.ppid():>8} {age_s:6.0f} s  {words}")
        return "\n".join(lines)

    def _start(self) -> None:
        folder = self.folder
        for name in ("state", *(f"{kind}/{node}" for kind in ("spool", "tmp") for node in NODES)):
            (folder / name).mkdir(parents=True)
        ports = _free_ports(1 + len(NODES))
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 "
            f"Port={port} CPUs={CPUS} RealMemory=4000 Gres=gpu:{GPUS} State=UNKNOWN"
            for node, port in zip(NODES, ports[1:], strict=True)
        )
        conf = folder / "slurm.conf"
        conf.write_text(
            _CONF.format(
                host=socket.gethostname().partition(".")[0],
                ports=ports,
                folder=folder,
                requeue_s=self._requeue_s,
                kill_wait_s=self._kill_wait_s,
                grace_s=self._grace_s,
                nodes=nodes,
            )
        )
        for number in range(GPUS):
            (folder / f"gpu{number}").touch()
        (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-{GPUS - 1}]\n")
        key = folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        munged = ["munged", "--foreground", "--force", "--num-threads=2", f"--key-file={key}"]
        for what in ("socket", "pid-file", "log-file", "seed-file"):
            munged.append(f"--{what}={folder}/munge.{what.partition('-')[0]}")
        commands = [munged, ["slurmctld", "-D", "-f", str(conf)]]
        commands += [["slurmd", "-D", "-N", node, "-f", str(conf)] for node in NODES]
        file = folder / "commands.json"
        file.write_text(json.dumps(commands))
        with (folder / "daemons.log").open("wb") as output:
            self._supervisor = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("supervisor.py"), file],
                env=self.env,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _sinfo(self, option: str) -> str:
        return self.run("sinfo", "--noheader", "--partition=main", "--format=%T", option)

    def _wait_for_nodes(self) -> None:
        deadline = time.monotonic() + _START_S
        states: Sequence[str] = ()
        while len(states) != len(NODES) or set(states) != {"idle"}:
            if time.monotonic() > deadline:
                texts = [file.read_text() for file in sorted(self.folder.glob("*.log"))]
                raise SlurmError("\n".join([f"nodes are {states} after {_START_S} s", *texts]))
            time.sleep(_LOOK_S)
            with contextlib.suppress(SlurmError):  # slurmctld does not listen yet
                states = self._sinfo("--Node").split()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="slurm") as name, LocalSlurm(Path(name)) as local:
        sys.exit(subprocess.run(sys.argv[1:], env=local.env).returncode)

"""Fixtures for all tests: processes that cannot outlive their test, and markers that skip.

A test that needs what this machine lacks is skipped with the reason. Where it must not be lacking
(`make test` sets up an environment with MPI and Horovod), MPI_DCASGD_REQUIRE names the markers,
``mpi,horovod``, and the same test fails instead.
"""

from __future__ import annotations

import atexit
import gc
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import janitor
import psutil
import pytest

from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.tools.launch.mpirun import detect_flavour, find_mpirun
from mpi_dcasgd.tools.launch.world import plan

_SLURM = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
_NAMESPACES = ("unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "true")
REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Finished:
    """A process that ended by itself; negative statuses are signals."""

    status: int
    stdout: str
    stderr: str

    def __str__(self) -> str:
        return f"status {self.status}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"


_HEARD = [getattr(signal, f"SIG{name}") for name in ("INT", "TERM", "HUP", "USR1", "USR2", "XCPU")]


def _heed_signals() -> None:
    # A shell's background job and nohup ignore these, and so would every process of a test.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


_heed_signals()
gc.disable()  # until all that the tests import is there: `pytest_collection_finish`

# What is compiled is kept for all processes of a test session, and for the sessions that follow;
# `make clean` removes it. A test that must compile for the first time names a folder of its own.
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(REPOSITORY / ".pytest_cache" / "inductor"))
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of processes import the same modules

# Open MPI 5's mpirun names a folder in here after its own number, and cannot start where one of
# the same number that was killed has left its own: numbers come again within hours of tests.
SESSIONS_VARIABLE = janitor.VARIABLE
os.environ[SESSIONS_VARIABLE] = tempfile.mkdtemp(prefix="mpi-")  # sockets need a short path
atexit.register(shutil.rmtree, os.environ[SESSIONS_VARIABLE], ignore_errors=True)


class Processes:
    """Starts processes, and finds them again with all that they have started.

    mpirun gives each rank a process group of its own, and ranks outlive an mpirun that was
    killed: what they all share is the environment, so a variable in it marks them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mark = f"MPI_DCASGD_TEST={uuid.uuid4().hex}"
        self._count = 0
        self._sessions = tempfile.mkdtemp(dir=os.environ[SESSIONS_VARIABLE])
        _janitor()  # for what is left if this pytest is killed

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path = REPOSITORY,
    ) -> subprocess.Popen[bytes]:
        """Start a process whose output goes to files; `finish` waits for it and reads them."""
        self._count += 1
        name, value = self._mark.split("=")
        out, err = self._files(self._count)
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                list(map(str, argv)),
                env={
                    **os.environ,
                    SESSIONS_VARIABLE: self._sessions,
                    **(env or {}),
                    name: value,
                },
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        process.number = self._count  # type: ignore[attr-defined]
        return process

    def finish(self, process: subprocess.Popen[bytes], timeout: float = 100) -> Finished:
        """Wait; what hangs is killed, and the test fails with its output."""
        out, err = self._files(process.number)  # type: ignore[attr-defined]
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            output = Finished(process.wait(), out.read_text(), err.read_text())
            pytest.fail(f"still running after {timeout} s: {process.args}\n{output}")
        return Finished(status, out.read_text(), err.read_text())

    def run(self, argv: Sequence[str], *, timeout: float = 100, **options: object) -> Finished:
        """`start`, then `finish`."""
        return self.finish(self.start(argv, **options), timeout)  # type: ignore[arg-type]

    def output(self, process: subprocess.Popen[bytes]) -> str:
        """What a process that may still be running has written to stdout."""
        return self._files(process.number)[0].read_text()  # type: ignore[attr-defined]

    def wait_for(self, process: subprocess.Popen[bytes], lines: int, timeout: float = 100) -> None:
        """Return once the process has written so many lines to stdout."""
        self.wait_until(process, lambda: self.output(process).count("\n") >= lines, timeout)

    def wait_until(
        self, process: subprocess.Popen[bytes], condition: Callable[[], bool], timeout: float = 100
    ) -> None:
        """Return once a condition holds that the process is to bring about in a file."""
        deadline = time.monotonic() + timeout
        while not condition():
            if process.poll() is not None or time.monotonic() > deadline:
                finished = self.finish(process, 0)
                pytest.fail(f"waited in vain for {process.args}\n{finished}")
            time.sleep(0.05)  # the kernel has no event for a file that grows; a look costs time

    def alive(self) -> list[psutil.Process]:
        """Every process that carries the mark and is not a zombie."""
        found = []
        name, value = self._mark.split("=")
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and process.environ()[name] == value:
                    found.append(process)
            except (psutil.Error, OSError, KeyError):
                continue
        return found

    def close(self) -> None:
        """Kill all of them, and remove what an mpirun that was killed has left."""
        self.kill()
        shutil.rmtree(self._sessions, ignore_errors=True)

    def kill(self) -> None:
        """Kill all of them."""
        while found := self.alive():
            for process in found:
                with suppress(psutil.NoSuchProcess):  # it has ended since it was found
                    process.send_signal(signal.SIGKILL)
            psutil.wait_procs(found, timeout=5)

    def _files(self, number: int) -> tuple[Path, Path]:
        return self._folder / f"{number}.out", self._folder / f"{number}.err"


@pytest.fixture
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Processes that end with the test; one that has to be killed then fails it."""
    started = Processes(tmp_path_factory.mktemp("processes"))
    yield started
    found = started.alive()
    _, left = psutil.wait_procs(found, timeout=5)
    lines = [" ".join(process.cmdline()) for process in left if process.is_running()]
    started.close()
    assert not lines, f"left running: {lines}"


@pytest.fixture
def mpirun(processes: Processes) -> Callable[..., Finished]:
    """``mpirun(n, *arguments)``: a world in which each rank is this Python with the arguments.

    Keyword arguments: ``timeout`` in seconds, ``env``, ``cwd``, ``fault_tolerant``.
    """

    def run(
        n: int,
        *arguments: str,
        timeout: float = 100,
        env: Mapping[str, str] | None = None,
        cwd: Path = REPOSITORY,
        fault_tolerant: bool = False,
    ) -> Finished:
        program = [sys.executable, *map(str, arguments)]
        command = plan(n, program, fault_tolerant=fault_tolerant)
        variables = {**command.env, **(env or {})}
        return processes.run(command.argv, timeout=timeout, env=variables, cwd=cwd)

    return run


@pytest.fixture(scope="session")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """``shared_world("module:function", *arguments, ranks=n)``: see shared_world.py."""
    from shared_world import SharedWorld

    started = Processes(tmp_path_factory.mktemp("world"))
    world = SharedWorld(started)
    try:
        yield world
        world.close()
    finally:
        started.close()


@pytest.fixture
def every_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a run wait for the checkpoint before to be written; otherwise it skips the one due."""
    from mpi_dcasgd.record.checkpoints import CheckpointFiles

    keep = CheckpointFiles.keep

    def keep_after_the_last(files: CheckpointFiles, version: int, content: Any) -> bool:
        files.finish()
        return keep(files, version, content)

    monkeypatch.setattr(CheckpointFiles, "keep", keep_after_the_last)


@pytest.fixture(autouse=True)
def _handlers_as_they_were() -> Iterator[None]:
    """What a command prepares its process for, the next test's process is not prepared for."""
    before = {signum: signal.getsignal(signum) for signum in _HEARD}
    yield
    for signum, handler in before.items():
        if signal.getsignal(signum) != handler:
            signal.signal(signum, handler)


@pytest.fixture(scope="session")
def janitor_at_work() -> None:
    """For tests that look at this process before and after: the janitor is no part of a test."""
    _janitor()


@cache
def _janitor() -> subprocess.Popen[bytes]:
    return janitor.begin(os.environ[SESSIONS_VARIABLE])


@cache
def _lacking(marker: str) -> str | None:
    """Why tests with a marker cannot run here."""
    if marker == "mpi":
        try:
            find_mpirun()
        except LaunchError as error:
            return str(error)
    if marker == "ulfm" and not _lacking("mpi") and not detect_flavour(find_mpirun()).ulfm:
        return f"{find_mpirun()} cannot keep a world running of which a rank has died"
    if marker == "horovod" and not importlib.util.find_spec("horovod"):
        return "Horovod is not installed (python -m mpi_dcasgd.tools.build_horovod)"
    if marker == "gpu":
        import torch

        if not torch.cuda.is_available():
            return "no CUDA device"
    if marker == "slurm" and not all(map(shutil.which, _SLURM)):
        return f"no SLURM on this machine ({', '.join(_SLURM)})"
    if marker in ("root", "slurm", "netns") and os.geteuid() != 0:
        return "needs root"
    if marker == "netns" and not all(map(shutil.which, ("ip", "unshare", "setpriv"))):
        return "no ip, unshare or setpriv command (iproute2, util-linux)"
    if marker == "netns" and subprocess.run(_NAMESPACES, capture_output=True).returncode:
        return "namespaces of one's own are not allowed here"
    if marker == "netns" and not Path("/dev/net/tun").exists():
        return "no /dev/net/tun"
    return None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where several processes run tests: a file to one, all that share something costly, too."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return _shares(file) or file

    return Scheduling(config, log)


@cache
def _shares(file: str) -> str:
    """What the tests of a file share with those of other files: a SLURM, or a world."""
    if file.startswith("tests/slurm/"):
        return "slurm"
    return "world" if "shared_world:" in (REPOSITORY / file).read_text() else ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first: SLURM, mostly waited for, then what starts worlds."""
    order = {name: number for number, name in enumerate(("slurm", "world", "mpi", "cluster"))}

    def place(item: pytest.Item) -> int:
        file = item.path.relative_to(REPOSITORY).as_posix()
        return order.get(_shares(file) or item.path.parent.name, len(order))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Set apart what lasts as long as the tests: each search for garbage would go through it."""
    gc.freeze()
    gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, or fail where it is required, a test that cannot run here."""
    required = os.environ.get("MPI_DCASGD_REQUIRE", "").split(",")
    for marker in {marker.name for marker in item.iter_markers()}:
        if reason := _lacking(marker):
            if marker in required:
                pytest.fail(f"required by MPI_DCASGD_REQUIRE: {reason}", pytrace=False)
            pytest.skip(reason)

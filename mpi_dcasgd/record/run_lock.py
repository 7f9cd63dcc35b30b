"""One run folder has one run: a lock that tells whose it is and can be taken over from the dead.

The lock is a file that only one process can create, which holds on local disks, on NFS since
version 3 and on parallel file systems; flock and fcntl locks do not reach the other hosts on many
of them. It names host, process and SLURM job, and whoever holds it touches it every few seconds.
Another start takes it over

- at once, if it can see that the process is no more: on the same host, or as a later start of the
  same SLURM job;
- else, if it was not touched for a minute by the file server's own clock.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.hangs import working_on

LOCK = ".run-lock"
BEAT_S = 5.0
DEAD_AFTER_S = 60.0
_LOOK_S = 0.5

_held: set[str] = set()  # by this process: two runs of one process are two


class RunLock:
    """The lock of a run folder, held until `release` or the end of the process.

    Args:
        folder: The folder, which exists.
        tell: Called with a sentence if it may take a minute to find out whether a run is at work;
            and once, on another thread, if the lock is found to be gone: the folder was removed,
            or another start took this process for dead.

    Attributes:
        took_over: A run that is no more had it, so the folder is a run's.

    Raises:
        RunFolderError: A run is at work in the folder; with where it is.
        OSError: The folder cannot be written.
    """

    def __init__(self, folder: Path, tell: Callable[[str], None] = lambda text: None) -> None:
        self._path = folder / LOCK
        self._token = secrets.token_hex(8)
        self._tell = tell
        self.took_over = False
        while not self._create():
            self.took_over |= self._take_away(_wait_until_dead(folder, self._path, tell))
        _held.add(self._token)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="run lock", daemon=True)
        self._thread.start()

    def release(self, *, leave: bool = False) -> None:
        """Give the folder back; calling it again does nothing.

        Args:
            leave: Leave the file, as a killed process does: it proves that the folder is a run's.
        """
        self._done.set()
        if self._thread is not threading.current_thread():
            self._thread.join(BEAT_S)  # a file server that is away is not waited for
        if self._token in _held:
            _held.discard(self._token)
            with working_on(self._path):
                self._remove(leave=leave)

    def _remove(self, *, leave: bool) -> None:
        if not leave and _read(self._path).get("token") == self._token:
            with suppress(OSError):
                self._path.unlink()

    def _create(self) -> bool:
        content = json.dumps({**_this_process(), "token": self._token}).encode() + b"\n"
        try:
            descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        return True

    def _take_away(self, dead: str) -> bool:
        """Remove the lock of the dead, and only that: another start may have been quicker."""
        aside = self._path.with_name(f"{LOCK}.{self._token}")
        try:
            self._path.rename(aside)
        except FileNotFoundError:
            return False
        theirs = _token(_read(aside)) != dead
        if theirs:
            with suppress(OSError):
                os.link(aside, self._path)
        aside.unlink(missing_ok=True)
        return not theirs

    def _beat(self) -> None:
        while not self._done.wait(BEAT_S):
            loss = ""
            try:
                os.utime(self._path)
                if _read(self._path).get("token") not in (self._token, None):
                    loss = "another start has taken this run for dead and works in its folder"
            except FileNotFoundError:
                loss = "the run folder, or its lock, was removed"
            except OSError:
                continue  # a file server that is away comes back
            if loss and not self._done.is_set():
                self._tell(f"{self._path.parent}: {loss}")
                return


class HeldFolder:
    """A run folder from before it is looked at until its run is over.

    A folder that does not exist yet is made. It is given back, and removed if it was made and is
    empty, when the block is left without `keep`.

    Args:
        folder: The folder; None if it is to be named later, by `keep`.
        tell: As for `RunLock`.

    Attributes:
        ours: A run that was killed had it.

    Raises:
        RunFolderError: A run is at work in the folder, or it cannot be made.

    Example:
        With the folder that a user has named::

            with HeldFolder(run_dir) as held:
                ...  # look what is in it
                lock = held.keep(run_dir)
    """

    def __init__(
        self, folder: Path | None, tell: Callable[[str], None] = lambda text: None
    ) -> None:
        self._tell = tell
        self._lock: RunLock | None = None
        self._kept = self.ours = False
        self._made: Path | None = None
        if folder is None:
            return
        if folder.is_file():
            raise RunFolderError(f"--run-dir {folder}: is a file; name a folder for the run")
        try:
            self._made = None if folder.exists() else folder
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = RunLock(folder, tell)
        except OSError as error:
            raise RunFolderError(
                f"{error.filename or folder}: cannot be made or emptied for a run: "
                f"{error.strerror}; name a folder that you can write to with --run-dir"
            ) from error
        self.ours = self._lock.took_over

    def keep(self, folder: Path) -> RunLock:
        """Return the lock, which its run is to release."""
        if self._lock is None:
            self._lock = RunLock(folder, self._tell)
        self._kept = True
        return self._lock

    def __enter__(self) -> HeldFolder:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None and self._kept:
            return
        if self._lock is not None:
            self._lock.release()
        if self._made is not None:
            with suppress(OSError):
                self._made.rmdir()


def is_held(folder: Path) -> bool | None:
    """Return whether a run is at work in a folder; None if that cannot be seen from here."""
    held = _read(folder / LOCK)
    if not held:
        return None
    return _is_alive(held)


def holder(folder: Path) -> str:
    """Return who has the lock of a folder, in words: process, host and SLURM job."""
    return _words(_read(folder / LOCK))


def _wait_until_dead(folder: Path, path: Path, tell: Callable[[str], None]) -> str:
    """Return the token of a lock when whoever holds it is known to be no more.

    Raises:
        RunFolderError: It is at work.
    """
    first: float | None = None
    while True:
        held = _read(path)
        alive = _is_alive(held)
        touched = _touched(path)
        if alive is False or touched is None:
            return _token(held)
        age_s = _file_server_s(folder) - touched
        if alive is None and age_s >= DEAD_AFTER_S:
            return _token(held)
        if alive or (first is not None and touched != first):
            raise RunFolderError(
                f"{folder}: a run is at work in this folder ({_words(held)}); wait for its end, "
                "or name another folder with --run-dir"
            )
        if first is None:
            tell(
                f"{folder}: {_words(held)} had this folder {age_s:.0f} s ago; waiting for a sign "
                f"of life until it is {DEAD_AFTER_S:.0f} s"
            )
        first = touched
        time.sleep(_LOOK_S)


def _is_alive(held: Mapping[str, Any]) -> bool | None:
    """Return whether the holder of a lock lives; None if that cannot be seen from here."""
    mine = _this_process()
    if held.get("began") and held.get("machine") == mine["machine"]:
        if held.get("pid") == mine["pid"]:
            return _token(held) in _held
        return _began(held.get("pid")) == str(held["began"])
    job, restart = held.get("slurm_job"), held.get("slurm_restart")
    if job and job == mine["slurm_job"] and restart != mine["slurm_restart"]:
        return False  # SLURM starts a job again once it is no more
    return None


def _this_process() -> dict[str, Any]:
    env = os.environ
    job = env.get("SLURM_JOB_ID", "")
    return {
        "host": socket.gethostname(),
        # Process numbers mean something within one boot, and one container.
        "machine": f"{_text('/proc/sys/kernel/random/boot_id')} {_link('/proc/self/ns/pid')}",
        "pid": os.getpid(),
        "began": _began(os.getpid()),
        "slurm_job": job,
        "slurm_restart": env.get("SLURM_RESTART_COUNT", "0") if job else "",
    }


def _began(pid: Any) -> str:
    """Tell when a process was started, in the kernel's ticks; empty if it is no more."""
    try:
        fields = Path(f"/proc/{int(pid)}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError, TypeError):
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]


def _token(held: Mapping[str, Any]) -> str:
    return str(held.get("token", ""))


def _words(held: Mapping[str, Any]) -> str:
    if not held:
        return "somebody who has just begun"
    words = f"process {held.get('pid')} on {held.get('host')}"
    return f"{words}, SLURM job {held['slurm_job']}" if held.get("slurm_job") else words


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _touched(path: Path) -> float | None:
    """Tell when a lock was touched last; opened, since NFS asks its server again only then."""
    try:
        with open(path, "rb") as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return None


def _file_server_s(folder: Path) -> float:
    """The time by the clock that stamps a folder's files, which may not be this host's."""
    probe = folder / f"{LOCK}.{secrets.token_hex(8)}"
    with open(probe, "xb") as file:
        file.write(b"\n")
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""

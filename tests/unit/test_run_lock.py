"""One run folder has one run, whatever host, process or job the other start is of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record import run_lock
from mpi_dcasgd.record.run_lock import LOCK, HeldFolder, RunLock, holder, is_held

HOLD = """
import sys, time
from pathlib import Path
from mpi_dcasgd.record.run_lock import RunLock
RunLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def elsewhere(folder: Path, **changes: Any) -> Path:
    """The lock of a process on a host that cannot be seen from here."""
    held = {"host": "other", "machine": "other", "pid": 5, "began": "1", "token": "theirs"}
    (folder / LOCK).write_text(json.dumps({**held, **changes}))
    return folder / LOCK


def test_a_folder_is_given_to_one_at_a_time(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    assert is_held(tmp_path)
    with pytest.raises(RunFolderError, match=f"a run is at work .*process {os.getpid()} on "):
        RunLock(tmp_path)
    lock.release()
    lock.release()
    assert list(tmp_path.iterdir()) == []
    again = RunLock(tmp_path)
    assert not again.took_over
    again.release()


def test_a_killed_process_on_this_host_is_seen_to_be_no_more(tmp_path: Path) -> None:
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(RunFolderError, match=f"process {process.pid} on "):
            RunLock(tmp_path)
        process.kill()
    assert is_held(tmp_path) is False
    assert f"process {process.pid}" in holder(tmp_path)
    lock = RunLock(tmp_path)
    assert lock.took_over
    lock.release()


def test_another_process_of_the_same_number_is_not_the_holder(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    held = json.loads((tmp_path / LOCK).read_text())
    lock.release()
    (tmp_path / LOCK).write_text(json.dumps({**held, "pid": os.getppid(), "began": "1"}))
    taken = RunLock(tmp_path)
    assert taken.took_over
    taken.release()


def test_one_on_another_host_that_gives_signs_of_life_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = elsewhere(tmp_path)
    looks = []

    def beat(seconds: float) -> None:
        looks.append(seconds)
        stat = lock.stat()
        os.utime(lock, (stat.st_atime, stat.st_mtime + 1))

    monkeypatch.setattr(run_lock.time, "sleep", beat)
    told: list[str] = []
    with pytest.raises(RunFolderError, match="process 5 on other"):
        RunLock(tmp_path, told.append)
    assert len(told) == 1
    assert "process 5 on other had this folder 0 s ago; waiting for a sign of life" in told[0]
    assert len(looks) == 1
    assert lock.exists()


def test_one_on_another_host_without_a_sign_of_life_is_taken_over(tmp_path: Path) -> None:
    lock = elsewhere(tmp_path)
    os.utime(lock, (0, lock.stat().st_mtime - run_lock.DEAD_AFTER_S - 1))
    mine = RunLock(tmp_path)
    assert mine.took_over
    mine.release()


def test_a_lock_that_was_cut_short_is_judged_by_its_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / LOCK).write_text("")
    monkeypatch.setattr(run_lock, "DEAD_AFTER_S", 0.0)
    mine = RunLock(tmp_path)
    assert mine.took_over
    mine.release()


@pytest.mark.parametrize(("restarts", "gone"), [("1", True), ("0", False)])
def test_a_job_that_slurm_has_started_again_is_no_more_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarts: str, gone: bool
) -> None:
    elsewhere(tmp_path, slurm_job="7", slurm_restart="0")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    assert is_held(tmp_path) is (False if gone else None)


def test_of_two_that_find_a_dead_one_the_second_finds_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quicker one has taken the lock over after the slower one has looked at it."""
    lock = elsewhere(tmp_path)
    os.utime(lock, (0, 0))
    look = run_lock._wait_until_dead
    first: list[RunLock] = []

    def slow(folder: Path, path: Path, tell: Any) -> str:
        dead = look(folder, path, tell)
        if not first:
            first.append(None)  # type: ignore[arg-type] # the quicker one looks, too
            first[0] = RunLock(folder)
        return dead

    monkeypatch.setattr(run_lock, "_wait_until_dead", slow)
    with pytest.raises(RunFolderError, match="at work"):
        RunLock(tmp_path)
    assert first[0].took_over
    assert is_held(tmp_path)
    first[0].release()


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_whoever_loses_the_folder_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(run_lock, "BEAT_S", 0.01)
    told: list[str] = []
    event = threading.Event()

    def hear(text: str) -> None:
        told.append(text)
        event.set()

    lock = RunLock(tmp_path, hear)
    if how == "removed":
        (tmp_path / LOCK).unlink()
    else:
        elsewhere(tmp_path)
    assert event.wait(60)
    assert how in told[0] or "taken this run for dead" in told[0]
    lock.release()
    assert (tmp_path / LOCK).exists() == (how == "replaced")


def test_a_lock_that_is_left_is_a_dead_ones(tmp_path: Path) -> None:
    RunLock(tmp_path).release(leave=True)
    assert is_held(tmp_path) is False
    lock = RunLock(tmp_path)
    assert lock.took_over
    lock.release()


def test_a_folder_that_was_made_for_nothing_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with HeldFolder(folder):
        assert is_held(folder)
    assert not folder.exists()
    folder.mkdir(parents=True)
    with HeldFolder(folder):
        pass
    assert list(folder.iterdir()) == []
    with pytest.raises(RunFolderError, match="is a file"):
        HeldFolder(Path(__file__))

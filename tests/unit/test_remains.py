"""Files that a killed mpirun leaves behind."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import psutil
import pytest

from mpi_dcasgd.tools.launch.remains import job_family, remove_remains

# The segments of worlds that Open MPI 5.0.11 had named so: without the zeros in front.
WORLDS = {11249: "c7d80001", 12093: "bc310001", 1286: "c410001"}


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    for pid, job in WORLDS.items():
        (tmp_path / "tmp" / f"ompi.{pid}" / "1" / "0").mkdir(parents=True)
        for rank in range(2):
            (tmp_path / f"sm_segment.vm.{os.getuid()}.{job}.{rank}").write_bytes(b"x")
    (tmp_path / "sm_segment.vmm.0.c7d80001.0").write_bytes(b"x")
    (tmp_path / "mine").write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize("pid", WORLDS)
@pytest.mark.parametrize("host", ["vm", "vm.cluster.example"])
def test_those_of_one_world_are_removed_and_no_others(shared: Path, pid: int, host: str) -> None:
    spawned = shared / f"sm_segment.vm.{os.getuid()}.{WORLDS[pid][:-4]}0002.0"
    spawned.write_bytes(b"x")
    before = set(shared.iterdir()) | set((shared / "tmp").iterdir())
    removed = remove_remains(pid, host=host, shared=shared)
    assert len(removed) == 4
    assert {path.name for path in removed} == {
        f"ompi.{pid}",
        spawned.name,
        *(f"sm_segment.vm.{os.getuid()}.{WORLDS[pid]}.{rank}" for rank in range(2)),
    }
    assert before - set(removed) == set(shared.iterdir()) | set((shared / "tmp").iterdir())


def test_what_is_another_users_stays(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    assert remove_remains(11249, host="vm", shared=shared) == []


def test_a_rank_that_took_itself_for_a_world_of_one_leaves_nothing(shared: Path) -> None:
    alive = {job_family(f"singleton.vm.{pid}") for pid in psutil.pids()}
    dead = next(number for number in range(2**16) if number not in alive)
    others = shared / "tmp" / f"ompi.vm.{os.getuid()}"
    mine, gone = (
        others / "jf.0" / str(family << 16)
        for family in (job_family(f"singleton.vm.{os.getpid()}"), dead)
    )
    for folder in (mine, gone):
        (folder / "0").mkdir(parents=True)
    since_s = mine.stat().st_mtime
    # One that runs, and one of before this world, may be anybody's.
    assert remove_remains(7, since_s + 60, "vm", shared) == []
    assert remove_remains(7, since_s - 60, "vm", shared) == [gone]
    assert mine.is_dir()
    mine.rename(gone)
    assert remove_remains(7, since_s - 60, "vm", shared) == [gone]
    assert not others.exists()

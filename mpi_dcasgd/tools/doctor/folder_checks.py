"""Checks of TMPDIR and of the folder of runs: room, writing, locks."""

from __future__ import annotations

import errno
from pathlib import Path

from mpi_dcasgd.tools.doctor.ask import Answer
from mpi_dcasgd.tools.doctor.finding import Finding, fail, ok, unseen, warn
from mpi_dcasgd.tools.doctor.machine_checks import size
from mpi_dcasgd.tools.doctor.surroundings import Surroundings, existing
from mpi_dcasgd.wording import counted

_FULL_BYTES, _TIGHT_BYTES = 16 << 20, 1 << 30
_LONGEST_PATH = 60  # a socket's path has 107 bytes, of which an MPI's own part takes up to 45
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def check_temporary(where: Surroundings) -> Finding:
    """Can temporary files be written?"""
    name, folder = "TMPDIR", where.tmp
    if not folder.is_dir():
        return fail(name, f"{folder} is no folder", f"mkdir -p {folder}  (or unset TMPDIR)")
    fix = "export TMPDIR=/tmp  (or another folder with room)"
    if problem := _problem(where.folders[folder], folder):
        return fail(name, problem, fix)
    if len(str(folder)) > _LONGEST_PATH:
        seen = f"{folder} has {len(str(folder))} letters: sockets in it may have too long a path"
        return warn(name, seen, fix)
    return ok(name, f"{folder}, {size(where.folders[folder].facts['free_bytes'])} free")


def check_run_folder(where: Surroundings) -> Finding:
    """Can runs be written, and is there room for them?"""
    name, folder = "run folder", existing(where.run_dir)
    answer = where.folders[folder]
    fix = "mpi-dcasgd run --run-dir DIR ...  (on a disk that can be written and has room)"
    if (file := _in_the_way(where.run_dir)) is not None:
        return fail(name, f"{file} is a file, and no folder for runs", fix)
    if problem := _problem(answer, folder):
        return fail(name, problem, f"df -h {folder}; {fix}")
    free, files = answer.facts["free_bytes"], answer.facts.get("files")
    if free < _TIGHT_BYTES:
        seen = f"{folder}: {size(free)} free; checkpoints of large models need more"
        return warn(name, seen, f"df -h {folder}; {fix}")
    if files is not None and files < 1000:
        return warn(
            name, f"{folder}: room for {counted(files, 'more file')}", f"df -i {folder}; {fix}"
        )
    return ok(name, f"{folder}, {size(free)} free")


def _in_the_way(folder: Path) -> Path | None:
    """Return the file that stands where a folder, or one above it, would be made."""
    folder = folder.absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return None if there.is_dir() else there


def check_locks(where: Surroundings) -> Finding:
    """Do locks keep two runs out of one folder?"""
    name, folder = "file locks", existing(where.run_dir)
    facts = where.folders[folder].facts
    if not facts.get("written"):
        return unseen(name, f"{folder} cannot be written")
    fix = "mpi-dcasgd run --run-dir DIR ...  (on another file system)"
    if not facts.get("exclusive"):
        return fail(name, f"{folder}: two processes can create one file: no lock of runs", fix)
    if facts.get("locks"):
        return ok(name, f"two runs, or two comparisons, cannot share a folder in {folder}")
    why = facts.get("no_locks", "both get the lock")
    seen = f"{folder}: flock does not work ({why}): two comparisons in one folder are not noticed"
    return warn(name, seen, fix)


def _problem(answer: Answer, folder: Path) -> str:
    """Say why a folder cannot be written; empty if it can."""
    facts = answer.facts
    if facts.get("errno") in _NO_SPACE:
        return f"{folder}: is full ({facts['why']}, {size(facts['free_bytes'])} free)"
    if not facts.get("written"):
        return f"{folder}: cannot be written: {facts.get('why') or answer.trouble}"
    if facts["free_bytes"] < _FULL_BYTES:
        return f"{folder}: is full ({size(facts['free_bytes'])} free)"
    return ""

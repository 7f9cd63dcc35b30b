"""Checks of the machine: SLURM, cores, threads, binding, shared memory, open files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.tools.doctor.ask import bounded
from mpi_dcasgd.tools.doctor.finding import Finding, fail, ok, warn
from mpi_dcasgd.tools.doctor.surroundings import Surroundings
from mpi_dcasgd.tools.launch.surroundings import in_step, refuse_leftovers
from mpi_dcasgd.wording import counted

_SLURM_LIMIT_S = 5.0
_SEGMENT_BYTES = 16 << 20  # Open MPI's btl_sm_segment_size, one for each rank of a host
_FEW_FILES, _MANY_FILES = 256, 1024
_BINDINGS = ("I_MPI_PIN_DOMAIN", "PRTE_MCA_hwloc_default_binding_policy")
_OLD_BINDING = "OMPI_MCA_hwloc_base_binding_policy"


def check_slurm(where: Surroundings) -> Finding:
    """Is there a SLURM that answers, and is this allocation one of its own?"""
    name, path = "SLURM", where.env.get("PATH", os.defpath)
    if "SLURM_JOB_ID" in where.env:
        try:
            refuse_leftovers(where.launcher.facts.get("launcher", "mpirun"), env=where.env)
        except LaunchError as error:
            fix = "unset ${!SLURM_@}  (outside of an allocation), or salloc"
            if in_step(where.env):
                fix = "salloc ...  (in place of srun --pty ...; or sbatch)"
            return fail(name, str(error), fix)
        return ok(name, f"in the allocation of job {where.env['SLURM_JOB_ID']}{_size(where.env)}")
    scontrol = shutil.which("scontrol", path=path)
    if scontrol is None:
        return ok(name, "none here; `run` and `compare` work without, `submit` does not")
    status, out, err = bounded([scontrol, "ping"], _SLURM_LIMIT_S, where.env)
    if status == 0 and "UP" in out:
        return ok(name, " ".join(out.split("\n")[0].split()))
    said = (err or out).strip().partition("\n")[0] or f"no answer in {_SLURM_LIMIT_S:.0f} s"
    seen = f"is installed, but does not answer ({said}); `submit` needs it"
    return warn(name, seen, "scontrol ping  (ask the site; a login node may be the right place)")


def _size(env: Mapping[str, str]) -> str:
    nodes, tasks = _number(env, "SLURM_JOB_NUM_NODES"), _number(env, "SLURM_NTASKS")
    parts = [counted(nodes, "node")] if nodes else []
    parts += [counted(tasks, "task")] if tasks else []
    return f": {', '.join(parts)}" if parts else ""


def _number(env: Mapping[str, str], name: str) -> int:
    value = env.get(name, "")
    return int(value) if value.isdecimal() else 0


def check_cores(where: Surroundings) -> Finding:
    """Are there cores enough for the ranks?"""
    name, granted = "cores", min(len(where.cores), where.quota)
    label = f"{granted:g} of {where.machine_cores}"
    nodes = _number(where.env, "SLURM_JOB_NUM_NODES") if "SLURM_JOB_ID" in where.env else 0
    tasks = _number(where.env, "SLURM_NTASKS")
    if where.ranks is not None and nodes > 1 and tasks:
        # Ranks lie on other nodes, too, whose cores only SLURM knows.
        seen = f"{label} on this node, one of {nodes}; the allocation has {counted(tasks, 'task')}"
        if where.ranks > tasks:
            fix = f"salloc -n {where.ranks}  (or mpi-dcasgd run -n {tasks} JOB)"
            return warn(name, f"{seen} for {counted(where.ranks, 'rank')}", fix)
        return ok(name, seen)
    if where.ranks is not None and where.ranks > granted:
        seen = f"{label} for {counted(where.ranks, 'rank')}, which share them: speeds say little"
        return warn(name, seen, f"mpi-dcasgd run -n {max(2, int(granted))} JOB  (or more cores)")
    if where.quota < len(where.cores):
        seen = f"{label}: the container grants fewer than it shows ({len(where.cores)})"
        return warn(name, seen, f"export OMP_NUM_THREADS={max(1, int(where.quota))}")
    return ok(name, label)


def check_threads(where: Surroundings) -> Finding:
    """Does OMP_NUM_THREADS fit the cores?"""
    name, text = "threads", where.env.get("OMP_NUM_THREADS", "")
    granted = max(1, int(min(len(where.cores), where.quota)))
    if not text:
        return ok(name, "OMP_NUM_THREADS is not set: ranks share out the cores of their host")
    words = text.split(",")
    if not all(word.strip().isdecimal() and int(word) >= 1 for word in words):
        return warn(name, f"OMP_NUM_THREADS is {text!r}, no number", "unset OMP_NUM_THREADS")
    if int(words[0]) > granted:
        seen = (
            f"OMP_NUM_THREADS is {text}, on {counted(granted, 'core')}: threads wait for each other"
        )
        return warn(name, seen, f"export OMP_NUM_THREADS={granted}")
    return ok(name, f"OMP_NUM_THREADS is {text}")


def check_binding(where: Surroundings) -> Finding:
    """Is this process, or are its ranks, tied to a core?"""
    name = "binding"
    if len(where.cores) == 1 and where.machine_cores > 1:
        seen = f"this process may run on 1 of {where.machine_cores} cores, and so may its ranks"
        fix = "salloc --cpus-per-task=N  (or leave taskset or the binding of srun away)"
        return warn(name, seen, fix)
    for variable in (*_BINDINGS, _OLD_BINDING):
        value = where.env.get(variable, "")
        if value and value != "none":
            seen = f"{variable}={value}: ranks that start without `run` are tied to cores"
            return warn(name, seen, f"unset {variable}")
    return ok(name, "`run` ties no rank to a core")


def check_shared_memory(where: Surroundings) -> Finding:
    """Is there room in /dev/shm for what Open MPI puts there?"""
    name, answer = str(where.shm), where.folders.get(where.shm)
    ranks = max(2, where.ranks or 0)
    needed = ranks * _SEGMENT_BYTES
    fix = (
        f"mount -o remount,size=1G {where.shm}  (as root; a container: --shm-size=1g; else: "
        '--mpirun-args="--mca btl_sm_backing_directory $TMPDIR")'
    )
    if answer is None or "free_bytes" not in answer.facts:
        why = (answer.facts.get("why") or answer.trouble) if answer else "not there"
        return fail(name, f"cannot be used: {why}", fix)
    free = answer.facts["free_bytes"]
    if free < needed:
        seen = f"{size(free)} free; {counted(ranks, 'rank')} of Open MPI want {size(needed)} there"
        return fail(name, seen, fix)
    if not answer.facts.get("written"):
        seen = f"cannot be written: {answer.facts.get('why') or answer.trouble}"
        return fail(name, seen, f"chmod 1777 {where.shm}  (as root)")
    return ok(name, f"{size(free)} free")


def check_open_files(where: Surroundings) -> Finding:
    """May a process have enough files open?"""
    name, (soft, hard) = "open files", where.open_files
    wanted = _MANY_FILES if hard < 0 else min(_MANY_FILES, hard)
    if soft < 0 or soft >= _MANY_FILES:
        return ok(name, "no limit" if soft < 0 else f"{soft:,} for each process")
    seen = f"{soft:,} for each process; many ranks, or loaders of data, need more"
    fix = f"ulimit -n {wanted}"
    if wanted <= soft:
        fix = "ulimit -n  (the limit is the site's: ask for LimitNOFILE or limits.conf)"
    return (fail if soft < _FEW_FILES else warn)(name, seen, fix)


def size(value: float) -> str:
    """Return bytes in words.

    Example:
        >>> size(16 << 20)
        '16.0 MiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"

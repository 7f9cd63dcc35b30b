"""Everything that checks look at, gathered at once: the probes run beside each other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from mpi_dcasgd.record.run_files import RUNS
from mpi_dcasgd.tools.doctor.ask import Answer, ask_probe

_IMPORT_LIMIT_S = 60.0  # PyTorch from a busy file server takes its time
_MPI_LIMIT_S = 20.0
_FOLDER_LIMIT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Surroundings that checks look at; tests make theirs up.

    Attributes:
        env: Variables.
        run_dir: Folder of runs, which need not exist.
        ranks: Ranks that a run is to have, or None.
        launcher: Answers of the probes of `mpi_dcasgd.tools.doctor.probe`; so are the next three.
        mpi: MPI as mpi4py finds it.
        torch: PyTorch and torchvision.
        horovod: Horovod.
        folders: For the run folder, TMPDIR and /dev/shm, by path.
        shm: Folder of shared memory.
        tmp: Folder of temporary files.
        cores: Numbers of those that this process may run on.
        quota: Number of cores that its container grants.
        machine_cores: Number that the machine has.
        open_files: Files that a process may have open: now, and after ``ulimit -n``.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    run_dir: Path = RUNS
    ranks: int | None = None
    launcher: Answer = Answer()
    mpi: Answer = Answer()
    torch: Answer = Answer()
    horovod: Answer = Answer()
    folders: Mapping[Path, Answer] = field(default_factory=dict)
    shm: Path = Path("/dev/shm")
    tmp: Path = Path("/tmp")
    cores: frozenset[int] = frozenset((0,))
    quota: float = float("inf")
    machine_cores: int = 1
    open_files: tuple[int, int] = (1024, 1024)


def gather(
    run_dir: Path = RUNS,
    ranks: int | None = None,
    *,
    launcher: str | None = None,
    mpirun: str | None = None,
    env: Mapping[str, str] = os.environ,
) -> Surroundings:
    """Look at this machine, for some seconds at most where nothing hangs.

    Args:
        run_dir: As in `Surroundings`; so is ``ranks``.
        ranks: How many there are to be.
        launcher: As for `tools.launch.world.plan`; so is ``mpirun``.
        mpirun: Which one.
        env: Variables.
    """
    from mpi_dcasgd.drivers.backoff import usable_cores

    tmp = Path(env.get("TMPDIR") or "/tmp")
    places = {existing(run_dir), tmp, Surroundings.shm}
    with ThreadPoolExecutor(max_workers=8) as pool:

        def begin(limit_s: float, *words: str) -> Future[Answer]:
            return pool.submit(ask_probe, *words, limit_s=limit_s, env=env)

        folders = {place: begin(_FOLDER_LIMIT_S, "folder", str(place)) for place in places}
        named = begin(_MPI_LIMIT_S, "launcher", launcher or "", mpirun or "")
        mpi = begin(_MPI_LIMIT_S, "mpi")
        torch = begin(_IMPORT_LIMIT_S, "torch")
        horovod = begin(_IMPORT_LIMIT_S, "horovod")
    cores, quota = usable_cores()
    return Surroundings(
        env=env,
        run_dir=run_dir,
        ranks=ranks,
        launcher=named.result(),
        mpi=mpi.result(),
        torch=torch.result(),
        horovod=horovod.result(),
        folders={place: answer.result() for place, answer in folders.items()},
        tmp=tmp,
        cores=cores,
        quota=quota,
        machine_cores=os.cpu_count() or 1,
        open_files=_open_files(),
    )


def existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists, in which it would be made."""
    folder = Path(os.path.abspath(folder))
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder


def _open_files() -> tuple[int, int]:
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)

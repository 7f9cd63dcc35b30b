"""Look at one library, or at a folder, in a process that may hang or crash.

Started as ``python -m mpi_dcasgd.tools.doctor.probe NAME``. Prints what it finds line by line, so
that what was found before a crash is known.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any


def tell(**facts: Any) -> None:
    """Print facts at once."""
    print(json.dumps(facts), flush=True)


def probe_mpi() -> None:
    """MPI as mpi4py finds it: its library, and whether one process can start it alone."""
    tell(version=metadata.version("mpi4py"))
    import mpi4py

    mpi4py.rc.initialize = False
    mpi4py.rc.finalize = False
    from mpi4py import MPI

    library = MPI.Get_library_version().replace("\0", "").split("\n")[0]
    tell(library=library, paths=mapped("libmpi"))
    with _own_tmpdir():
        _start_alone()


def _start_alone() -> None:
    """Start MPI and end it, in this process alone."""
    from mpi4py import MPI

    provided = MPI.Init_thread(MPI.THREAD_MULTIPLE)
    levels = ("SINGLE", "FUNNELED", "SERIALIZED", "MULTIPLE")
    names = {getattr(MPI, f"THREAD_{name}"): name for name in levels}
    tell(threads=names.get(provided, str(provided)))
    tell(cuda=_cuda_aware())  # not before: MPICH 5 ends a process that asks too early
    MPI.Finalize()
    tell(alone=True)


def probe_launcher(choice: str = "", mpirun: str = "") -> None:
    """The launcher that ``mpi-dcasgd run`` takes, and whose it is."""
    from mpi_dcasgd.errors import LaunchError
    from mpi_dcasgd.tools.launch.mpirun import detect_flavour, find_mpirun
    from mpi_dcasgd.tools.launch.srun import pick_launcher

    try:
        launcher = pick_launcher(choice or None, mpirun or None)
        tell(launcher=launcher)
        path = find_mpirun(mpirun or None) if launcher == "mpirun" else ""
        tell(path=path)
        if path:
            tell(**asdict(detect_flavour(path)))
    except LaunchError as error:
        tell(error=str(error))


def probe_torch() -> None:
    """PyTorch and its devices; then torchvision, which may crash beside it."""
    import torch

    tell(
        version=torch.__version__,
        cuda=torch.version.cuda or "",
        hip=getattr(torch.version, "hip", None) or "",
        threads=torch.get_num_threads(),
    )
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    tell(gpus=[torch.cuda.get_device_name(number) for number in range(gpus)])
    if gpus and hasattr(torch.cuda, "nccl") and torch.distributed.is_nccl_available():
        tell(nccl=".".join(map(str, torch.cuda.nccl.version())))  # type: ignore[no-untyped-call]
    tell(torch=True)
    if importlib.util.find_spec("torchvision") is None:
        return
    tell(vision=metadata.version("torchvision"))
    try:
        import torchvision

        boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        torchvision.ops.nms(boxes, torch.ones(1), 0.5)
    except Exception as error:
        tell(vision_trouble=f"{type(error).__name__}: {str(error).splitlines()[0]}")
    else:
        tell(operators=True)


def probe_horovod() -> None:
    """Horovod beside the MPI of mpi4py and this PyTorch, as in a rank of a synchronous run."""
    spec = importlib.util.find_spec("horovod")
    if spec is None or not spec.submodule_search_locations:
        return
    tell(version=metadata.version("horovod"))
    with suppress(OSError, ValueError, AttributeError):
        built = Path(spec.submodule_search_locations[0], "metadata.json").read_text()
        tell(built_for=json.loads(built).get("pytorch", ""))
    with suppress(Exception):
        tell(torch=metadata.version("torch"))
    with suppress(Exception):  # `probe_mpi` tells why
        import mpi4py

        mpi4py.rc.initialize = False
        from mpi4py import MPI

        tell(mpi=MPI.Get_library_version().split("\n")[0], mpi_paths=mapped("libmpi"))
    import horovod.torch as hvd

    tell(paths=mapped("libmpi"), has_mpi=bool(hvd.mpi_built()), nccl=bool(hvd.nccl_built()))


def probe_folder(folder: str) -> None:
    """Write, rename and lock files in a folder, and remove them."""
    base = Path(folder, f".doctor-{secrets.token_hex(8)}")
    aside = base.with_suffix(".aside")
    try:
        room = os.statvfs(folder)
        files = room.f_favail if room.f_files else None
        tell(free_bytes=room.f_bavail * room.f_frsize, files=files)
        with open(aside, "xb") as file:
            tell(made=True)
            file.write(os.urandom(1 << 20))
            file.flush()
            os.fsync(file.fileno())
        aside.rename(base)
        tell(written=True)
        try:
            os.close(os.open(base, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            tell(exclusive=True)
        with open(base, "r+b") as first, open(base, "r+b") as second:
            try:
                fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tell(locks=True)
            except OSError as error:
                tell(no_locks=error.strerror)
    except OSError as error:
        tell(errno=error.errno, why=error.strerror)
    finally:
        for left in (base, aside):
            with suppress(OSError):
                left.unlink()


@contextmanager
def _own_tmpdir() -> Iterator[None]:
    """Let Open MPI put its folders, which it leaves behind, where they can be removed."""
    folder = ""
    with suppress(OSError):  # no disk has room: that is another check's
        folder = os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="doctor-")
    try:
        yield
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def mapped(name: str) -> list[str]:
    """Files of a shared library that this process has loaded.

    Args:
        name: Beginning of their names, up to ``.so``.
    """
    found: list[str] = []
    with suppress(OSError):
        for line in Path("/proc/self/maps").read_text().splitlines():
            path = line.split(maxsplit=5)[5] if line.count("/") else ""
            if Path(path).name.startswith(f"{name}.so") and path not in found:
                found.append(path)
    return found


def _cuda_aware() -> bool | None:
    """Ask the loaded MPI whether it takes addresses of GPU memory; None if it cannot be asked."""
    import ctypes

    for path in mapped("libmpi"):
        with suppress(OSError, AttributeError):
            return bool(ctypes.CDLL(path).MPIX_Query_cuda_support())
    return None


PROBES: dict[str, Callable[..., None]] = {
    "launcher": probe_launcher,
    "mpi": probe_mpi,
    "torch": probe_torch,
    "horovod": probe_horovod,
    "folder": probe_folder,
}

if __name__ == "__main__":
    PROBES[sys.argv[1]](*sys.argv[2:])

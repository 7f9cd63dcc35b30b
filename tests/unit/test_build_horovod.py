"""Horovod's build: the recipe, and what it says when something is missing. Compiles nothing."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

import pytest

from mpi_dcasgd.tools import build_horovod as tool
from mpi_dcasgd.tools.build_horovod import BuildError, Environment

ENVIRONMENT = Environment(torch="2.13.0+cpu", mpi="openmpi5.0.11", path="/env/bin:/usr/bin")


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


STANDARD = "project(x)\nset(CMAKE_CXX_STANDARD {})\nset(CMAKE_CXX_STANDARD_REQUIRED ON)\n"
PYTORCH = "cmake/Modules/FindPytorch.cmake"


def sources(folder: Path, text: str = STANDARD.format(14)) -> Path:
    files = {
        "CMakeLists.txt": text,
        "horovod/torch/CMakeLists.txt": text,
        PYTORCH: "x and (CUDA_HOME is not None), y and (ROCM_HOME is not None)",
    }
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return folder


def archive(path: Path, names: list[str]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    return path


# The recipe


def test_both_files_get_the_standard_and_nothing_else(tmp_path: Path) -> None:
    source = sources(tmp_path)
    for _ in range(2):  # a source that is mended already is left alone
        tool.mend(source, gpu=True)
        for name in ("CMakeLists.txt", "horovod/torch/CMakeLists.txt"):
            assert (source / name).read_text() == STANDARD.format(17)


def test_cuda_is_looked_for_only_on_request(tmp_path: Path) -> None:
    source = sources(tmp_path)
    before = (source / PYTORCH).read_text()
    tool.mend(source, gpu=True)
    assert (source / PYTORCH).read_text() == before
    tool.mend(source, gpu=False)
    assert (source / PYTORCH).read_text() == "x and False, y and False"


@pytest.mark.parametrize("text", ["", STANDARD.format(14) * 2])
def test_a_source_that_is_not_the_releases_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(BuildError, match=r"CMakeLists\.txt has .* times, not once"):
        tool.mend(sources(tmp_path, text), gpu=False)


def test_the_build_asks_for_mpi_and_pytorch_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAKEFLAGS", "-j3")
    monkeypatch.setenv("LDFLAGS", "-Lsite")
    variables = tool.build_variables(ENVIRONMENT)
    assert variables == {
        "PATH": "/env/bin:/usr/bin",
        "HOROVOD_WITH_MPI": "1",
        "HOROVOD_WITH_PYTORCH": "1",
        "HOROVOD_WITHOUT_GLOO": "1",
        "HOROVOD_WITHOUT_TENSORFLOW": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        "MAKEFLAGS": "-j3",
        "LDFLAGS": "-Lsite -Wl,-rpath,$ORIGIN/../../../..",
    }


def test_a_cluster_gets_nccl() -> None:
    environment = Environment("2.13.0+cu130", "openmpi5.0.11", "/bin", gpu=True)
    variables = tool.build_variables(environment, Path("/cuda"), Path("/nccl"))
    assert variables["HOROVOD_GPU_OPERATIONS"] == "NCCL"
    assert variables["HOROVOD_CUDA_HOME"] == variables["CUDA_HOME"] == "/cuda"
    assert variables["HOROVOD_NCCL_HOME"] == "/nccl"


def test_wheels_of_other_torches_mpis_and_builds_are_kept_apart() -> None:
    keys = {
        ENVIRONMENT.key,
        Environment("2.12.0+cpu", "openmpi5.0.11", "").key,
        Environment("2.13.0+cpu", "mpich4.2.1", "").key,
        Environment("2.13.0+cpu", "openmpi5.0.11", "", gpu=True).key,
    }
    assert len(keys) == 4
    assert sys.implementation.cache_tag in ENVIRONMENT.key
    assert "/" not in Environment("2", "mpi-/opt/x/bin", "").key
    assert Environment("2.13.0+cpu", "openmpi5.0.11", "elsewhere").key == ENVIRONMENT.key


def test_the_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert tool.default_cache() == Path("/cache/mpi_dcasgd/wheels")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/user")
    assert tool.default_cache() == Path("/home/user/.cache/mpi_dcasgd/wheels")


# The source distribution


def test_an_archive_is_unpacked(tmp_path: Path) -> None:
    file = archive(tmp_path / "h.tar.gz", ["horovod-0.28.1/setup.py"])
    assert tool.unpack(file, tmp_path) == tmp_path / "horovod-0.28.1"


def test_another_versions_archive_is_refused(tmp_path: Path) -> None:
    file = archive(tmp_path / "h.tar.gz", ["horovod-0.27.0/setup.py"])
    with pytest.raises(BuildError, match=r"not the source distribution of Horovod 0\.28\.1"):
        tool.unpack(file, tmp_path)


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "h.tar.gz").write_text("<html>")
    with pytest.raises(BuildError, match="cannot be unpacked"):
        tool.unpack(tmp_path / "h.tar.gz", tmp_path)
    with pytest.raises(BuildError, match="cannot be unpacked"):
        tool.unpack(tmp_path / "missing.tar.gz", tmp_path)


# The environment


@pytest.mark.parametrize(
    ("macros", "mpi"),
    [
        ("5 0 11 I_MPI_VERSION MPICH_VERSION", "openmpi5.0.11"),
        (
            'OMPI_MAJOR_VERSION OMPI_MINOR_VERSION OMPI_RELEASE_VERSION I_MPI_VERSION "4.2.1"',
            "mpich4.2.1",
        ),
        (
            'OMPI_MAJOR_VERSION OMPI_MINOR_VERSION OMPI_RELEASE_VERSION "2021.11.0" "3.4a2"',
            "intelmpi2021.11.0",
        ),
    ],
)
def test_mpi_is_asked_of_the_compiler_wrapper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, macros: str, mpi: str
) -> None:
    wrapper = executable(tmp_path / "mpi" / "mpicxx", f"cat >/dev/null; echo '{macros}'")
    monkeypatch.setenv("MPICXX", str(wrapper))
    environment = tool.inspect_environment()
    assert environment.mpi == mpi
    assert environment.path.startswith(str(wrapper.parent))  # CMake must find this one first
    assert environment.torch[0].isdecimal()


def test_all_that_is_missing_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = executable(tmp_path / "bin" / "python", "exit 1")
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("MPICXX", raising=False)
    with pytest.raises(BuildError) as caught:
        tool.inspect_environment()
    message = str(caught.value)
    assert "PyTorch: `import torch` fails" in message
    assert "MPI: no compiler wrapper mpicxx on PATH" in message


def test_tools_that_are_missing_are_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = executable(tmp_path / "bin" / "python", "exit 1")
    old = executable(tmp_path / "bin" / "c++", "exit 1")
    monkeypatch.setattr(sys, "executable", str(python))
    for name in ("HOROVOD_CMAKE", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    bare = Environment("2.13.0+cpu", "openmpi5.0.11", str(tmp_path))
    with pytest.raises(BuildError) as caught:
        tool.check_tools(bare)
    message = str(caught.value)
    for part in ("compiler: no c++", "cmake: not", "make: not", "setuptools: `pip install"):
        assert part in message
    monkeypatch.setenv("CXX", str(old))
    with pytest.raises(BuildError, match=r"does not know C\+\+17"):
        tool.check_tools(bare)


# As a whole


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    monkeypatch.setattr(tool, "inspect_environment", lambda *, gpu: ENVIRONMENT)
    monkeypatch.setattr(tool, "check_tools", lambda environment: None)
    return ENVIRONMENT


def sdist(tmp_path: Path) -> Path:
    source = sources(tmp_path / "source")
    (source / "setup.py").touch()
    file = tmp_path / "horovod-0.28.1.tar.gz"
    with tarfile.open(file, "w:gz") as tar:
        tar.add(source, arcname="horovod-0.28.1")
    return file


FAKE_PIP = """
[ "$3" = wheel ] || exit 1
while [ "$1" != --wheel-dir ]; do shift; done
grep -q 'STANDARD 17' "$3/CMakeLists.txt" && mkdir "$2" && echo wheel > "$2/{name}"
"""
WHEEL = "horovod-0.28.1-cp311-cp311-linux_x86_64.whl"


def test_a_wheel_is_built_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: Environment
) -> None:
    pip = executable(tmp_path / "python", FAKE_PIP.replace("{name}", WHEEL))
    monkeypatch.setattr(sys, "executable", str(pip))
    options = {"sdist": sdist(tmp_path), "cache": tmp_path / "cache", "install": False}
    wheel = tool.build(**options)
    assert wheel == tmp_path / "cache" / environment.key / WHEEL
    assert wheel.read_text() == "wheel\n"
    executable(pip, "exit 1")
    assert tool.build(**options) == wheel
    with pytest.raises(BuildError, match="compiling failed"):
        tool.build(**options, force=True)


def test_a_failure_shows_the_end_of_the_log_and_where_it_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: Environment,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pip = executable(tmp_path / "python", "seq 1 500; echo fatal error: x >&2; exit 1")
    monkeypatch.setattr(sys, "executable", str(pip))
    status = tool.main(
        ["--sdist", str(sdist(tmp_path)), "--cache", str(tmp_path / "cache"), "--no-install"]
    )
    captured = capsys.readouterr()
    assert status == 2
    assert "fatal error: x" in captured.err
    assert "\n461\n" not in captured.err
    log = tmp_path / "cache" / environment.key / "build.log"
    assert str(log) in captured.err
    assert log.read_text().startswith("1\n2\n")


def test_it_runs_as_a_plain_file_with_the_standard_library_only(processes) -> None:
    finished = processes.run([sys.executable, "-I", "-S", tool.__file__, "--help"])
    assert finished.status == 0, str(finished)
    assert "--sdist" in finished.stdout

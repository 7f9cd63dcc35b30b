"""A wheel, built from an sdist and installed into a fresh environment, works without a clone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import mpi_dcasgd

REPOSITORY = Path(__file__).parents[2]
SOURCES = (
    "mpi_dcasgd",
    "jobs",
    "slurm",
    "LICENSE",
    "MANIFEST.in",
    "README.md",
    "setup.cfg",
    "setup.py",
)

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the wheel; all else comes from the environment of the tests."""

    folder: Path

    def run(
        self, folder: Path, *words: str, path: str = "/usr/bin:/bin"
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment where no clone is to be found."""
        variables: Mapping[str, str] = {
            "PATH": f"{self.folder / 'bin'}:{path}",
            "HOME": str(self.folder),
        }
        return subprocess.run(
            [self.folder / "bin" / words[0], *words[1:]],
            cwd=folder,
            env=variables,
            capture_output=True,
            text=True,
            timeout=300,
        )


def build_wheel(folder: Path) -> Path:
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        if (REPOSITORY / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(REPOSITORY / name, source / name, symlinks=True, ignore=ignore)
        else:
            shutil.copy(REPOSITORY / name, source)
    program = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    call([sys.executable, "-c", program, str(folder)], source)
    (sdist,) = folder.glob("*.tar.gz")
    words = ["wheel", "-q", "--no-build-isolation", "--no-deps", "--no-index", str(sdist)]
    call([sys.executable, "-m", "pip", *words], folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def call(words: list[str], folder: Path) -> None:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("wheel")
    wheel = build_wheel(folder)
    made = folder / "env"
    call([sys.executable, "-m", "venv", "--without-pip", str(made)], folder)
    python = str(made / "bin" / "python")
    words = ["install", "-q", "--no-deps", "--no-index", str(wheel)]
    call([sys.executable, "-m", "pip", "--python", python, *words], folder)
    (site_packages,) = made.glob("lib/python*/site-packages")
    # Afterwards, for pip must not find a clone's installation through it.
    (site_packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    return Environment(made)


@pytest.fixture
def project(environment: Environment, tmp_path: Path) -> Path:
    """A folder that `mpi-dcasgd init` has filled."""
    folder = tmp_path / "project"
    done = environment.run(tmp_path, "mpi-dcasgd", "init", "project")
    assert done.returncode == 0, done.stderr
    return folder


def test_the_package_that_is_imported_is_the_wheels(
    environment: Environment, tmp_path: Path
) -> None:
    program = "import mpi_dcasgd; print(mpi_dcasgd.__file__, mpi_dcasgd.__version__)"
    file, version = environment.run(tmp_path, "python", "-c", program).stdout.split()
    assert Path(file).is_relative_to(environment.folder)
    assert version == mpi_dcasgd.__version__
    done = environment.run(tmp_path, "mpi-dcasgd", "--version")
    assert done.stdout == f"mpi-dcasgd {mpi_dcasgd.__version__}\n"


def test_the_wheel_has_every_job_script_and_site_file(
    environment: Environment, tmp_path: Path
) -> None:
    program = "from mpi_dcasgd.shipped import shipped; print(shipped())"
    root = Path(environment.run(tmp_path, "python", "-c", program).stdout.strip())
    assert root.is_relative_to(environment.folder)
    for file in (*REPOSITORY.glob("jobs/**/*"), *REPOSITORY.glob("slurm/**/*")):
        if file.is_file():
            copy = root / file.relative_to(REPOSITORY)
            assert copy.read_bytes() == file.read_bytes()
            assert not copy.is_symlink()
    assert (root.parent / "py.typed").exists()


def test_the_starter_job_and_study_can_be_used(environment: Environment, project: Path) -> None:
    done = environment.run(project, "mpi-dcasgd", "train", "jobs/digits.yaml", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "rank 0 serves" in done.stdout
    study = ("jobs/compare_digits.yaml", "--dry-run")
    done = environment.run(project, "mpi-dcasgd", "compare", *study)
    assert done.returncode == 0, done.stderr
    assert "asgd-w4-s0" in done.stdout


def test_the_example_simulates_and_compares(environment: Environment, tmp_path: Path) -> None:
    done = environment.run(tmp_path, "python", str(REPOSITORY / "examples" / "api.py"), "out")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^asgd, simulated +8 ", done.stdout, re.MULTILINE)
    assert re.search(r"^dcasgd-a, simulated +8 ", done.stdout, re.MULTILINE)
    assert (tmp_path / "out" / "report" / "report.html").is_file()


def test_a_site_file_is_found_without_any_project(environment: Environment, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    shutil.copy(REPOSITORY / "jobs/digits.yaml", job)
    words = ("job.yaml", "-n", "5", "--site-env", "generic", "--dry-run")
    done = environment.run(tmp_path, "mpi-dcasgd", "submit", *words)
    assert done.returncode == 0, done.stderr
    assert f"site_file=${{MPI_DCASGD_ENV:-{environment.folder}/lib" in done.stdout


@pytest.mark.parametrize("site", [(), ("--site-env", "generic")], ids=["no site", "generic"])
def test_a_submitted_script_trains_without_a_clone(
    environment: Environment, tmp_path: Path, site: tuple[str, ...]
) -> None:
    tools = tmp_path / "slurm-tools"
    tools.mkdir()
    sbatch = tools / "sbatch"  # runs the script at once, as a SLURM with a free node
    sbatch.write_text(
        "#!/bin/bash\nSLURM_JOB_NAME=digits SLURM_JOB_ID=7 bash ${@: -1} </dev/null >log 2>&1\n"
        "echo 7\n"
    )
    sbatch.chmod(0o755)
    shutil.copy(REPOSITORY / "jobs/digits.yaml", tmp_path)
    words = ("digits.yaml", "algorithm=sgd", "epochs=1", "--run-dir", "r", *site)
    path = f"{tools}:/usr/bin:/bin"
    done = environment.run(tmp_path, "mpi-dcasgd", "submit", *words, path=path)
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "log").read_text()
    assert json.loads((tmp_path / "r/summary.json").read_text())["status"] == "completed", log
    recorded = json.loads((tmp_path / "r/environment.json").read_text())
    assert recorded["mpi_dcasgd"] == mpi_dcasgd.__version__

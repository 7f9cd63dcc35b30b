"""Every job file loads, and the reference of their keys is that of the code."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from mpi_dcasgd.cli.parser import parse
from mpi_dcasgd.config.load import job_as_yaml, load_job, read_mapping
from mpi_dcasgd.config.reference import MARKER, reference
from mpi_dcasgd.config.study import load_study

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "jobs").rglob("*.yaml"))
STUDIES = [file for file in FILES if "algorithms" in read_mapping(file)]
JOBS = [file for file in FILES if file not in STUDIES]

SIMULATED = ("workers=", "delays=")  # of a simulated cluster, not of the job


def name(file: Path) -> str:
    return file.name


@pytest.mark.parametrize("file", JOBS, ids=name)
def test_every_job_file_loads(file: Path) -> None:
    assert load_job(file).name == file.stem


@pytest.mark.parametrize("file", STUDIES, ids=name)
def test_every_study_file_loads(file: Path) -> None:
    study = load_study(file)
    assert len({element.name for element in study.elements}) == len(study.elements) > 1


@pytest.mark.parametrize("file", FILES, ids=name)
def test_every_header_has_hardware_time_result_and_commands_that_work(file: Path) -> None:
    header = file.read_text().partition("\n\n")[0] if file in STUDIES else file.read_text()
    for word in ("# hardware:", "# time:", "# result:"):
        assert word in header
    text = re.sub(r" \\\n#\s+", " ", file.read_text())
    commands = re.findall(
        r"^#   (?:mpirun -n \d+ python -m mpi_dcasgd|mpi-dcasgd) (.*)$", text, re.M
    )
    assert commands
    for command in commands:
        words = re.sub(r"\s+\(.*", "", command).split()
        args = parse(words)
        path = ROOT / getattr(args, {"compare": "study", "submit": "file"}.get(words[0], "job"))
        assert path == file
        if file not in STUDIES:
            ours = args.overrides
            if words[0] == "simulate":
                ours = [word for word in ours if not word.startswith(SIMULATED)]
            load_job(path, ours)


def documented_commands() -> list[tuple[str, str]]:
    """Every command of the package in the README and the guide, with the name of the page."""
    found = []
    for page in ("README.md", "docs/guide.md"):
        blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)
        for line in "".join(blocks).splitlines():
            command = line.partition("#")[0].partition("&&")[0].strip()
            match = re.match(r"(?:mpi-dcasgd|mpirun .* -m mpi_dcasgd) (.+)", command)
            if match:
                found.append((page, match[1]))
    return found


def test_there_are_commands_in_the_readme_and_the_guide() -> None:
    pages = [page for page, _ in documented_commands()]
    assert pages.count("README.md") >= 3
    assert pages.count("docs/guide.md") >= 12


@pytest.mark.parametrize(("page", "command"), documented_commands())
def test_every_command_of_the_readme_and_the_guide_is_one(page: str, command: str) -> None:
    args = parse(command.split())
    files = [getattr(args, name) for name in ("job", "study", "file") if hasattr(args, name)]
    for file in files:
        assert ROOT / file in [*FILES, *(ROOT / "examples").glob("*.yaml")]
    if files and not hasattr(args, "study") and ROOT / files[0] in JOBS:
        overrides = [word for word in args.overrides if not word.startswith(SIMULATED)]
        load_job(ROOT / files[0], overrides)


def test_the_paper_settings_are_those_of_the_paper() -> None:
    cifar, imagenet = (
        load_job(ROOT / f"jobs/{n}.yaml") for n in ("cifar10_resnet20", "imagenet_resnet50")
    )
    assert (cifar.epochs, cifar.batch_size, cifar.lr) == (160, 128, 0.5)
    assert cifar.schedule.milestones == (80, 120)
    assert job_as_yaml(cifar)["rule"]["compensation"] == {
        "name": "dc-adaptive",
        "dc_lambda": 2.0,
        "decay": 0.95,
        "eps": 1e-7,
        "mean_square": "global",
    }
    assert job_as_yaml(cifar)["rule"]["momentum"] == {"name": "none"}
    assert (imagenet.epochs, imagenet.batch_size, imagenet.lr) == (120, 32, 0.1)
    assert imagenet.schedule.milestones == (30, 60, 90)
    assert job_as_yaml(imagenet)["rule"]["compensation"]["decay"] == 0


def test_the_reference_is_that_of_the_code() -> None:
    below = (ROOT / "docs" / "jobs.md").read_text(encoding="utf-8").partition(MARKER)[2]
    assert below.strip() == reference().strip(), (
        "run: python -m mpi_dcasgd.config.reference docs/jobs.md"
    )


LOAD_ALL = """
import sys
from pathlib import Path

sys.modules["torch"] = None
from mpi_dcasgd.config.load import load_job, read_mapping
from mpi_dcasgd.config.study import load_study
for file in sys.argv[1:]:
    (load_study if "algorithms" in read_mapping(Path(file)) else load_job)(file)
print("loaded", len(sys.argv) - 1)
"""


def test_jobs_and_studies_are_checked_without_pytorch(processes) -> None:
    finished = processes.run([sys.executable, "-c", LOAD_ALL, *map(str, FILES)])
    assert finished.stdout == f"loaded {len(FILES)}\n", str(finished)

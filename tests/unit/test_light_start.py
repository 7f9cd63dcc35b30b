"""Checking a job and asking about runs is quick: nothing that is slow to load is loaded for it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mpi_dcasgd.cli.commands import COMMANDS

REPOSITORY = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "torchvision", "numpy", "mpi4py", "matplotlib", "sklearn")

LOAD = f"""
import sys
from pathlib import Path

from mpi_dcasgd.config.load import load_job, read_mapping
from mpi_dcasgd.config.study import load_study

for name in sys.argv[1:]:
    file = Path(name)
    (load_study if "algorithms" in read_mapping(file) else load_job)(file)
    found = [module for module in {HEAVY} if module in sys.modules]
    assert not found, (name, found)
print("checked", len(sys.argv) - 1)
"""

ASK = f"""
import json, sys

from mpi_dcasgd.cli import main

for words in json.loads(sys.argv[1]):
    try:
        status = main(words)
    except SystemExit as ended:
        status = ended.code
    found = [module for module in {HEAVY} if module in sys.modules]
    assert (status or 0, found) == (0, []), (words, status, found)
print("asked", len(json.loads(sys.argv[1])))
"""

REFUSE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ImportError("torch is not to be loaded yet")

sys.meta_path.insert(0, Refuse())

from mpi_dcasgd.cli import main

main(sys.argv[1:])
"""


def test_jobs_and_studies_are_checked_without_pytorch_and_numpy(processes) -> None:
    files = sorted(str(file) for file in (REPOSITORY / "jobs").rglob("*.yaml"))
    assert len(files) > 5
    finished = processes.run([sys.executable, "-c", LOAD, *files])
    assert finished.stdout == f"checked {len(files)}\n", str(finished)


def test_commands_that_start_nothing_load_neither_pytorch_nor_numpy(
    processes, tmp_path: Path
) -> None:
    job, study = str(REPOSITORY / "jobs/digits.yaml"), str(REPOSITORY / "jobs/compare_digits.yaml")
    run = tmp_path / "run"
    run.mkdir()
    (run / "job.yaml").write_text((REPOSITORY / "jobs/digits.yaml").read_text())
    asked = [
        ["--help"],
        ["--version"],
        *([name, "--help"] for name in COMMANDS),
        ["status", str(run)],
        ["submit", job, "-n", "3", "--dry-run", "--run-dir", str(tmp_path / "new")],
        ["submit", study, "--dry-run", "--out", str(tmp_path / "study")],
        ["compare", study, "--dry-run", "--out", str(tmp_path / "study")],
    ]
    finished = processes.run([sys.executable, "-c", ASK, json.dumps(asked)])
    assert finished.stdout.endswith(f"asked {len(asked)}\n"), str(finished)


@pytest.mark.parametrize("words", [["train"], ["run", "-n", "3"]])
def test_a_dry_run_shows_the_job_before_it_loads_pytorch(processes, words: list[str]) -> None:
    job = str(REPOSITORY / "jobs/digits.yaml")
    finished = processes.run([sys.executable, "-c", REFUSE, *words, "--dry-run", job])
    assert "\nalgorithm: dcasgd-a\n" in finished.stdout, str(finished)
    assert "torch is not to be loaded yet" in finished.stderr


@pytest.mark.parametrize("words", [["train", "--dry-run"], ["run"], ["submit"]])
def test_what_is_wrong_with_a_job_is_told_without_pytorch(processes, words: list[str]) -> None:
    job = str(REPOSITORY / "jobs/digits.yaml")
    finished = processes.run([sys.executable, "-c", REFUSE, *words, job, "lr=fast"])
    assert "lr: got 'fast' (text); allowed: a number > 0" in finished.stderr, str(finished)

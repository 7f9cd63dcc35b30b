"""``mpi-dcasgd init`` copies and never overwrites; site files are found here or in the package."""

from __future__ import annotations

import doctest
import os
from pathlib import Path

import pytest

import mpi_dcasgd.shipped
from mpi_dcasgd.cli import main
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.shipped import shipped
from mpi_dcasgd.tools.slurm.render import DEFAULT_JOB, DEFAULT_STUDY
from mpi_dcasgd.tools.slurm.site_files import find_site_file
from mpi_dcasgd.tools.starter import copy_starter_files


def files_below(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_init_copies_what_the_scripts_need_and_names_the_next_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my project"
    assert main(["init", str(folder)]) == 0
    copied = files_below(folder)
    assert {DEFAULT_JOB, DEFAULT_STUDY, "jobs/compare_digits.yaml"} <= copied
    assert {"slurm/async.sbatch", "slurm/report.sbatch", "slurm/env/generic.sh"} <= copied
    for name in copied:
        assert (folder / name).read_bytes() == shipped(name).read_bytes()
    told = capsys.readouterr().out
    assert f"cd '{folder}'" in told
    for name in copied:
        assert f"wrote {folder / name}\n" in told
    assert f"more example jobs: {shipped('jobs')}\n" in told


def test_init_in_the_current_folder_names_commands_that_parse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    told = capsys.readouterr().out
    assert "  cd " not in told
    lines = [line.split("#")[0].split() for line in told.splitlines() if line.startswith("  ")]
    commands = [words for program, *words in lines if program == "mpi-dcasgd"]
    assert [words[0] for words in commands] == ["run", "compare", "submit"]
    for words in commands:
        assert main([*words, "--dry-run"]) == 0
    script = told.split("sbatch ")[1].split()[0]
    assert Path(script).is_file()


def test_init_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "jobs").mkdir()
    mine = tmp_path / "jobs/digits.yaml"
    mine.write_text("mine")
    dangling = tmp_path / "jobs/compare_digits.yaml"
    dangling.symlink_to("nowhere")
    assert main(["init", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    for kept in (mine, dangling):
        assert f"kept  {kept} (exists already)\n" in told
    assert mine.read_text() == "mine"
    assert not (tmp_path / "jobs/nowhere").exists()
    again = copy_starter_files(tmp_path)
    assert not again.written
    assert {str(path) for path in again.kept} >= {"jobs/digits.yaml", "slurm/env/generic.sh"}


@pytest.mark.parametrize("blocked", ["jobs", "slurm/env"])
def test_init_says_what_is_in_the_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], blocked: str
) -> None:
    file = tmp_path / "p" / blocked
    file.parent.mkdir(parents=True)
    file.touch()
    assert main(["init", str(tmp_path / "p")]) == 2
    error = capsys.readouterr().err
    assert str(file) in error
    assert "Traceback" not in error


def test_a_site_file_of_the_current_folder_comes_before_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_site_file("srun-pmix") == shipped("slurm/env/srun-pmix.sh")
    own = tmp_path / "slurm/env/srun-pmix.sh"
    own.parent.mkdir(parents=True)
    own.touch()
    assert find_site_file("srun-pmix") == own
    assert find_site_file("generic") == shipped("slurm/env/generic.sh")
    assert find_site_file("./slurm/env/srun-pmix.sh") == own


def test_an_unknown_site_is_told_with_all_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.makedirs("slurm/env")
    Path("slurm/env/ours.sh").touch()
    with pytest.raises(ConfigError, match=r"did you mean srun-pmix.*generic.*no-gres, ours, srun"):
        find_site_file("srun-pmi")
    with pytest.raises(ConfigError, match=r"slurm/env/none\.sh: no such file"):
        find_site_file("slurm/env/none.sh")


def test_what_does_not_come_with_the_package_is_an_error() -> None:
    assert doctest.testmod(mpi_dcasgd.shipped) == (0, 1)
    with pytest.raises(FileNotFoundError, match="mars"):
        shipped("slurm/env/mars.sh")

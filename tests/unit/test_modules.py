"""Modules of a user's own: where they are found, what is never hidden by them, what is told."""

from __future__ import annotations

import doctest
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpi_dcasgd import modules
from mpi_dcasgd.config.load import job_as_text, load_job
from mpi_dcasgd.config.own_code import warnings
from mpi_dcasgd.errors import ConfigError, UserError
from mpi_dcasgd.extension import import_object
from mpi_dcasgd.modules import searching

TASK = """
from mpi_dcasgd import Task
import own_help

class Line(Task):
    WHO = "{who}"

    def __init__(self, points: int = 50):
        self.points = points
"""
JOB = "epochs: 1\nbatch_size: 8\nlr: 0.1\ntask: {name: 'own_task:Line', points: 60}\n"


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """No module of one test is known to the next."""
    before, path, finders = set(sys.modules), list(sys.path), list(sys.meta_path)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]
    modules._served.clear()
    modules._stamps.clear()
    assert (sys.path, sys.meta_path) == (path, finders)


def project(folder: Path, who: str) -> Path:
    """A folder with a job, its task, and a module that the task imports; the job's file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "own_task.py").write_text(TASK.format(who=who))
    (folder / "own_help.py").write_text(f"WHO = {who!r}\n")
    file = folder / "job.yaml"
    file.write_text(JOB)
    return file


def who(job: Any) -> tuple[str, str]:
    """Whose task a job has, and whose module this has imported."""
    with job.importing():
        kind = import_object("own_task:Line")
        return kind.WHO, sys.modules["own_help"].WHO


def test_a_module_is_found_beside_the_job_wherever_it_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = project(tmp_path / "project", "project")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    job = load_job(file)
    assert job.code == str(tmp_path / "project")
    assert who(job) == ("project", "project")
    # So is it from a copy of the job, which is what a run folder or a queue has.
    copy = tmp_path / "copy" / "job.yaml"
    copy.parent.mkdir()
    copy.write_text(job_as_text(job))
    assert load_job("../copy/job.yaml").code == job.code


def test_the_jobs_folder_goes_before_the_current_one_and_that_before_pythonpath(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("beside", "here", "on_path"):
        project(tmp_path / name, name)
    monkeypatch.syspath_prepend(str(tmp_path / "on_path"))
    monkeypatch.chdir(tmp_path / "here")
    file = tmp_path / "beside" / "job.yaml"
    for expected in ("beside", "here", "on_path"):
        job = load_job(file)
        assert who(job) == (expected, expected)
        assert job.code == str(tmp_path / expected)
        (tmp_path / expected / "own_task.py").unlink()
        (tmp_path / expected / "own_help.py").unlink()


def test_a_folder_that_the_job_names_goes_first(tmp_path: Path) -> None:
    file = project(tmp_path / "beside", "beside")
    project(tmp_path / "older", "older")
    job = load_job(file, ["code=../older"])
    assert (job.code, who(job)) == (str(tmp_path / "older"), ("older", "older"))


def test_two_jobs_with_modules_of_one_name_have_each_their_own(tmp_path: Path) -> None:
    first = load_job(project(tmp_path / "first", "first"))
    second = load_job(project(tmp_path / "second", "second"))
    assert who(second) == ("second", "second")
    assert who(first) == ("first", "first")
    assert first.make_task().points == 60


def test_a_module_that_was_changed_is_imported_again_by_the_next_job(tmp_path: Path) -> None:
    file = project(tmp_path, "before")
    job = load_job(file)
    (tmp_path / "own_help.py").write_text("WHO = 'after that'\n")
    assert who(job)[1] == "before"  # a run that is at work goes on with what it began with
    assert who(load_job(file))[1] == "after that"


def test_what_a_program_has_imported_itself_stays(tmp_path: Path) -> None:
    project(tmp_path / "mine", "mine")
    with searching(tmp_path / "mine"):
        import own_task
    modules._served.clear()
    job = load_job(project(tmp_path / "other", "other"))
    assert who(job)[0] == "mine"
    assert sys.modules["own_task"] is own_task
    assert job.code == str(tmp_path / "mine")


def test_nothing_beside_a_job_hides_what_comes_with_python_or_is_installed(tmp_path: Path) -> None:
    file = project(tmp_path, "project")
    for name in ("json", "yaml", "torch", "colorsys"):
        (tmp_path / f"{name}.py").write_text("raise AssertionError('taken for the real one')\n")
    sys.modules.pop("colorsys", None)
    with open(tmp_path / "own_help.py", "a") as helper:
        helper.write("import colorsys, json, yaml\n")
    job = load_job(file)
    assert who(job) == ("project", "project")
    assert "AssertionError" not in str(sys.modules["colorsys"].__file__)


def test_a_module_that_is_not_the_one_beside_the_job_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "lib" / "site-packages"
    project(site, "installed")
    monkeypatch.syspath_prepend(str(site))
    file = project(tmp_path / "beside", "beside")
    (tmp_path / "beside" / "own_help.py").unlink()
    job = load_job(file)
    assert who(job)[0] == "installed"
    (line,) = warnings(job)
    assert line == (
        f"own_task is taken from {site}/own_task.py, which is installed; "
        f"{tmp_path}/beside/own_task.py is not used"
    )
    (tmp_path / "beside" / "own_task.py").unlink()
    assert warnings(job) == []


def test_a_package_is_found_and_one_without_an_init_too(tmp_path: Path) -> None:
    for name, init in (("own_pkg", True), ("own_space", False)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tasks.py").write_text(TASK.format(who=name).replace("own_help", "os"))
        if init:
            (tmp_path / name / "__init__.py").touch()
        file = tmp_path / "job.yaml"
        file.write_text(JOB.replace("own_task", f"{name}.tasks"))
        assert load_job(file).code == str(tmp_path)


@pytest.mark.parametrize(
    ("name", "source", "told"),
    [
        (
            "own_tsk:Line",
            "",
            "task.name: cannot import own_tsk:Line: No module named 'own_tsk'; did you mean "
            "own_task? (looked in {folder}, {here} and on PYTHONPATH)",
        ),
        ("own_task.no:Line", "", "task.name: cannot import own_task.no:Line: No module named 'own"),
        (
            "own_task:Lin",
            "class Line: pass",
            "'Lin' ({folder}/own_task.py); did you mean Line?",
        ),
        (
            "own_task:Line",
            "x = 1\nclass Line(:",
            "own_task raised SyntaxError: invalid syntax ({folder}/own_task.py, line 2)",
        ),
        (
            "own_task:Line",
            "\nimport no_such_thing",
            "own_task raised ModuleNotFoundError: No module named 'no_such_thing' "
            "({folder}/own_task.py, line 2)",
        ),
        (
            "own_task:Line",
            "from os import nothing_of_this_name",
            "own_task raised ImportError: cannot import name 'nothing_of_this_name' from 'os'",
        ),
        (
            "own_task:Line",
            "import own_help",
            "own_task raised ZeroDivisionError: division by zero ({folder}/own_help.py, line 3)",
        ),
        (
            "own_task:Line",
            "raise SystemExit('usage: own_task FILE')",
            "own_task raised SystemExit: usage: own_task FILE ({folder}/own_task.py, line 1)",
        ),
        ("own_task:Line", "class Line: pass", "own_task:Line is not a subclass of mpi_dcasgd.lea"),
    ],
)
def test_what_cannot_be_imported_is_one_message(
    tmp_path: Path, name: str, source: str, told: str
) -> None:
    file = project(tmp_path, "project")
    (tmp_path / "own_task.py").write_text(source)
    (tmp_path / "own_help.py").write_text("def f():\n    pass\n1 / 0\n")
    with pytest.raises(ConfigError) as caught:
        load_job(file, [f"task.name={name}"])
    (problem,) = caught.value.problems
    assert told.format(folder=tmp_path, here=os.getcwd()) in problem


def test_a_module_that_failed_is_tried_again(tmp_path: Path) -> None:
    file = project(tmp_path, "project")
    good = (tmp_path / "own_task.py").read_text()
    (tmp_path / "own_task.py").write_text("1 / 0")
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        load_job(file)
    (tmp_path / "own_task.py").write_text(good)
    assert load_job(file).code == str(tmp_path)


def test_sys_path_is_given_back_after_an_error_too(tmp_path: Path) -> None:
    path, finders = list(sys.path), list(sys.meta_path)
    with pytest.raises(UserError), searching(tmp_path):
        import_object("own_nowhere:X")
    assert (sys.path, sys.meta_path) == (path, finders)


def test_within_a_search_another_comes_second(tmp_path: Path) -> None:
    project(tmp_path / "outer", "outer")
    project(tmp_path / "inner", "inner")
    with searching(tmp_path / "outer"):
        assert load_job(tmp_path / "inner" / "job.yaml").code == str(tmp_path / "outer")


def test_a_standard_modules_name_in_the_current_folder_breaks_no_command(
    tmp_path: Path, processes: Any
) -> None:
    project(tmp_path, "project")
    for name in ("json", "yaml", "argparse"):
        (tmp_path / f"{name}.py").write_text("1 / 0\n")
    finished = processes.run(
        [sys.executable, "-m", "mpi_dcasgd", "stability", "job.yaml", "--workers", "1"],
        cwd=tmp_path,
    )
    assert finished.status == 0, finished


def test_examples_are_true() -> None:
    found = doctest.testmod(modules)
    assert found.attempted > 0
    assert found.failed == 0

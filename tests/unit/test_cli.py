"""The command line: what is refused before anything starts, and with which words and status."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import mpi_dcasgd
from mpi_dcasgd import cli
from mpi_dcasgd.cli import main
from mpi_dcasgd.cli.parser import build_parser, parse
from mpi_dcasgd.config.load import load_job
from mpi_dcasgd.errors import DcasgdError
from mpi_dcasgd.tools.launch import world as launch
from mpi_dcasgd.tools.launch.mpirun import MpirunCommand

JOB = """\
algorithm: asgd
epochs: 1
batch_size: 64
lr: 0.1
model: {name: mlp, hidden: [8]}
data: {name: digits}
device: cpu
"""


@pytest.fixture
def job(tmp_path: Path) -> str:
    path = tmp_path / "toy.yaml"
    path.write_text(JOB)
    return str(path)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[MpirunCommand]:
    """The commands that would have been executed."""
    commands: list[MpirunCommand] = []

    def run(command: MpirunCommand, **streams: Any) -> int:
        commands.append(command)
        return 7

    def run_world(command: MpirunCommand, **places: Any) -> launch.WorldEnd:
        return launch.WorldEnd(run(command, **places))

    monkeypatch.setattr(launch, "run", run)
    monkeypatch.setattr(launch, "run_world", run_world)
    return commands


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("OMPI_", "PMI_", "SLURM_")):
            monkeypatch.delenv(name)


def refused(capsys: pytest.CaptureFixture[str], words: Sequence[str], *message: str) -> None:
    """Status 2, nothing on stdout but a job, and one message."""
    assert main(words) == 2
    told = capsys.readouterr().err
    for part in message:
        assert part in told
    assert "Traceback" not in told


def test_version_and_help_load_nothing_heavy() -> None:
    program = (
        "import sys; from mpi_dcasgd.cli import main\n"
        "assert main(['--version']) == 0 and main(['--help']) == 0 and main(['run', '-h']) == 0\n"
        "print(sorted({'torch', 'numpy', 'mpi4py', 'matplotlib'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[0] == f"mpi-dcasgd {mpi_dcasgd.__version__}"
    assert lines[-1] == "[]"


def test_every_command_can_be_asked_for_help_and_can_be_called(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (commands,) = (a for a in build_parser()._actions if isinstance(a.choices, dict))
    assert {"train", "run", "compare", "report"} <= set(commands.choices or ())
    for name in commands.choices or ():
        assert main([name, "--help"]) == 0
        assert "usage: mpi-dcasgd " + name in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["tarin"],
        ["train"],
        ["train", "job.yaml", "--dryrun"],
        ["train", "job.yaml", "--dry"],
        ["run", "-n", "0", "job.yaml"],
        ["run", "-n", "four", "job.yaml"],
        ["report", "runs"],
        ["report", "runs", "-o", "x", "--target-error", "4"],
        ["compare", "a.yaml", "lr=3"],
    ],
)
def test_words_that_make_no_command_have_status_2(
    capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    refused(capsys, words, "usage: ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("trian job.yaml", "invalid choice: 'trian' (choose from 'init', 'train',"),
        ("trian job.yaml", "); did you mean train?\n"),
        (
            "train job.yaml --run-dri x",
            "unrecognized arguments: --run-dri; did you mean --run-dir?",
        ),
        ("train job.yaml --run_dir=x", "--run_dir=x; did you mean --run-dir?\n"),
        ("run job.yaml --launcher mpirn", "); did you mean mpirun?\n"),
        ("simulate job.yaml --lr 0.1", "--lr; a key of the job is set without dashes: lr=...\n"),
        ("train job.yaml --data.name=x", "; a key of the job is set without dashes: data.name=x\n"),
        ("report runs/x -o y --lr=0.1", "unrecognized arguments: --lr=0.1\n"),
    ],
)
def test_a_mistyped_word_is_told_with_what_it_may_have_meant(
    words: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    assert told in capsys.readouterr().err


def test_an_option_of_several_values_may_come_several_times_in_place_of_its_default() -> None:
    args = parse(["compare", "s.yaml", "--only", "a", "b", "--dry-run", "--only", "c"])
    assert args.only == ["a", "b", "c"]
    args = parse(["bench", "mpi", "--workers", "1", "--workers", "3", "4"])
    assert args.workers == [1, 3, 4]
    # What is not given keeps its default, which nobody has added to.
    assert parse(["bench", "mpi"]).workers == [1, 2]


def _options(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _options(inner)
        elif action.option_strings:
            yield action


def test_no_option_of_several_values_loses_those_that_came_before() -> None:
    several = [option for option in _options(build_parser()) if option.nargs == "+"]
    assert len(several) > 10
    assert not [option for option in several if isinstance(option, argparse._StoreAction)]


def test_overrides_may_stand_before_and_after_options() -> None:
    args = parse(["train", "a.yaml", "lr=1", "--run-dir", "x", "seed=2", "model.hidden=[1, 2]"])
    assert args.overrides == ["lr=1", "seed=2", "model.hidden=[1, 2]"]
    assert args.run_dir == Path("x")
    assert parse(["train", "--run-dir", "x", "a.yaml"]).overrides == []


def test_a_dry_run_prints_the_resolved_job_and_what_it_needs(
    capsys: pytest.CaptureFixture[str], job: str, tmp_path: Path
) -> None:
    assert main(["train", job, "lr=0.5", "--dry-run", "-n", "3"]) == 0
    resolved, _, needs = capsys.readouterr().out.partition("\nranks:")
    path = tmp_path / "resolved.yaml"
    path.write_text(resolved)
    assert load_job(path) == load_job(job, ["lr=0.5"])
    assert needs.splitlines()[0].strip() == "3; rank 0 serves, ranks 1 to 2 train"
    assert "610 trainable" in needs
    assert "server: " in needs
    assert "each worker: " in needs


def test_a_dry_run_under_a_launcher_counts_its_ranks_and_one_of_them_prints(
    capsys: pytest.CaptureFixture[str], job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank, expected in (("0", "4; rank 0 serves, ranks 1 to 3 train"), ("1", "")):
        monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
        monkeypatch.setenv("OMPI_COMM_WORLD_RANK", rank)
        monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_RANK", rank)
        assert main(["train", job, "--dry-run"]) == 0
        out = capsys.readouterr().out
        assert expected in out
        assert bool(out) == (rank == "0")


def test_a_dry_run_prints_the_job_even_where_its_data_are_not(
    capsys: pytest.CaptureFixture[str], job: str
) -> None:
    words = ["train", job, "--dry-run", "data={name: cifar10, path: /nowhere}", "algorithm=sgd"]
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert yaml.safe_load(out)["data"]["path"] == "/nowhere"
    assert err.startswith("DataError: ")


def test_a_broken_job_is_told_in_one_message(
    capsys: pytest.CaptureFixture[str], job: str, started: list[MpirunCommand]
) -> None:
    wrong = [job, "lr=fast", "seed=-1"]
    for words in (["train", *wrong], ["train", *wrong, "--dry-run"], ["run", "-n", "3", *wrong]):
        refused(capsys, words, f"ConfigError: {job} with overrides: 2 problems\n", "lr: got 'fast'")
    assert not started


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["algorithm=asgd"], "algorithm asgd needs -n"),
        (["algorithm=ssgd"], "algorithm ssgd needs -n"),
        (["algorithm=asgd", "-n", "1"], "a server and at least one worker"),
        (["algorithm=sgd", "-n", "3"], "-n 3: algorithm sgd is one process"),
    ],
)
def test_a_number_of_ranks_that_cannot_be_starts_nothing(
    capsys: pytest.CaptureFixture[str],
    job: str,
    started: list[MpirunCommand],
    words: list[str],
    message: str,
) -> None:
    refused(capsys, ["run", job, *words], "LaunchError: ", message)
    assert not started


def test_run_gives_every_rank_the_words_of_the_job(job: str, started: list[MpirunCommand]) -> None:
    words = ["run", "-n", "3", job, "lr=0.2", "--run-dir", "x y", "--overwrite", "seed=1"]
    assert main([*words, "--mpirun", _some_program()]) == 7
    (command,) = started
    assert command.argv[0] == _some_program()
    assert command.argv[1:3] == ("-n", "3")
    start = command.argv.index(sys.executable, 1)
    ranks = list(command.argv[start + 1 :])
    assert ranks[:2] == ["-m", "mpi_dcasgd"]
    args = parse(ranks[2:])
    assert (str(args.job), args.overrides) == (job, ["lr=0.2", "seed=1"])
    assert (args.run_dir, args.overwrite) == (Path("x y"), True)


def test_run_names_the_folder_itself_and_leaves_none_that_nothing_was_written_into(
    tmp_path: Path, job: str, started: list[MpirunCommand], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[list[Path]] = []
    execute = launch.run_world

    def run_world(command: MpirunCommand, **places: Any) -> launch.WorldEnd:
        seen.append(sorted(tmp_path.glob("runs/*")))
        return execute(command, **places)

    monkeypatch.setattr(launch, "run_world", run_world)
    assert main(["run", "-n", "3", job, "--mpirun", _some_program()]) == 7
    (command,), ((folder,),) = started, seen
    args = parse(list(command.argv[command.argv.index(sys.executable, 1) + 3 :]))
    assert args.run_dir == folder.relative_to(tmp_path)
    assert not folder.exists()


def test_run_starts_a_sequential_job_without_mpirun(job: str, started: list[MpirunCommand]) -> None:
    for words in ([], ["-n", "1"]):
        assert main(["run", job, "algorithm=sgd", *words]) == 7
    assert {command.argv[0] for command in started} == {sys.executable}


def test_run_shows_its_command_without_executing_it(
    capsys: pytest.CaptureFixture[str], job: str, started: list[MpirunCommand]
) -> None:
    assert main(["run", "-n", "3", job, "--dry-run", "--mpirun", _some_program()]) == 0
    out = capsys.readouterr().out
    assert "ranks:      3;" in out
    assert out.splitlines()[-1].startswith("command: ")
    assert f"mpi_dcasgd train {job}" in out.splitlines()[-1]
    assert not started


def test_an_mpirun_that_is_none_is_told(
    capsys: pytest.CaptureFixture[str], job: str, started: list[MpirunCommand]
) -> None:
    refused(capsys, ["run", "-n", "2", job, "--mpirun", "/no/mpirun"], "LaunchError: --mpirun")
    assert not started


@pytest.mark.parametrize(
    ("raised", "status", "told"),
    [
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (DcasgdError("it broke"), 1, "DcasgdError: it broke\n"),
    ],
)
def test_errors_become_messages_and_statuses(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
    status: int,
    told: str,
) -> None:
    def fail(args: Any) -> int:
        raise raised

    monkeypatch.setattr("mpi_dcasgd.cli.train.run", fail)
    assert main(["train", "job.yaml"]) == status
    assert capsys.readouterr().err == told


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(args: Any) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr("mpi_dcasgd.cli.train.run", fail)
    with pytest.raises(ZeroDivisionError):
        main(["train", "job.yaml"])


def test_a_reader_that_goes_away_is_no_failure(job: str) -> None:
    argv = [sys.executable, "-m", "mpi_dcasgd", "train", job, "--dry-run"]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(argv, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_command_line_is_handed_on_as_typed(job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr("mpi_dcasgd.cli.train.run", lambda args: seen.append(args.argv) or 0)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/mpi-dcasgd", "train", job, "lr=3"])
    assert cli.main() == 0
    assert seen == [["mpi-dcasgd", "train", job, "lr=3"]]


def _some_program() -> str:
    """An executable that tells its version, as every mpirun does."""
    return str(Path(sys.executable))

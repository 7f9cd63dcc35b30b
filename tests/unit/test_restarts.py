"""Starting a run again: when, when not, with what, and what is written down of it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.record.restarts import Restart, read_restarts, write_restarts
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.runs.launch import launch, plan_launch
from mpi_dcasgd.runs.launch_plan import Launcher
from mpi_dcasgd.tools.launch import starts, world
from mpi_dcasgd.tools.launch.mpirun import MpirunCommand
from mpi_dcasgd.tools.launch.restarts import Ending, pause_s, reason_to_stay, restarts_wanted
from mpi_dcasgd.tools.launch.world import WorldEnd

LOST = """
PRTE has lost communication with a remote daemon.

  HNP daemon   : [prterun-h1-20@0,0] on node h1
  Remote daemon: [prterun-h1-20@0,2] on node h3

This is usually due to
"""
KILLED = """
prterun noticed that process rank 2 with PID 416 on node vm exited on
signal 9 (Killed).
"""


def ending(
    status: int = 137,
    *,
    words: str = "",
    summary: dict[str, Any] | None = None,
    version: int | None = 700,
    reached: int = 1000,
    asked_by: int | None = None,
    killed_by: int | None = None,
) -> Ending:
    end = WorldEnd(status, asked_by, killed_by, words)
    return Ending(status, end, summary or {}, version, reached)


def failed(reason: str) -> dict[str, Any]:
    return {"status": "failed", "reason": reason}


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        (ending(words=LOST, summary=failed("LauncherLostError: x")), "lost host h3"),
        (ending(killed_by=9), "the launcher was killed by SIGKILL"),
        (ending(1, summary=failed("WorkersLostError: none")), "WorkersLostError: none"),
        (ending(words=KILLED), "rank 2 on vm was killed by SIGKILL"),
        (ending(1, words="rank 1 on h: ValueError: odd\n"), "(rank 1 on h: ValueError: odd)"),
        (ending(143), "exit status 143 (no output)"),
    ],
)
def test_what_ended_a_run_is_one_line(end: Ending, cause: str) -> None:
    assert cause in end.cause
    assert "\n" not in end.cause
    assert not reason_to_stay(end, None)


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (ending(138, asked_by=10), "told to stop"),
        (ending(2), "same mistake"),
        (ending(143, summary={"status": "interrupted", "reason": "stopped by SIGTERM"}), "told"),
        (ending(1, summary=failed("NonFiniteError: 20 gradients")), "diverges"),
    ],
)
def test_a_wish_and_a_mistake_are_no_reason_to_start_again(end: Ending, why: str) -> None:
    assert why in reason_to_stay(end, None)


def test_mpirun_that_stops_ranks_because_it_lost_a_host_is_nobodys_wish() -> None:
    stopped = {"status": "interrupted", "reason": "stopped by SIGTERM"}
    assert not reason_to_stay(ending(143, words=LOST, summary=stopped), None)
    assert not reason_to_stay(ending(143, killed_by=9, summary=stopped), None)


def test_the_same_failure_twice_at_the_same_version_is_the_last() -> None:
    why = reason_to_stay(ending(words=KILLED), ending(words=KILLED))
    assert "failed twice after update 700" in why
    assert "rank 2 on vm was killed" in why
    assert "its start" in reason_to_stay(ending(version=None), ending(version=None))
    # A kill further on, or after another checkpoint, is another failure.
    assert not reason_to_stay(ending(reached=1001), ending())
    assert not reason_to_stay(ending(version=800), ending())


def test_the_same_exception_without_a_checkpoint_in_between_is_the_last() -> None:
    words = "rank 1 on h: ValueError: sample 7 is odd\n"
    again = ending(1, words=words, reached=1040)
    assert "sample 7 is odd" in reason_to_stay(again, ending(1, words=words))
    assert not reason_to_stay(again, ending(1, words="rank 1 on h: OSError: x\n"))
    assert not reason_to_stay(again, ending(1, words=words, version=600))


def test_pauses_grow_to_half_a_minute() -> None:
    assert [pause_s(number) for number in (1, 2, 3, 6, 40)] == [1, 2, 4, 30, 30]


def test_the_variable_stands_for_the_option() -> None:
    env = {"MPI_DCASGD_RESTARTS": "4"}
    assert restarts_wanted(None, {}) == 0
    assert restarts_wanted(None, env) == 4
    assert restarts_wanted(2, env) == 2
    with pytest.raises(LaunchError, match=r"MPI_DCASGD_RESTARTS is '-1'; allowed"):
        restarts_wanted(None, {"MPI_DCASGD_RESTARTS": "-1"})


# The file


def restart(number: int = 1, **values: Any) -> Restart:
    known = {"allowed": 3, "at": "2026-11-28", "cause": "lost host h3", "version": 7, "ranks": 4}
    return Restart(**{**known, "restart": number, **values})


def test_restarts_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "restarts.jsonl"
    both = [restart(1, left_out=("h3",)), restart(2, version=None)]
    write_restarts(file, both)
    assert read_restarts(file) == both
    assert [each.whence for each in both] == ["resuming at update 7", "starting over"]


def test_a_file_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "restarts.jsonl"
    file.write_text('{"mine": 1}\n')
    write_restarts(file, [restart()])
    assert file.read_text() == '{"mine": 1}\n'
    assert read_restarts(file) == []


# The loop, with worlds that are only played


class Worlds:
    """Stands for mpirun: each start does what the next entry says."""

    def __init__(self, *acts: Callable[[RunFolder], WorldEnd]) -> None:
        self._acts = list(acts)
        self.commands: list[MpirunCommand] = []

    def __call__(self, command: MpirunCommand, *, run_dir: Path, tail: object) -> WorldEnd:
        self.commands.append(command)
        folder = RunFolder(run_dir)
        folder.summary_json.unlink(missing_ok=True)
        return self._acts.pop(0)(folder)

    def words(self, number: int) -> str:
        return " ".join(self.commands[number].argv)


def dies(version: int | None, words: str = KILLED, **end: Any) -> Callable[[RunFolder], WorldEnd]:
    """A start that reaches a checkpoint, if there is a version, and is then ended."""

    def act(folder: RunFolder) -> WorldEnd:
        folder.path.mkdir(exist_ok=True)
        hosts = [{"host": host} for host in ("h1", "h1", "h2", "h2", "h3", "h3")]
        folder.write_environment({"ranks": hosts})
        if version is not None:
            folder.checkpoints.mkdir(exist_ok=True)
            folder.checkpoint(version).write_bytes(b"x")
        return WorldEnd(**{"status": 137, "words": words, **end})

    return act


def completes(folder: RunFolder) -> WorldEnd:
    folder.path.mkdir(exist_ok=True)
    folder.write_summary({"status": "completed"})
    return WorldEnd(0)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[int, Worlds]]:
    monkeypatch.setattr(starts, "pause_s", lambda number: 0.0)
    run_dir = tmp_path / "run"

    def start(restarts: int, *acts: Any, arguments: str = "", **options: Any) -> tuple[int, Worlds]:
        worlds = Worlds(*acts)
        monkeypatch.setattr(world, "run_world", worlds)
        launcher = Launcher("mpirun", arguments=tuple(arguments.split()))
        job = Path("jobs/digits.yaml")
        plan = plan_launch(job, 6, run_dir=run_dir, launcher=launcher, **options)
        return launch(plan, restarts).status, worlds

    return start


def test_a_run_that_dies_is_resumed_and_told_of(
    play: Any, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    status, worlds = play(2, dies(None), dies(700), completes)
    assert (status, len(worlds.commands)) == (0, 3)
    told = capfd.readouterr().err
    cause = "rank 2 on vm was killed by SIGKILL"
    assert f"restart 1 of 2 in 0 s: {cause}; starting over\n" in told
    assert f"restart 2 of 2 in 0 s: {cause}; resuming at update 700\n" in told
    found = RunFolder(tmp_path / "run").restarts()
    assert [(each.restart, each.version, each.ranks) for each in found] == [
        (1, None, 6),
        (2, 700, 6),
    ]


def test_no_more_restarts_than_allowed(play: Any, capfd: pytest.CaptureFixture[str]) -> None:
    status, worlds = play(1, dies(1), dies(2))
    assert (status, len(worlds.commands)) == (137, 2)
    assert (
        "not started again: that was the last of 1 (--restarts): rank 2" in capfd.readouterr().err
    )
    status, worlds = play(0, dies(3))
    assert (status, len(worlds.commands)) == (137, 1)


def test_overwriting_is_for_the_first_start_only(play: Any) -> None:
    play(0, completes)
    status, worlds = play(2, dies(None), dies(5), completes, overwrite=True)
    assert status == 0
    # As long as there is nothing of this run to go on from, the words are the user's.
    assert ["--overwrite" in worlds.words(n) for n in range(3)] == [True, True, False]


def test_checkpoints_that_are_to_be_ignored_are_not_gone_on_with(play: Any) -> None:
    play(0, dies(9))
    status, worlds = play(2, dies(None), dies(12), completes, resume="never")
    assert status == 0
    assert ["never" in worlds.words(n) for n in range(3)] == [True, True, False]


def test_a_lost_host_is_left_out_of_the_hosts_of_the_user(
    play: Any,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("h1 slots=2\nh2 slots=2\n# two more\nh3.cluster slots=2\n")
    seen: list[str] = []
    real = starts.Starts._without

    def without(self: Any) -> Any:
        found = real(self)
        seen.append(str(found.hostfile))
        return found

    monkeypatch.setattr(starts.Starts, "_without", without)

    def look(folder: RunFolder) -> WorldEnd:
        seen.append(Path(seen[-1]).read_text())
        return completes(folder)

    lost = dies(700, LOST, status=0)
    status, worlds = play(1, lost, look, arguments=f"--hostfile {hosts}")
    assert f"--hostfile {seen[0]}" in worlds.words(1)
    assert status == 0
    assert seen[-1:] == ["h1 slots=2\nh2 slots=2\n# two more\n"]
    assert "-n 4" in worlds.words(1)
    assert "4 ranks in place of 6, without h3" in capfd.readouterr().err


def test_hosts_that_are_lost_one_after_the_other_are_all_left_out(play: Any) -> None:
    def in_set_up(folder: RunFolder) -> WorldEnd:
        folder.environment_json.unlink()  # as a start that has not come to writing its own
        return WorldEnd(0, words=LOST.replace("h3", "h2"))

    # The scheduler's hosts, of which mpirun's arguments say nothing.
    status, worlds = play(2, dies(7, LOST, status=0), in_set_up, completes)
    assert status == 0
    assert "-n 4" in worlds.words(1)
    assert "--host h1:2,h2:2" in worlds.words(1)
    assert "-n 2" in worlds.words(2)
    assert "--host h1:2 " in worlds.words(2)


def test_without_any_host_left_it_ends(play: Any, capfd: pytest.CaptureFixture[str]) -> None:
    status, worlds = play(3, dies(7, LOST, status=0), arguments="--host h3:6")
    assert (status, len(worlds.commands)) == (1, 1)
    assert "not started again: no host is left" in capfd.readouterr().err


def test_a_signal_in_the_pause_is_obeyed(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(number: int) -> float:
        signal.raise_signal(signal.SIGTERM)
        return 100.0

    monkeypatch.setattr(starts, "pause_s", told)
    status, worlds = play(2, dies(1), completes)
    assert (status, len(worlds.commands)) == (128 + signal.SIGTERM, 1)


# What the run makes of it


def test_a_new_start_of_the_folder_forgets_restarts_of_an_earlier_run(tmp_path: Path) -> None:
    from mpi_dcasgd.record import own_files

    folder = RunFolder(tmp_path)
    write_restarts(folder.restarts_jsonl, [restart()])
    own_files.clear(folder)
    assert folder.restarts(), "this start has not told of it yet"
    folder.write_environment({"mpi_dcasgd": "1", "restarts": 1})
    own_files.clear(folder)
    assert not folder.restarts_jsonl.exists()


def test_restarts_are_counted_in_the_status(tmp_path: Path) -> None:
    from mpi_dcasgd.tools.run_status import run_status

    folder = RunFolder(tmp_path)
    write_restarts(folder.restarts_jsonl, [restart(1), restart(2)])
    assert run_status("run", folder, None, None).restarts == 2
    folder.write_summary({"status": "completed", "restarts": 3})
    assert run_status("run", folder, None, None).restarts == 3
    assert json.loads(folder.restarts_jsonl.read_text().splitlines()[0])["cause"]

"""Chaos: what is drawn, what is found in folders that are not as they should be, what is shown."""

from __future__ import annotations

import doctest
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpi_dcasgd.cli import main
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.trace import Trace, read_trace
from mpi_dcasgd.record.trace_writer import TraceWriter
from mpi_dcasgd.runs.chaos import chaos_runs, prepare
from mpi_dcasgd.runs.replay_verdict import Replay
from mpi_dcasgd.runs.train import train
from mpi_dcasgd.server.records import Action
from mpi_dcasgd.tools.chaos import checks
from mpi_dcasgd.tools.chaos.plan import KINDS, Fault, Moment, Plan, draw, pick_kinds
from mpi_dcasgd.tools.chaos.processes import Process, Processes
from mpi_dcasgd.tools.chaos.start import Bounds, Start, run_start
from mpi_dcasgd.tools.chaos.strike import Struck
from mpi_dcasgd.tools.chaos.table import table
from mpi_dcasgd.tools.chaos.verdict import Verdict, judge_start
from mpi_dcasgd.tools.chaos.watch import Watch

META = {"epochs": 2, "num_samples": 40, "batch_size": 10}  # eight tickets
MIDDLE = Moment("training", fraction=0.5)


# --- what is drawn --------------------------------------------------------------------------


def test_a_run_is_drawn_from_the_seed_and_its_number_alone() -> None:
    kinds = tuple(KINDS)
    drawn = [draw(3, run, kinds, 4, modes=(False, True)) for run in range(60)]
    assert drawn == [draw(3, run, kinds, 4, modes=(False, True)) for run in range(60)]
    assert drawn != [draw(4, run, kinds, 4, modes=(False, True)) for run in range(60)]
    assert {plan.kind for plan in drawn[: len(kinds)]} == set(kinds)
    assert {plan.fault_tolerant for plan in drawn} == {False, True}
    assert {fault.moment.stage for plan in drawn for fault in plan.faults} == {
        "start",
        "training",
        "end",
    }
    for plan in drawn:
        assert len(plan.faults) == (2 if plan.kind == "two-faults" else 1)
        for fault in plan.faults:
            if fault.kind.endswith("worker"):
                assert fault.rank in range(1, 5)


def test_with_several_servers_any_of_them_is_struck_and_workers_come_behind_them() -> None:
    struck = [draw(3, run, ["kill-server", "kill-worker"], 2, servers=2) for run in range(40)]
    ranks = {(fault.kind, fault.rank) for plan in struck for fault in plan.faults}
    servers, workers = [("kill-server", n) for n in (0, 1)], [("kill-worker", n) for n in (2, 3)]
    assert ranks == {*servers, *workers}


def test_kinds_are_picked_by_name_or_by_family() -> None:
    assert pick_kinds(["kill", "pause-all"]) == (
        "kill-worker",
        "kill-server",
        "kill-mpirun",
        "pause-all",
    )
    with pytest.raises(ConfigError, match="got 'kil'; did you mean kill"):
        pick_kinds(["kil", "hang"])


def test_jobs_of_which_nothing_could_be_checked_are_refused() -> None:
    with pytest.raises(ConfigError, match="ssgd is synchronous"):
        prepare(words=["algorithm=ssgd"])
    with pytest.raises(ConfigError, match=r"record\.trace: got false"):
        prepare(words=["record.trace=false"])


@pytest.mark.mpi
@pytest.mark.parametrize("name", ["runs.chaos", "tools.chaos.plan"])
def test_the_examples_are_true(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(f"mpi_dcasgd.{name}"))
    assert failed == 0
    assert tried > 0


@pytest.mark.mpi
@pytest.mark.parametrize(("asked", "made"), [("3", [3]), ("2-4", [2, 3, 4])])
def test_some_of_the_runs_can_be_made(
    asked: str, made: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chaos", "--dry-run", "--only", asked]) == 0
    shown = capsys.readouterr().out.splitlines()
    numbers = [line.split(":")[0] for line in shown if line.startswith("run ")]
    assert numbers == [f"run {number}" for number in made]


@pytest.mark.parametrize("wrong", ["4-2", "-1", "x", "1-", "1-2-3"])
def test_runs_that_are_none_are_refused(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chaos", "--dry-run", f"--only={wrong}"]) == 2
    assert "allowed: a run's number from 0, or A-B" in capsys.readouterr().err


def test_a_dry_run_says_what_would_strike(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chaos", "epochs=2", "--dry-run", "--runs", "2", "--kinds", "kill,hang"]) == 0
    shown = capsys.readouterr().out
    assert "hang-server    SIGSTOP of the server, for good" in shown
    assert shown.count("\nrun ") == 2
    chaos = prepare(words=["epochs=2"], runs=2, kinds=["kill", "hang"])
    assert str(chaos.plan(1)) in shown
    assert chaos.total == 2 * 90


# --- folders that are not as they should be ------------------------------------------------


def trace_of(path: Path, tickets: list[int], *, action: Action = Action.APPLIED) -> Trace:
    writer = TraceWriter(path, META)
    for number, ticket in enumerate(tickets):
        writer.add(number % 3, ticket, 0, action, float(number), ticket)
    writer.end("completed")
    return read_trace(path)


def sorts(failures: list[checks.Failure]) -> list[str]:
    return [failure.sort for failure in failures]


def test_a_whole_trace_is_all_right(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "trace.bin", [1, 0, 2, 3, 5, 4, 6, 7])
    assert checks.check_tickets(trace, complete=True) == []
    assert checks.check_summary(trace, {"samples": 80, "updates": 8}) == []


def test_a_lost_ticket_is_found(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "trace.bin", [0, 1, 2, 4, 5, 6, 7])
    (found,) = checks.check_tickets(trace, complete=True)
    assert str(found) == "lost: never applied: tickets 3 of 8"
    assert checks.check_tickets(trace, complete=False) == []
    (found,) = checks.check_summary(trace, {"samples": 70, "updates": 7})
    assert str(found) == "lost: the summary tells of 70 samples, not of 80"


def test_a_ticket_that_was_refused_and_given_up_is_not_lost(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "trace.bin", list(range(8)), action=Action.NONFINITE)
    assert checks.check_tickets(trace, complete=True) == []


@pytest.mark.parametrize("complete", [False, True])
def test_a_ticket_applied_twice_is_found(tmp_path: Path, complete: bool) -> None:
    trace = trace_of(tmp_path / "trace.bin", [0, 1, 2, 3, 4, 5, 6, 7, 2])
    (found,) = checks.check_tickets(trace, complete=complete)
    assert str(found) == "twice: applied more than once: tickets 2"


def test_a_ticket_of_another_run_is_found(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "trace.bin", list(range(9)))
    assert sorts(checks.check_tickets(trace, complete=True)) == ["twice"]


def test_a_resumed_trace_goes_on_with_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "trace.bin"
    writer = TraceWriter(path, META)
    for ticket in range(4):
        writer.add(0, ticket, 0, Action.APPLIED, 0.0, ticket)
        if ticket == 1:
            place = writer.place()
    writer.close()
    before = read_trace(path)
    TraceWriter.resume(path, place, 3).close()
    after = read_trace(path)
    assert [restart.records for restart in after.restarts] == [2]
    assert checks.check_continued(before, after, resumable=True) == []
    assert checks.check_continued(None, after, resumable=False) == []

    other = trace_of(tmp_path / "other.bin", [1, 0, 2, 3])
    (found,) = checks.check_continued(other, after, resumable=True)
    assert str(found) == "lost: the first 2 pushes are not those of the start before"
    (found,) = checks.check_continued(before, other, resumable=True)
    assert str(found) == "lost: began anew, although there was a whole checkpoint"
    assert checks.check_continued(before, other, resumable=False) == []


def test_leftovers_are_found(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    assert checks.check_leftovers(folder) == []
    (folder.checkpoints / "update-000000001.pt.tmp").touch()
    (found,) = checks.check_leftovers(folder)
    assert found.sort == "files"
    assert "checkpoints/update-000000001.pt.tmp" in found.text


@pytest.fixture
def trained(tmp_path: Path, every_checkpoint: None) -> RunFolder:
    job = {
        "algorithm": "sgd",
        "epochs": 2,
        "batch_size": 20,
        "lr": 0.1,
        "model": {"name": "mlp", "hidden": [4]},
        "data": {"name": "synthetic", "num_train": 40, "num_test": 20, "shape": [3]},
        "checkpoint": {"every": 1},
    }
    return RunFolder(train(job, run_dir=tmp_path / "trained").path)


def test_damaged_files_are_found(trained: RunFolder) -> None:
    newest = checks.whole_checkpoint(trained)
    assert newest is not None
    assert checks.check_files(trained) == []
    for path in (newest, trained.weights_pt):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    found = checks.check_files(trained)
    assert sorts(found) == ["files", "files"]
    assert newest.name in found[0].text
    assert "weights.pt" in found[1].text
    assert checks.whole_checkpoint(trained) != newest


# --- verdicts -------------------------------------------------------------------------------


def struck(kind: str, **changes: Any) -> Struck:
    signum = signal.SIGTERM if kind.startswith("stop") else signal.SIGKILL
    rank = {"worker": 2, "server": 0}.get(kind.partition("-")[2])
    fault = Fault(kind, MIDDLE, rank, signum=signum)
    victims = (Process(1, 1, rank, ("x",)),)
    values = {"at_s": 0.0, "heard": 0, "pushes": 4, "ending": False, "victims": victims}
    return Struck(fault, **{**values, **changes})


def judged(tmp_path: Path, kind: str, *, seconds: float | None = None, **changes: Any) -> Verdict:
    hit = struck(kind, named_s=seconds)
    plan = Plan(0, kind, (hit.fault,), fault_tolerant=False)
    verdict = Verdict(plan, "mpi-dcasgd chaos --only 0")
    values = {"status": 137, "told": None, "seconds": 9.0, "struck": [hit]}
    judge_start(verdict, Start(**{**values, **changes}), RunFolder(tmp_path), 3.0, 8)
    return verdict


@pytest.mark.parametrize(
    ("kind", "seconds", "changes", "sort"),
    [
        ("kill-worker", 0.5, {}, ""),
        ("kill-worker", None, {}, "unnamed"),
        ("kill-worker", 2.5, {}, "unnamed"),
        ("hang-worker", 4.5, {}, ""),
        ("hang-worker", 5.5, {}, "unnamed"),
        ("hang-server", 31.5, {}, ""),
        ("hang-server", 32.5, {}, "unnamed"),
        ("kill-worker", 0.5, {"status": None}, "hang"),
        ("kill-worker", 0.5, {"left": ["rank 3, process 7"]}, "left"),
        ("kill-worker", 0.5, {"files": ["/dev/shm/sm_segment"]}, "files"),
        ("kill-worker", 0.5, {"status": 0}, "status"),
        ("kill-worker", 0.5, {"status": 0, "told": 0}, ""),
        ("kill-worker", 0.5, {"status": 1, "told": 0}, "status"),
        ("kill-worker", 0.5, {"status": 1, "told": 143}, "status"),
        ("stop-launcher", None, {"status": 143}, "status"),
        ("stop-launcher", None, {"status": 143, "told": 143}, "status"),  # has no checkpoint
        ("stop-launcher", None, {"status": 0, "told": 0}, ""),
        ("kill-mpirun", 0.1, {"status": 137, "told": 0}, ""),
        ("pause-worker", None, {"status": 0, "told": 0}, ""),
    ],
)
def test_what_must_not_be_is_a_failure(
    tmp_path: Path, kind: str, seconds: float | None, changes: dict[str, Any], sort: str
) -> None:
    found = judged(tmp_path, kind, seconds=seconds, **changes)
    assert set(sorts(found.failures)) == ({sort} if sort else set()), found


def test_a_fault_need_not_be_named_where_another_struck_at_once(tmp_path: Path) -> None:
    def failures(later_s: float) -> list[str]:
        two = [struck("kill-worker"), struck("stop-launcher", at_s=later_s)]
        return sorts(judged(tmp_path, "two-faults", status=1, told=1, struck=two).failures)

    assert failures(1.0) == []
    assert failures(3.0) == ["unnamed"]


def test_a_rank_is_named_by_its_number_or_by_its_worker() -> None:
    import re

    for text in (
        "worker 1 (rank 2 on vm) died; its tickets [7] are requeued",
        "prterun noticed that process rank 2 with PID 411 on node vm exited on\nsignal 9 (Killed).",
    ):
        assert re.search(struck("kill-worker").pattern, text, re.DOTALL)
    others = "worker 2 (rank 3 on vm) died; rank 22 died"
    assert not re.search(struck("kill-worker").pattern, others, re.DOTALL)
    assert struck("kill-worker", ending=True).pattern == ""


def test_the_table_has_a_line_for_each_kind(tmp_path: Path) -> None:
    good = judged(tmp_path, "kill-worker", seconds=0.5)
    bad = judged(tmp_path, "hang-worker", status=None)
    bad.failures.append(checks.Failure("lost", "never applied"))
    lines = table([good, bad]).splitlines()
    heads = lines[0].split()
    assert [line.split()[0] for line in lines[1:4]] == ["kill-worker", "hang-worker", "all"]
    every = dict(zip(heads[4:10], lines[3].split()[3:9], strict=False))
    assert lines[3].split()[1] == "2"
    assert "1" in every.values()
    assert lines[1].rstrip().endswith("0.5, 0.5")
    assert json.loads(json.dumps(bad.as_plain()))["failures"][0]["sort"] == "hang"


# --- processes ------------------------------------------------------------------------------

RANK = {"OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "2"}


@pytest.fixture
def ours() -> Iterator[Processes]:
    found = Processes()
    yield found
    found.kill()


def sleeping(env: dict[str, str]) -> subprocess.Popen[bytes]:
    """A process that is there with its own environment, and waits."""
    command = "import sys; print(flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", command],
        env={**os.environ, **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_only_processes_with_the_mark_are_found_and_hit(ours: Processes) -> None:
    mine = sleeping({**ours.environment, **RANK})
    other = sleeping({**Processes().environment, **RANK})
    with mine, other:
        assert [one.pid for one in ours.alive()] == [mine.pid]
        assert ours.ranks()[2].pid == mine.pid
        stranger = Process(other.pid, 1, 2, ())
        assert not ours.send(stranger, signal.SIGKILL)
        assert not ours.limit_files(stranger, 10)
        ours.kill()
        assert mine.wait() == -signal.SIGKILL
        assert other.poll() is None
        other.kill()
    assert ours.alive() == []


def test_shared_memory_of_the_processes_is_found(ours: Processes) -> None:
    code = (
        "import mmap, os, sys\n"
        "file = open(f'/dev/shm/chaos-test-{os.getpid()}', 'wb+')\n"
        "file.truncate(4096)\n"
        "held = mmap.mmap(file.fileno(), 4096)\n"
        "print(file.name, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, **ours.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        path = Path(process.stdout.readline().strip())
        try:
            assert ours.shared_memory() == {path}
            ours.kill()
        finally:
            path.unlink()


def start(tmp_path: Path, code: str, faults: list[Fault], **bounds: float) -> Start:
    """A start of a program that stands for a run."""
    seconds = {"start_s": 60.0, "end_s": 60.0, "patience_s": 1.0, **bounds}
    temporary = tmp_path / "t"
    temporary.mkdir(exist_ok=True)
    return run_start(
        [sys.executable, "-c", code],
        RunFolder(tmp_path / "run"),
        faults,
        Bounds(**seconds),
        total=8,
        output=tmp_path / "output.txt",
        temporary=temporary,
        environment=RANK,
    )


def test_a_start_that_does_not_end_is_killed_and_told(tmp_path: Path) -> None:
    found = start(tmp_path, "import time; time.sleep(600)", [], start_s=0.2)
    assert found.hung
    assert found.status is None
    assert found.told is None


def test_a_process_that_outlives_its_launcher_is_told_and_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mpi_dcasgd.tools.chaos.start.AFTER_S", 0.1)
    code = "import subprocess; subprocess.Popen(['sleep', '600']); print('done')"
    found = start(tmp_path, code, [])
    assert found.status == 0
    assert found.output == "done\n"
    assert len(found.left) == 1
    assert "sleep 600" in found.left[0]


def test_a_fault_strikes_at_its_moment_and_its_name_is_heard(tmp_path: Path) -> None:
    code = "import signal; print('ready', flush=True); signal.pause()"
    fault = Fault("kill-worker", Moment("start", "process"), 2)
    faults = [fault]
    found = start(tmp_path, code, faults)
    assert faults == []
    assert found.status == 128 + signal.SIGKILL
    assert [one.fault for one in found.struck] == [fault]
    assert [one.rank for one in found.struck[0].victims] == [2]
    assert found.struck[0].named_s is None


def test_a_moment_is_seen_in_what_the_start_has_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    trace_of(folder.trace_bin, list(range(8)))
    folder.write_summary({"status": "interrupted"})
    watch = Watch(folder, Processes(), tmp_path / "output.txt", 8)
    half = Fault("kill-server", MIDDLE, 0)
    ended = Fault("kill-server", Moment("end", "summary"), 0)
    assert watch.pushes() == 0
    assert not watch.ending
    writer = TraceWriter(folder.trace_bin, META, flush_records=1)
    os.utime(folder.trace_bin, ns=(1, 1))
    assert not watch.due(half)
    for ticket in range(4):
        writer.add(0, ticket, 0, Action.APPLIED, 0.0, 0)
    os.utime(folder.trace_bin, ns=(2, 2))
    assert watch.due(half)
    assert watch.pushes() == 4
    assert not watch.due(ended)
    folder.write_summary({"status": "completed"})
    os.utime(folder.summary_json, ns=(3, 3))
    assert watch.due(ended)
    assert watch.ending
    writer.close()


# --- a run that is lost ---------------------------------------------------------------------


@pytest.mark.mpi
def test_a_run_that_never_completes_is_lost_and_its_folder_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stand_in(*arguments: Any, output: Path, **others: Any) -> Start:
        output.write_text("no\n")
        return Start(status=1, told=None, seconds=0.1, output="no\n")

    monkeypatch.setattr("mpi_dcasgd.runs.chaos.run_start", stand_in)
    told: list[Verdict] = []
    (found,) = chaos_runs(prepare(runs=9), only=[7], keep=tmp_path / "kept", told=told.append)
    assert told == [found]
    assert [str(failure) for failure in found.failures] == ["lost: not complete after 5 starts: no"]
    assert found.kept == tmp_path / "kept" / "run-7"
    assert "--only 7" in found.command
    assert "--seed 0" in found.command


@pytest.mark.mpi
def test_a_replay_that_differs_is_found_and_the_command_that_repeats_the_run_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stand_in(argv: Any, folder: RunFolder, *arguments: Any, **others: Any) -> Start:
        folder.path.mkdir()
        trace_of(folder.trace_bin, list(range(8)))
        folder.write_summary({"status": "completed", "samples": 80, "updates": 8})
        return Start(status=0, told=0, seconds=0.1)

    def replayed(identical: bool) -> None:
        found = Replay(
            "identical" if identical else "different",
            *(tmp_path, 8, 8, 0.1, None, None, "a" * 64, "b" * 64),
        )
        monkeypatch.setattr("mpi_dcasgd.runs.chaos.replay", lambda path: found)

    monkeypatch.setattr("mpi_dcasgd.runs.chaos.run_start", stand_in)
    replayed(True)
    words = ["chaos", "--runs", "1", "--kinds", "kill", "--keep", str(tmp_path / "kept"), "seed=3"]
    assert main(words) == 0, capsys.readouterr()
    assert "completed at once" in capsys.readouterr().out
    assert main(words) == 2, "the folder holds a run already"
    capsys.readouterr()
    replayed(False)
    assert main([*words[:6], str(tmp_path / "again"), "seed=3"]) == 1
    shown = capsys.readouterr().out
    assert "replay: DIFFERENT: every gradient is the same, but the final weights are aaaa" in shown
    assert "\n  again: mpi-dcasgd chaos seed=3 --kinds kill -n 4 --seed 0 --only 0\n" in shown
    assert f"\n  kept: {tmp_path / 'again' / 'run-0'}\n" in shown

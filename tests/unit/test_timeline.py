"""Timelines: what each rank did when, for Perfetto and as pictures, of runs of known times."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_runs import synthetic_run

from mpi_dcasgd import simulate
from mpi_dcasgd.cli import main
from mpi_dcasgd.drivers.account import Account
from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.steps import StepWriter, read_steps
from mpi_dcasgd.record.trace import Trace
from mpi_dcasgd.reporting.timeline import SERVER, Timeline, shares, timeline_of
from mpi_dcasgd.reporting.timeline_json import trace_events
from mpi_dcasgd.runs.timeline import timeline

JOB = {
    "algorithm": "asgd",
    "epochs": 1,
    "batch_size": 10,
    "lr": 0.1,
    "data": {"name": "synthetic", "num_train": 200, "num_test": 20, "shape": [4]},
    "model": {"name": "mlp", "hidden": (4,)},
}
REQUIRED = {
    "M": {"name", "args"},
    "X": {"name", "cat", "ts", "dur"},
    "s": {"name", "cat", "ts", "id"},
    "f": {"name", "cat", "ts", "id", "bp"},
    "C": {"name", "ts", "args"},
}
"""Keys of each phase in Chrome's trace event format, beside ph, pid and tid."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two workers of 1 s and 3 s a step; messages of 20 ms, service of 50 ms."""
    return simulate(
        JOB,
        workers=2,
        cluster={
            "delays": {"model": "constant"},
            "slow": {1: 3},
            "network": {"latency_s": 0.02},
            "server": {"service_s": 0.05},
        },
        run_dir=tmp_path_factory.mktemp("timeline") / "run",
    ).path


def durations(found: Timeline, worker: int, kind: str) -> list[float]:
    return [s.end_s - s.start_s for s in found.slices if (s.worker, s.kind) == (worker, kind)]


def events_of(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["traceEvents"]


def test_what_the_cluster_says_is_what_the_timeline_shows(run: Path, tmp_path: Path) -> None:
    found = timeline(run, tmp_path / "t.json").timeline
    assert found.detailed
    for worker, step_s in ((0, 1.0), (1, 3.0)):
        assert durations(found, worker, "compute") == pytest.approx(
            [step_s] * len(durations(found, worker, "compute")), abs=1e-4
        )
        assert np.median(durations(found, worker, "push")) == pytest.approx(0.02, abs=2e-3)
        assert np.median(durations(found, worker, "reply")) == pytest.approx(0.02, abs=2e-3)
    assert durations(found, SERVER, "apply") == pytest.approx([0.05] * len(found.trace), abs=1e-4)


def test_each_worker_is_summed_up(run: Path, tmp_path: Path) -> None:
    found = timeline(run, tmp_path / "t.json").timeline
    fast, slow = shares(found)
    trace = found.trace
    assert (fast.worker, slow.worker) == (0, 1)
    assert fast.pushes + slow.pushes == len(trace)
    assert slow.staleness_mean == trace.staleness[trace.worker == 1].mean()
    assert (slow.staleness_max, slow.step_s) == (3, pytest.approx(3.0, abs=1e-3))
    assert slow.waited
    assert fast.waited
    assert 0 < slow.waited < fast.waited < 0.2


def imported(events: list[dict[str, Any]]) -> tuple[int, list[tuple[str, str]]]:
    """Read events as Perfetto's importer does, to the nanosecond; slices and arrows that are left.

    After json_trace_parser.cc, slice_tracker.cc and flow_tracker.cc of version 59: events of equal
    time keep their order, slices of a thread must be nested or apart, and both ends of an arrow
    belong to the innermost slice that is open on their thread at that moment.
    """
    stacks: dict[int, list[tuple[int, int, str]]] = defaultdict(list)
    begun: dict[int, str] = {}
    slices, arrows = 0, []
    for event in sorted(events, key=lambda event: round(1000 * event["ts"])):
        time, stack = round(1000 * event["ts"]), stacks[event["tid"]]
        if event["ph"] == "X":
            length = round(1000 * event["dur"])
            while stack and (
                stack[-1][1] < time
                or (stack[-1][1] == time and (stack[-1][0] < time or length > 0))
            ):
                stack.pop()
            assert not (stack and time < stack[-1][1] < time + length), (stack[-1], event)
            stack.append((time, time + length, event["name"]))
            slices += 1
        elif event["ph"] == "s":
            begin, end, begun[event["id"]] = stack[-1]
            assert time < end or begin == end  # a slice has ended at its end
        elif event["ph"] == "f":
            arrows.append((begun[event["id"]], stack[-1][2]))
    return slices, arrows


def test_every_event_is_one_that_perfetto_takes(run: Path, tmp_path: Path) -> None:
    events = events_of(timeline(run, tmp_path / "t.json").path)
    for event in events:
        assert {"ph", "pid", "tid"} <= event.keys()
        assert REQUIRED[event["ph"]] <= event.keys(), event
        assert event["ts"] >= 0
        assert event["tid"] > 0  # which is the idle task's
    names = {e["args"]["name"]: e["tid"] for e in events if e["name"] == "thread_name"}
    assert names == {
        "server": 1,
        "worker 0": 2,
        "worker 0: messages": 3,
        "worker 1": 4,
        "worker 1: messages": 5,
    }
    pushes = len(RunFolder(run).trace())
    slices, arrows = imported(events)
    assert slices == sum(event["ph"] == "X" for event in events)
    assert arrows == [("compute", "apply")] * pushes
    assert sum(event["ph"] == "C" for event in events) == pushes


@pytest.mark.parametrize("seed", range(5))
def test_times_that_contradict_each_other_give_slices_that_do_not(seed: int) -> None:
    """As on a machine with far more to do than it has cores, whose clocks are read late."""
    rng = np.random.default_rng(seed)
    pushes, workers = 120, 3
    ends_s = np.cumsum(rng.exponential(0.01, pushes))
    steps = rng.exponential([[0.02, 1e-3, 0.01, 1e-3]], (pushes, 4))
    steps[rng.random((pushes, 4)) < 0.2] = 0
    whole = np.zeros(pushes, np.int64)
    trace = Trace(
        {},
        worker=rng.integers(0, workers, pushes),
        ticket=np.arange(pushes),
        version=np.arange(pushes),
        staleness=whole,
        action=whole.astype(np.uint8),
        time_us=np.round(1e6 * ends_s).astype(np.int64),
        mark=whole,
        truncated=False,
        status="completed",
    )
    # An update takes no longer than the server has had for it.
    steps[:, 3] = np.minimum(steps[:, 3], np.diff(ends_s, prepend=0.0))
    events = trace_events(timeline_of("run", trace, steps.astype(np.float32)))["traceEvents"]
    slices, arrows = imported(events)
    assert slices > 3 * pushes
    assert arrows == [("compute", "apply")] * pushes


def test_two_pushes_within_a_microsecond_leave_in_their_order() -> None:
    whole = np.zeros(2, np.int64)
    columns = [whole, np.arange(2), np.arange(2), whole, whole.astype(np.uint8)]
    trace = Trace({}, *columns, np.array([1000, 1000]), whole, False, "completed")
    steps = np.array([[0, 0, 5e-4, 0], [0, 0, 0, 4e-7]], np.float32)  # the trace rounds 0.4 us away
    events = trace_events(timeline_of("run", trace, steps))["traceEvents"]
    assert imported(events)[1] == [("compute", "apply")] * 2


def test_only_what_happened_in_the_span_is_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = timeline(run, tmp_path / "t.json").timeline
    out = tmp_path / "part.json.gz"
    assert main(["timeline", str(run), "-o", str(out), "--from", "4", "--to", "6"]) == 0
    assert "of 2 workers, from 4 to 6 s" in capsys.readouterr().out
    events = json.loads(gzip.decompress(out.read_bytes()))["traceEvents"]
    slices = [event for event in events if event["ph"] == "X"]
    assert 0 < len(slices) < len(whole.slices)
    assert all(e["ts"] + e["dur"] >= 4e6 and e["ts"] <= 6e6 for e in slices)


def test_a_picture_has_all_ranks(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    drawn = timeline(run, tmp_path / "t.svg")
    text = drawn.path.read_text()
    assert text.startswith("<?xml")
    assert "<!-- server -->" in text
    assert "<!-- worker 1 -->" in text
    begin, end = drawn.timeline.span
    assert 0 < begin < end < RunFolder(run).trace().time_us[-1] / 1e6


def test_a_run_without_a_server_lacks_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    simulate({**JOB, "algorithm": "ssgd"}, workers=2, run_dir=tmp_path / "run")
    assert main(["timeline", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().out
    assert "a run without a server records the end of each step, and nothing within it" in told
    assert "missing" not in told


def test_a_run_without_step_times_has_a_timeline_of_whole_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = synthetic_run(tmp_path)
    found = timeline(folder).timeline
    assert not found.detailed
    assert {one.kind for one in found.slices} == {"step"}
    assert len(found.slices) == len(found.trace)
    assert main(["timeline", str(folder)]) == 0
    assert "steps.bin is missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-o", "t.txt"], "-o t.txt: its ending says what is written; allowed: .json"),
        (["--from", "3", "--to", "1"], "--from 3 --to 1: give 0 <= from < to"),
        (["--from", "1e6"], "nothing happened between 1e+06 and inf s; the trace has"),
    ],
)
def test_a_mistake_is_told(
    run: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["timeline", str(run), *words]) != 0
    assert told in capsys.readouterr().err


def test_a_run_without_a_trace_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(synthetic_run(tmp_path, "ssgd"))
    folder.trace_bin.unlink()
    with pytest.raises(RunFolderError, match=r"has no trace.bin; a timeline is made of async"):
        timeline(folder.path)


def steps(path: Path, count: int, saved: Any = None, *, first: int = 0) -> dict[str, Any]:
    accounts = [Account(worker=0)]
    writer = StepWriter(path, accounts, lambda: 0.5 * accounts[0].updates, saved)
    for number in range(first, first + count):
        accounts[0].add(8, compute_s=1.0 + number, wait_s=0.25)
        writer.add(0)
    state = writer.state_dict()
    writer.close()
    return state


def test_a_resume_goes_on_where_the_checkpoint_was(tmp_path: Path) -> None:
    path = tmp_path / "steps.bin"
    saved = steps(path, 3)
    lost = path.read_bytes()
    with path.open("ab") as file:
        file.write(b"\1" * 21)  # pushes after the checkpoint, the last cut short
    steps(path, 2, saved, first=3)
    found = read_steps(path, 6)
    assert path.read_bytes().startswith(lost)
    assert found is not None
    assert found[:5].tolist() == [[0.25, 0.0, 1.0 + n, 0.5] for n in range(5)]
    assert np.isnan(found[5]).all()


def test_a_resume_without_the_file_leaves_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "steps.bin"
    saved = steps(path, 3)
    path.unlink()
    steps(path, 1, saved, first=3)
    found = read_steps(path, 4)
    assert found is not None
    assert np.isnan(found[:3]).all()
    assert found[3].tolist() == [0.25, 0.0, 4.0, 0.5]


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "steps.bin").write_bytes(b"something else")
    with pytest.raises(RunFolderError, match=r"steps.bin: not a file of step times"):
        read_steps(tmp_path / "steps.bin", 1)

"""Files of a run whose file system hangs are named, and a run that needs them ends."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mpi_dcasgd.record import hangs
from mpi_dcasgd.record.appending import AppendedFile
from mpi_dcasgd.record.atomic import write_atomic
from mpi_dcasgd.record.checkpoints import CheckpointFiles
from mpi_dcasgd.record.hangs import HangWatch, alive, looked_after, working_on
from mpi_dcasgd.record.logs import close_logger, rank_logger
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.sinks import MetricSink, Sinks
from mpi_dcasgd.record.steps import StepWriter
from mpi_dcasgd.record.trace_writer import TraceWriter
from mpi_dcasgd.runs import hung_files

Found = list[tuple[str, bool]]


class Stepping:
    """A watch that looks when it is told to, by a clock of its own."""

    def __init__(self, patience_s: float = 3.0) -> None:
        self.now = 0.0
        self.found: Found = []
        self.watch = HangWatch(
            patience_s, lambda *told: self.found.append(told), clock=lambda: self.now
        )
        self.watch.close()  # its thread: this one looks

    def pass_s(self, seconds: float, step_s: float = 0.5) -> Found:
        for _ in range(int(seconds / step_s)):
            self.now += step_s
            self.watch.look()
        return self.found


@pytest.fixture
def stepping() -> Iterator[Stepping]:
    yield Stepping()
    assert threading.get_ident() not in hangs._at_work


def test_work_that_takes_too_long_is_named_once(stepping: Stepping) -> None:
    with working_on("weights.pt"):
        assert stepping.pass_s(3.0) == []
        ((text, ends),) = stepping.pass_s(3.0)
        assert text == (
            "weights.pt hangs: nothing of it has been read or written for 3.0 s "
            "(checkpoint.patience_s); look at the file system"
        )
        assert ends
        assert len(stepping.pass_s(9.0)) == 1
    with working_on("weights.pt"):
        assert len(stepping.pass_s(9.0)) == 2


def test_each_piece_of_work_begins_the_patience_anew(stepping: Stepping) -> None:
    with working_on("best.pt", ends=False):
        for _ in range(4):
            assert stepping.pass_s(2.5) == []
            alive()
        with working_on("best.pt"):
            assert stepping.pass_s(2.5) == []
        assert stepping.pass_s(3.0) == []
        ((_, ends),) = stepping.pass_s(2.0)
        assert not ends


def test_work_within_what_can_be_done_without_can_be_done_without(stepping: Stepping) -> None:
    with working_on("best.pt", ends=False), working_on("best.pt.tmp"):
        ((text, ends),) = stepping.pass_s(9.0)
    assert text.startswith("best.pt.tmp hangs")
    assert not ends


def test_a_process_that_was_suspended_blames_no_file(stepping: Stepping) -> None:
    with working_on("weights.pt"):
        assert stepping.pass_s(1000.0, step_s=1000.0) == []
        assert stepping.pass_s(1000.0, step_s=500.0) == []


def test_nobody_looks_at_what_others_look_after(stepping: Stepping) -> None:
    with looked_after(), working_on("update-000000001.pt"):
        alive()
        assert stepping.pass_s(9.0) == []


def test_a_watch_that_is_closed_holds_on_to_nothing() -> None:
    class Run:
        def found(self, text: str, ends: bool) -> None:
            pass

    run = Run()
    gone = weakref.ref(run)
    watch = HangWatch(60.0, run.found)
    watch.close()
    del run, watch
    gc.collect()
    assert gone() is None


# --- all that a run writes is looked at -----------------------------------------------------


def steps(folder: RunFolder) -> None:
    StepWriter(folder.steps_bin, [], lambda: 0.0).close()


def trace(folder: RunFolder) -> None:
    TraceWriter(folder.trace_bin, {}).end("completed")


def log(folder: RunFolder) -> None:
    logger = rank_logger(folder, 0)
    logger.info("here")
    close_logger(logger)


def lines(folder: RunFolder) -> None:
    file = AppendedFile(folder.metrics_jsonl)
    file.append("x")
    file.close()


class Own(MetricSink):
    def write(self, event: str, time_s: float, values: Any) -> None:
        pass


def own_sink(folder: RunFolder) -> None:
    sinks = Sinks(folder, ["csv", f"{__name__}:Own"])
    sinks.write("start", 0.0)
    sinks.close()


@pytest.mark.parametrize(
    ("act", "names"),
    [
        (lambda folder: write_atomic(folder.summary_json, b"{}"), {"summary.json"}),
        (lines, {"metrics.jsonl"}),
        (trace, {"trace.bin"}),
        (steps, {"steps.bin"}),
        (log, {"rank-0.log"}),
        (own_sink, {"metrics.jsonl", "metrics.csv", f"metric sink {__name__}:Own"}),
    ],
)
def test_all_that_a_run_writes_is_looked_at(
    act: Callable[[RunFolder], None],
    names: set[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: set[str] = set()
    genuine = hangs._Work

    def work(path: Path | str, ends: bool) -> Any:
        looked.add(Path(path).name if isinstance(path, Path) or "/" in path else path)
        return genuine(path, ends)

    monkeypatch.setattr(hangs, "_Work", work)
    act(RunFolder(tmp_path))
    assert names <= looked


def test_a_checkpoint_has_a_complaint_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepping, stuck, over = Stepping(), threading.Event(), threading.Event()

    def hang(descriptor: int) -> None:
        stuck.set()
        over.wait(60)

    monkeypatch.setattr(os, "fsync", hang)
    files = CheckpointFiles(tmp_path, keep=2)
    files.keep(1, {})
    assert stuck.wait(60)
    assert stepping.pass_s(9.0) == []
    over.set()
    assert files.finish()


# --- what becomes of the run ----------------------------------------------------------------


class Ended(BaseException):
    pass


def found_in(
    folder: RunFolder | None, end_world: Callable[[], None] | None
) -> Callable[[str, bool], None]:
    watch = hung_files.watch_files(60.0, lambda: folder, end_world)
    watch.close()
    return watch._found


def test_a_file_that_a_run_needs_ends_its_world_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*status: int) -> None:
        raise Ended

    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(Ended):
        found_in(RunFolder(tmp_path), end)("weights.pt hangs", True)
    assert json.loads((tmp_path / "summary.json").read_text()) == {
        "status": "failed",
        "reason": "RunFolderError: weights.pt hangs",
    }
    told = "weights.pt hangs; the run ends; to resume, rerun the same command with --run-dir"
    assert capsys.readouterr().err.startswith(told)
    # A program of somebody else's is not ended, nor a run for what it can do without.
    found_in(RunFolder(tmp_path), None)("weights.pt hangs", True)
    found_in(RunFolder(tmp_path), end)("best.pt hangs", False)
    assert capsys.readouterr().err == "weights.pt hangs\nbest.pt hangs\n"
    # One that is there for the run is; and what comes after it in this process is not.
    with hung_files.own_process():
        owned = found_in(RunFolder(tmp_path), None)
    with pytest.raises(Ended):
        owned("weights.pt hangs", True)
    found_in(RunFolder(tmp_path), None)("weights.pt hangs", True)


HUNG = """
import os, sys
from mpi_dcasgd.cli import main
from mpi_dcasgd.runs import run_end
genuine = run_end.save_weights
def save(path, *others):
    os.mkfifo(f"{path}.tmp")  # which nobody reads, so that to open it waits for ever
    genuine(path, *others)
run_end.save_weights = save
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_run_whose_weights_hang_ends(tmp_path: Path) -> None:
    words = ["algorithm=sgd", "epochs=1", "model.hidden=[4]", "checkpoint.patience_s=1"]
    run = str(tmp_path / "run")
    argv = [sys.executable, "-c", HUNG, "train", "jobs/digits.yaml", *words, "--run-dir", run]
    finished = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 1, finished
    assert f"{run}/weights.pt hangs: nothing of it has been read or written for" in finished.stderr
    assert "Traceback" not in finished.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert "weights.pt hangs" in summary["reason"]

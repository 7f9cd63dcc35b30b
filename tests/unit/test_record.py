"""The run folder, and what the recorder writes into it."""

from __future__ import annotations

import io
import json
import math
import sys
import types
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from mpi_dcasgd.drivers.account import Account
from mpi_dcasgd.drivers.observer import Evaluation, Fanout, NullObserver, Observer
from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.atomic import atomic_file, write_atomic
from mpi_dcasgd.record.description import RunDescription
from mpi_dcasgd.record.environment import (
    RankPlace,
    describe_environment,
    git_state,
    huge_pages,
    package_versions,
)
from mpi_dcasgd.record.logs import close_logger, rank_logger
from mpi_dcasgd.record.metrics import JsonLines, finite, read_metrics
from mpi_dcasgd.record.recorder import Recorder
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.settings import RecordSettings
from mpi_dcasgd.record.sinks import MetricSink, Sinks
from mpi_dcasgd.record.trace import read_trace
from mpi_dcasgd.server.records import Action, UpdateRecord

NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


def make(path: Path | None, root: Path, **options: Any) -> RunFolder:
    return RunFolder.create(
        path, name="digits", algorithm="asgd", now=NOW, root=root / "runs", **options
    )


def describe(**changes: Any) -> RunDescription:
    values: dict[str, Any] = {
        "name": "digits",
        "algorithm": "asgd",
        "driver": "mpi",
        "num_workers": 2,
        "world_size": 3,
        "epochs": 2,
        "seed": 5,
        "model": "mlp",
        "data": "digits",
        "batch_size": 10,
        "num_samples": 40,
    }
    return RunDescription(**values | changes)


def push(number: int, **changes: Any) -> UpdateRecord:
    values: dict[str, Any] = {
        "worker": number % 2,
        "ticket": number,
        "version": number,
        "staleness": min(number, 1),
        "action": Action.APPLIED,
        "samples": 10,
        "loss": 1.0 / (number + 1),
        "grad_norm": 0.5,
        "lr": 0.1,
        "total_samples": 10 * (number + 1),
        "epoch": (number + 1) / 4,
    }
    return UpdateRecord(**values | changes)


def evaluate(epoch: int, **changes: Any) -> Evaluation:
    values: dict[str, Any] = {
        "time_s": float(epoch),
        "eval_s": 0.25,
        "version": 4 * epoch,
        "samples": 40 * epoch,
        "epoch": epoch,
        "test": {"error": 0.1 / epoch, "loss": 0.5},
        "train_loss": 0.4,
        "lr": 0.1,
    }
    return Evaluation(**values | changes)


def record(folder: RunFolder, **settings: Any) -> Recorder:
    settings = {"log_every_s": 0.5, "progress": "lines"} | settings
    return Recorder(
        folder, describe(), RecordSettings(**settings), stream=io.StringIO(), environ={}
    )


# --- the folder -----------------------------------------------------------------------------


def test_a_folder_is_named_after_the_run_and_made_unique(tmp_path: Path) -> None:
    names = [make(None, tmp_path).path.name for _ in range(3)]
    first = "digits-asgd-20240506-070809"
    assert names == [first, f"{first}-2", f"{first}-3"]


def test_a_job_name_cannot_leave_the_runs_folder(tmp_path: Path) -> None:
    folder = RunFolder.create(None, name="../x y", algorithm="a", now=NOW, root=tmp_path)
    assert folder.path.parent == tmp_path
    assert folder.path.name == ".._x_y-a-20240506-070809"


def test_a_finished_run_is_not_overwritten_unless_told_to(tmp_path: Path) -> None:
    folder = make(tmp_path / "mine", tmp_path)
    folder.write_summary({"status": "completed"})
    assert folder.is_finished()
    with pytest.raises(RunFolderError, match=r"mine: already holds a finished run .*--overwrite"):
        make(folder.path, tmp_path)
    assert folder.summary_json.exists()
    again = make(folder.path, tmp_path, overwrite=True)
    assert not again.summary_json.exists()


def test_what_an_unfinished_run_left_is_replaced_except_checkpoints(tmp_path: Path) -> None:
    folder = make(tmp_path / "mine", tmp_path)
    folder.write_summary({"status": "failed"})
    folder.metrics_jsonl.write_text('{"event":"start"}\n')
    folder.logs.mkdir()
    folder.log(1).write_text("x")
    folder.checkpoints.mkdir()
    (folder.checkpoints / "last.pt").write_text("x")
    (folder.path / "notes.txt").write_text("my own")
    make(folder.path, tmp_path)
    left = sorted(p.relative_to(folder.path).as_posix() for p in folder.path.rglob("*"))
    assert left == ["checkpoints", "checkpoints/last.pt", "notes.txt"]


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunFolderError, match=r"file/run: cannot be made .*Not a directory"):
        make(tmp_path / "file" / "run", tmp_path)


def test_open_refuses_what_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no such run folder"):
        RunFolder.open(tmp_path / "none")
    with pytest.raises(RunFolderError, match=r"not a run folder: it has no job.yaml"):
        RunFolder.open(tmp_path)
    folder = RunFolder(tmp_path)
    folder.job_yaml.write_text(
        yaml.safe_dump({"name": "digits", "lr": 0.1, "model": {"name": "mlp"}})
    )
    assert RunFolder.open(tmp_path).job()["model"] == {"name": "mlp"}


def test_an_atomic_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    write_atomic(path, b"old")
    with pytest.raises(TypeError), atomic_file(path) as file:
        file.write([file.write(b"half of the ne")])  # type: ignore[list-item]
    assert path.read_bytes() == b"old"
    with atomic_file(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["weights.pt"]
    with pytest.raises(
        RunFolderError, match=r"weights.pt/x: cannot be written: Not a dir|File exists"
    ):
        write_atomic(path / "x", b"")


# --- metrics --------------------------------------------------------------------------------


def test_metrics_are_json_lines_without_nan(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    writer = JsonLines(RunFolder(tmp_path))
    writer.write("progress", 1.5, {"loss": math.nan, "nested": {"a": [math.inf, 1.0]}})
    # On the disk before the file is closed: a killed run keeps its lines.
    line = {"event": "progress", "time_s": 1.5, "loss": None, "nested": {"a": [None, 1.0]}}
    assert read_metrics(path) == [line]
    writer.close()


def test_numbers_go_into_a_table_if_asked_for(tmp_path: Path) -> None:
    folder = make(None, tmp_path)
    whole_run(folder, sinks=("csv",))
    lines = folder.metrics_csv.read_text().splitlines()
    assert lines[0] == "event,time_s,name,value"
    rows = [line.split(",") for line in lines[1:]]
    assert ["evaluation", "2.000000", "test_error", "0.05"] in rows
    assert {row[0] for row in rows} == {"start", "progress", "evaluation", "worker"}
    assert all(float(value) == float(value) for *_, value in rows)
    assert not any(name in ("name", "host", "status") for *_, name, _ in rows), "texts"
    progress = [e for e in read_metrics(folder.metrics_jsonl) if e["event"] == "progress"]
    losses = [float(value) for event, _, name, value in rows if (event, name) == LOSS]
    assert losses == [e["train_loss"] for e in progress]


LOSS = ("progress", "train_loss")


class Remembering(MetricSink):
    """Sink that the tests look into."""

    made: ClassVar[list[Remembering]] = []

    def __init__(self, folder: RunFolder, offset: Any = None) -> None:
        self.folder, self.began, self.events, self.closed = folder, offset, [], 0
        self.made.append(self)

    def write(self, event: str, time_s: float, values: Mapping[str, Any]) -> None:
        self.events.append((event, time_s, dict(values)))

    @property
    def offset(self) -> int:
        return len(self.events)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def remembering(monkeypatch: pytest.MonkeyPatch) -> list[Remembering]:
    monkeypatch.setitem(sys.modules, "own_sinks", types.SimpleNamespace(Remembering=Remembering))
    monkeypatch.setattr(Remembering, "made", [])
    return Remembering.made


OWN = "own_sinks:Remembering"


def test_a_sink_gets_what_the_lines_get(tmp_path: Path, remembering: list[Remembering]) -> None:
    folder = make(None, tmp_path)
    whole_run(folder, sinks=(OWN,))
    [sink] = remembering
    assert (sink.folder, sink.began, sink.closed) == (folder, None, 1)
    lines = [
        {"event": event, "time_s": round(time_s, 6), **values}
        for event, time_s, values in sink.events
    ]
    assert [finite(line) for line in lines] == read_metrics(folder.metrics_jsonl)


def test_sinks_go_on_where_the_checkpoint_was(
    tmp_path: Path, remembering: list[Remembering]
) -> None:
    folder = make(None, tmp_path)
    settings = RecordSettings(log_every_s=0.5, progress="off", sinks=("csv", OWN))
    recorder = Recorder(folder, describe(), settings, environ={})
    recorder.started(0.0)
    for number in range(4):
        recorder.update(push(number), 0.25 * (number + 1))
    saved = recorder.state_dict()
    before = folder.metrics_csv.read_text()
    for number in range(4, 8):
        recorder.update(push(number), 0.25 * (number + 1))
    recorder.close()
    after = folder.metrics_csv.read_text()
    assert len(after) > len(before)

    again = Recorder(folder, describe(), settings, environ={}, saved=saved)
    assert folder.metrics_csv.read_text() == before
    assert remembering[1].began == saved["sinks"][OWN] == 3
    for number in range(4, 8):
        again.update(push(number), 0.25 * (number + 1))
    again.close()
    assert folder.metrics_csv.read_text() == after

    # A version that knew no sinks has saved none; they begin where they are found.
    del saved["sinks"]
    Recorder(folder, describe(), settings, environ={}, saved=saved).close()
    assert remembering[2].began is None
    folder.metrics_csv.write_text("short")
    saved["sinks"] = {"csv": 10**6}
    with pytest.raises(RunFolderError, match=r"metrics.csv: has 5 bytes, but the checkpoint"):
        Recorder(folder, describe(), settings, environ={}, saved=saved)


def test_a_sink_that_fails_to_begin_leaves_no_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remembering: list[Remembering]
) -> None:
    def fail(self: Remembering, folder: RunFolder, offset: Any = None) -> None:
        raise RuntimeError("no tracker here")

    failing = type("Failing", (Remembering,), {"__init__": fail})
    monkeypatch.setattr(sys.modules["own_sinks"], "Failing", failing, raising=False)
    with pytest.raises(RuntimeError, match="no tracker here"):
        Sinks(make(None, tmp_path), [OWN, "own_sinks:Failing"])
    assert remembering[0].closed == 1


def test_a_last_line_that_was_cut_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"event": "start"}\n{"event": "pro')
    assert read_metrics(path) == [{"event": "start"}]
    path.write_text('{"event": "start"}\n{"ev\n{"event": "end"}\n')
    with pytest.raises(RunFolderError, match=r"metrics.jsonl: line 2 is not an event"):
        read_metrics(path)


# --- the recorder ---------------------------------------------------------------------------


def whole_run(folder: RunFolder, **settings: Any) -> Recorder:
    recorder = record(folder, **settings)
    observer: Observer = recorder  # the protocol holds
    observer.started(2.5)
    for number in range(8):
        observer.update(push(number), 0.25 * (number + 1))
        if number == 3:
            observer.evaluation(evaluate(1))
    observer.evaluation(evaluate(2))
    observer.worker(Account(worker=0, host="c1", device="cpu", updates=4, compute_s=1.5))
    observer.ended("completed", 2.0, weights_sha256="ab" * 32)
    return recorder


def test_the_summary_has_what_reports_need(tmp_path: Path) -> None:
    folder = make(None, tmp_path)
    whole_run(folder)
    summary = json.loads(folder.summary_json.read_text())
    assert summary == {
        "status": "completed",
        "reason": "",
        "name": "digits",
        "algorithm": "asgd",
        "driver": "mpi",
        "num_workers": 2,
        "world_size": 3,
        "epochs": 2,
        "seed": 5,
        "model": "mlp",
        "data": "digits",
        "batch_size": 10,
        "num_samples": 40,
        "updates": 8,
        "samples": 80,
        "dropped": 0,
        "nonfinite": 0,
        "test_error": 0.05,
        "test_loss": 0.5,
        "train_loss": 0.4,
        "best_test_error": 0.05,
        "best_epoch": 2,
        "not_numbers": [],
        "startup_s": 2.5,
        "wall_s": 2.0,
        "samples_per_s": 40.0,
        "staleness_mean": 7 / 8,
        "staleness_max": 1,
        "staleness_histogram": {"0": 1, "1": 7},
        "kernel": "blocks",
        "primary_metric": "error",
        "higher_is_better": False,
        "units": {"error": "%"},
        "restarts": 0,
        "weights_sha256": "ab" * 32,
    }


def test_metrics_tell_the_run_in_order(tmp_path: Path) -> None:
    folder = make(None, tmp_path)
    whole_run(folder)
    events = read_metrics(folder.metrics_jsonl)
    kinds = [event["event"] for event in events]
    assert kinds[0] == "start"
    assert events[0]["startup_s"] == 2.5
    assert kinds[-2:] == ["worker", "end"]
    progress = [event for event in events if event["event"] == "progress"]
    assert [event["time_s"] for event in progress] == [0.5, 1.0, 1.5, 2.0]
    assert [event["version"] for event in progress] == [2, 4, 6, 8]
    assert [event["samples_per_s"] for event in progress] == [40.0] * 4
    assert progress[0]["train_loss"] == pytest.approx((1 + 1 / 2) / 2)
    assert progress[1]["train_loss"] == pytest.approx((1 / 3 + 1 / 4) / 2)
    assert (progress[0]["staleness_mean"], progress[0]["staleness_max"]) == (0.5, 1)
    evaluations = [event for event in events if event["event"] == "evaluation"]
    assert [event["test_error"] for event in evaluations] == [0.1, 0.05]
    assert evaluations[1]["time_s"] == 2.0


def test_the_trace_holds_every_push(tmp_path: Path) -> None:
    folder = make(None, tmp_path)
    whole_run(folder)
    trace = read_trace(folder.trace_bin, strict=True)
    assert [(r.worker, r.ticket, r.version, r.staleness) for r in trace.records()] == [
        (n % 2, n, n, min(n, 1)) for n in range(8)
    ]
    assert trace.meta["algorithm"] == "asgd"
    assert trace.status == "completed"


def test_a_run_may_go_without_a_trace(tmp_path: Path) -> None:
    folder = make(None, tmp_path)
    whole_run(folder, trace=False)
    assert not folder.trace_bin.exists()


def test_refused_gradients_are_counted_and_nothing_else(tmp_path: Path) -> None:
    folder = make(None, tmp_path)
    recorder = record(folder)
    recorder.started(0.0)
    recorder.update(push(0), 0.1)
    refused = {"staleness": 50, "total_samples": 10, "lr": 0.0}
    recorder.update(push(1, action=Action.DROPPED, **refused), 0.2)
    recorder.update(push(2, action=Action.NONFINITE, loss=math.nan, **refused), 0.3)
    recorder.update(push(3, action=Action.HELD, staleness=2, total_samples=20, lr=0.0), 0.4)
    recorder.ended("failed", 1.0, reason="rank 2 on c7: out of memory")
    summary = json.loads(folder.summary_json.read_text())
    assert (summary["updates"], summary["samples"]) == (1, 20)
    assert (summary["dropped"], summary["nonfinite"]) == (1, 1)
    assert summary["staleness_histogram"] == {"0": 1, "2": 1}
    assert (summary["status"], summary["reason"]) == ("failed", "rank 2 on c7: out of memory")
    assert summary["test_error"] is None
    [progress] = [e for e in read_metrics(folder.metrics_jsonl) if e["event"] == "progress"]
    # Of the last step that was made: a held or refused gradient has no rate of its own.
    assert (progress["lr"], progress["epoch"]) == (0.1, 0.5)
    assert progress["train_loss"] == pytest.approx((1 + 1 / 4) / 2)


def test_a_run_that_never_began_still_has_a_summary(tmp_path: Path) -> None:
    folder = make(None, tmp_path)
    record(folder).ended("interrupted", 0.0, reason="SIGTERM")
    summary = json.loads(folder.summary_json.read_text())
    assert (summary["status"], summary["updates"]) == ("interrupted", 0)
    assert summary["staleness_mean"] is None
    assert not RunFolder(folder.path).is_finished()


def test_a_killed_run_leaves_what_it_flushed(tmp_path: Path) -> None:
    folder = make(None, tmp_path)
    recorder = record(folder, trace_flush_s=0.5)
    recorder.started(0.0)
    for number in range(8):
        recorder.update(push(number), 0.25 * (number + 1))
    # Nothing is closed here: this is all that a SIGKILL would leave.
    assert len(read_trace(folder.trace_bin)) == 8
    assert read_trace(folder.trace_bin).truncated
    assert len(read_metrics(folder.metrics_jsonl)) == 5
    recorder.close()
    assert read_trace(folder.trace_bin).truncated
    assert not folder.summary_json.exists()


def test_messages_go_to_the_screen_the_metrics_and_the_log(tmp_path: Path) -> None:
    folder = make(None, tmp_path)
    logger = rank_logger(folder, 0)
    stream = io.StringIO()
    recorder = Recorder(
        folder, describe(), RecordSettings(), stream=stream, logger=logger, environ={}
    )
    recorder.started(0.0)
    recorder.message("worker 1 on c2 is gone")
    recorder.ended("completed", 1.0)
    close_logger(logger)
    assert "worker 1 on c2 is gone\n" in stream.getvalue()
    assert "INFO worker 1 on c2 is gone\n" in folder.log(0).read_text()
    events = read_metrics(folder.metrics_jsonl)
    assert events[1] == {"event": "message", "time_s": 0.0, "text": "worker 1 on c2 is gone"}


def test_two_logs_of_one_process_do_not_mix(tmp_path: Path) -> None:
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    loggers = [rank_logger(one, 3), rank_logger(two, 3)]
    loggers[0].info("first")
    loggers[1].info("second")
    for logger in loggers:
        close_logger(logger)
    assert one.log(3).read_text().endswith("INFO first\n")
    assert two.log(3).read_text().endswith("INFO second\n")
    assert one.log(3).name == "rank-3.log"


def test_a_log_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(RunFolderError, match=r"rank-2\.log: cannot be written"):
        rank_logger(RunFolder(tmp_path), 2)


def test_fanout_tells_everyone(tmp_path: Path) -> None:
    one, two = make(None, tmp_path), make(None, tmp_path)
    fanout: Observer = Fanout([NullObserver(), record(one), record(two)])
    fanout.started(1.0)
    fanout.update(push(0), 0.1)
    fanout.evaluation(evaluate(1))
    fanout.worker(Account(worker=0, host="h", device="cpu", updates=1))
    fanout.message("hello")
    fanout.ended("completed", 1.0, weights_sha256="cd")
    assert one.summary_json.read_text() == two.summary_json.read_text()
    assert one.metrics_jsonl.read_text() == two.metrics_jsonl.read_text()
    assert json.loads(one.summary_json.read_text())["weights_sha256"] == "cd"


# --- the environment ------------------------------------------------------------------------


def test_the_environment_keeps_only_known_variables(tmp_path: Path) -> None:
    environment = describe_environment(
        started=NOW,
        git=None,
        ranks=[RankPlace(rank=0, role="server", host="c1", device="cpu")],
        mpi_library="Open MPI v5.0.11,\n package: x\0",
        argv=["mpi-dcasgd", "train", "job.yaml"],
        environ={
            "SLURM_JOB_ID": "17",
            "OMPI_MCA_btl_tcp_links": "4",
            "UCX_TLS": "rc",
            "SLURM_JWT": "secret",
            "API_TOKEN": "secret",
        },
    )
    told = {"SLURM_JOB_ID": "17", "OMPI_MCA_btl_tcp_links": "4", "UCX_TLS": "rc"}
    assert environment["variables"] == told
    assert environment["started"] == "2024-05-06T07:08:09+00:00"
    assert environment["mpi_library"] == "Open MPI v5.0.11, package: x"
    assert environment["ranks"][0]["role"] == "server"
    assert environment["packages"]["torch"]
    folder = RunFolder(tmp_path)
    folder.write_environment(environment)
    assert json.loads(folder.environment_json.read_text()) == environment


def test_the_environment_says_how_much_memory_lies_in_huge_pages(tmp_path: Path) -> None:
    system, process = tmp_path / "enabled", tmp_path / "smaps_rollup"
    assert huge_pages(system, process) == {"enabled": None, "bytes": None}
    system.write_text("always [madvise] never\n")
    process.write_text("00400000-7ff ---p 00000000 [rollup]\nRss: 9 kB\nAnonHugePages:  4096 kB\n")
    assert huge_pages(system, process) == {"enabled": "madvise", "bytes": 4 << 20}


def test_versions_are_of_installed_packages_only() -> None:
    versions = package_versions()
    assert {"torch", "numpy", "mpi4py"} <= set(versions)
    assert all(versions.values())


def test_git_state_is_none_outside_a_checkout(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text("")
    assert git_state(tmp_path) is None


def test_a_virtual_run_that_takes_longer_than_thought_has_fewer_events(tmp_path: Path) -> None:
    def events(driver: str, shown: io.StringIO) -> int:
        folder = make(tmp_path / driver, tmp_path)
        settings = RecordSettings(log_every_s=1.0, line_every_s=1.0, trace=False, progress="lines")
        run = describe(driver=driver)
        recorder = Recorder(folder, run, settings, stream=shown, environ={})
        for number in range(3000):
            recorder.update(push(number), float(number))
        recorder.close()
        return len(read_metrics(folder.metrics_jsonl))

    shown = io.StringIO()
    assert events("mpi", io.StringIO()) == 2999
    assert 1000 < events("simulator", shown) < 1300
    assert shown.getvalue().count("\n") < 300


def test_a_resumed_virtual_run_writes_its_events_as_rarely_as_before(tmp_path: Path) -> None:
    def recorder(folder: RunFolder, saved: Any = None) -> Recorder:
        settings = RecordSettings(log_every_s=1.0, progress="off", trace=False)
        run = describe(driver="simulator")
        return Recorder(folder, run, settings, environ={}, saved=saved)

    def go_on(one: Recorder, begin: int, end: int) -> None:
        for number in range(begin, end):
            one.update(push(number), float(number))

    whole, broken = make(tmp_path / "whole", tmp_path), make(tmp_path / "broken", tmp_path)
    through, first = recorder(whole), recorder(broken)
    go_on(through, 0, 2000)
    go_on(first, 0, 1000)
    saved = first.state_dict()
    first.close()
    second = recorder(broken, saved)
    go_on(second, 1000, 2000)
    second.close()
    through.close()
    assert broken.metrics_jsonl.read_bytes() == whole.metrics_jsonl.read_bytes()

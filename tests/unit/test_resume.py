"""A run that was stopped resuming from its checkpoint as if nothing had happened."""

from __future__ import annotations

import io
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stop_after import StopAfter

from mpi_dcasgd.config.load import load_job
from mpi_dcasgd.errors import ConfigError, DataError, RunFolderError
from mpi_dcasgd.learning.learner import Learner
from mpi_dcasgd.record.checkpoints import CheckpointFiles, checkpoints_in, read_checkpoint
from mpi_dcasgd.record.metrics import read_metrics
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.trace import read_trace
from mpi_dcasgd.runs.recording import Recording
from mpi_dcasgd.runs.train import train

JOB = "jobs/digits.yaml"
WORDS = [
    "algorithm=sgd",
    "epochs=3",
    "rule.momentum={name: heavy-ball, momentum: 0.5}",
    "record.progress=off",
]


Go = Callable[..., int]


@pytest.fixture
def go(every_checkpoint: None) -> Go:
    """``go(folder, *words, stop_after=updates, resume=...)`` trains, and gives the exit status."""

    def run(folder: Path, *words: str, stop_after: int = 10**9, **options: Any) -> int:
        job, stop = load_job(JOB, [*WORDS, *words]), StopAfter(stop_after)
        run = train(job, run_dir=folder, argv=["test"], stop=stop, **options)
        return 128 + run.stopped_by if run.stopped_by else 0

    return run


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def untimed(folder: Path) -> list[dict[str, Any]]:
    """All evaluations, without how long anything took."""
    events = [e for e in read_metrics(folder / "metrics.jsonl") if e["event"] == "evaluation"]
    return [{k: v for k, v in e.items() if k not in ("time_s", "eval_s")} for e in events]


def pushes(folder: Path) -> list[tuple[int, ...]]:
    trace = read_trace(folder / "trace.bin", strict=True)
    return [(r.worker, r.ticket, r.version, r.staleness, r.mark) for r in trace.records()]


@pytest.mark.parametrize("cuts", [(1,), (100,), (100, 50)])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(
    go: Go, tmp_path: Path, cuts: tuple[int, ...]
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert go(whole) == 0
    for after in cuts:
        assert go(cut, stop_after=after) == 138
        assert summary(cut)["status"] == "interrupted"
        assert (
            f"to resume, rerun the same command with --run-dir {cut}"
            in (cut / "metrics.jsonl").read_text()
        )
    assert go(cut) == 0
    assert summary(cut)["weights_sha256"] == summary(whole)["weights_sha256"]
    for key in ("updates", "samples", "test_error", "train_loss", "staleness_histogram"):
        assert summary(cut)[key] == summary(whole)[key]
    assert summary(cut)["restarts"] == len(cuts)
    assert untimed(cut) == untimed(whole)
    assert pushes(cut) == pushes(whole)
    [worker] = [e for e in read_metrics(cut / "metrics.jsonl") if e["event"] == "worker"]
    assert worker["updates"] == summary(whole)["updates"]
    assert len(list(cut.glob("environment*.json"))) == 1 + len(cuts)


def test_a_run_that_was_resumed_is_still_of_the_job_that_was_asked_for(
    go: Go, tmp_path: Path
) -> None:
    # A study would move it aside as another job's, and a report would give it a row of its own.
    go(tmp_path / "whole")
    for updates in (20, 40):
        go(tmp_path / "cut", stop_after=updates)
        assert checkpoints_in(tmp_path / "cut" / "checkpoints")
    go(tmp_path / "cut")
    jobs = [(tmp_path / name / "job.yaml").read_text() for name in ("whole", "cut")]
    assert jobs[0] == jobs[1]
    content = read_checkpoint(checkpoints_in(tmp_path / "cut" / "checkpoints")[0])
    assert content["job"]["fuse"] == "auto"


def test_time_goes_on_too(go: Go, tmp_path: Path) -> None:
    assert go(tmp_path / "run", stop_after=100) == 138
    before = summary(tmp_path / "run")["wall_s"]
    assert go(tmp_path / "run") == 0
    events = read_metrics(tmp_path / "run" / "metrics.jsonl")
    times = [event["time_s"] for event in events if event["event"] == "evaluation"]
    assert times == sorted(times)
    assert summary(tmp_path / "run")["wall_s"] > before


def test_checkpoints_come_by_epochs_and_the_last_ones_stay(go: Go, tmp_path: Path) -> None:
    assert go(tmp_path / "run", "checkpoint={every: 1, every_s: null, keep: 2}") == 0
    found = checkpoints_in(tmp_path / "run" / "checkpoints")
    assert [path.name for path in found] == ["update-000000270.pt", "update-000000180.pt"]
    content = torch.load(found[1], weights_only=True)
    assert content["server"]["samples"] == 2 * 1437
    assert content["job"]["lr"] == 0.1
    assert not list((tmp_path / "run").rglob("*.tmp"))


def test_a_killed_run_loses_only_what_came_after_its_checkpoint(go: Go, tmp_path: Path) -> None:
    """The files hold more than the checkpoint knows of: what is behind it is done again."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    go(whole)
    words = ["checkpoint={every: 1, every_s: null}"]
    assert go(cut, *words, stop_after=200) == 138
    checkpoints_in(cut / "checkpoints")[0].unlink()  # the one of the signal
    assert [path.stem for path in checkpoints_in(cut / "checkpoints")] == ["update-000000180"]
    assert go(cut, *words) == 0
    assert summary(cut)["weights_sha256"] == summary(whole)["weights_sha256"]
    assert untimed(cut) == untimed(whole)
    assert pushes(cut) == pushes(whole)
    # What the killed start did until then has its seconds, too.
    content = torch.load(checkpoints_in(cut / "checkpoints")[-1], weights_only=True)
    [before] = content["conductor"]["spent"]
    [worker] = [e for e in read_metrics(cut / "metrics.jsonl") if e["event"] == "worker"]
    assert (worker["updates"], worker["samples"]) == (270, 3 * 1437)
    assert before["updates"] == 180
    assert 0 < before["compute_s"] < worker["compute_s"]


def test_a_job_of_an_earlier_version_lacks_keys_and_is_the_same(go: Go, tmp_path: Path) -> None:
    go(tmp_path / "run", stop_after=50)
    (path,) = checkpoints_in(tmp_path / "run" / "checkpoints")
    content = torch.load(path, weights_only=True)
    del content["job"]["capture"], content["job"]["sync"]["backup"]
    torch.save(content, path)
    assert go(tmp_path / "run") == 0
    assert summary(tmp_path / "run")["restarts"] == 1


def test_another_job_does_not_go_on_with_it(go: Go, tmp_path: Path) -> None:
    go(tmp_path / "run", stop_after=50)
    with pytest.raises(RunFolderError, match=r"is of another job \(lr differ\).*--resume never"):
        go(tmp_path / "run", "lr=0.2")
    assert go(tmp_path / "run", "lr=0.2", resume="never") == 0
    assert summary(tmp_path / "run")["restarts"] == 0
    assert not checkpoints_in(tmp_path / "run" / "checkpoints"), "they are of the other job"


def test_where_and_how_often_is_no_other_job(go: Go, tmp_path: Path) -> None:
    go(tmp_path / "run", stop_after=50)
    words = ["record.log_every_s=1", "checkpoint.keep=1", "evaluate_every=2", "device=cpu"]
    assert go(tmp_path / "run", *words) == 0
    assert summary(tmp_path / "run")["restarts"] == 1


def test_a_torn_checkpoint_is_passed_over(go: Go, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["checkpoint={every: 1, every_s: null, keep: 3}"]
    go(run, *words, stop_after=200)
    newest = checkpoints_in(run / "checkpoints")[0]
    newest.write_bytes(newest.read_bytes()[:500])
    assert go(run, *words) == 0
    said = [e["text"] for e in read_metrics(run / "metrics.jsonl") if e["event"] == "message"]
    assert any("update-000000200.pt: cannot be read" in text for text in said)
    assert summary(run)["samples"] == 3 * 1437


def test_where_no_checkpoint_can_be_read_it_is_said_how_to_begin_anew(
    go: Go, tmp_path: Path
) -> None:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    for number in (1, 2):
        (folder / f"update-{number:09d}.pt").write_bytes(b"torn")
    with pytest.raises(RunFolderError) as caught:
        go(tmp_path / "run")
    assert "update-000000001.pt: cannot be read as a checkpoint" in str(caught.value)
    assert str(caught.value).endswith("; or start over with --resume never")


def test_a_run_goes_on_in_another_folder(go: Go, tmp_path: Path) -> None:
    whole, first, second = (tmp_path / name for name in ("whole", "first", "second"))
    go(whole)
    go(first, stop_after=100)
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    file = checkpoints_in(first / "checkpoints")[0]
    assert go(second, resume=str(file)) == 0
    assert summary(second)["weights_sha256"] == summary(whole)["weights_sha256"]
    assert pushes(second) == pushes(whole)
    assert {path: path.read_bytes() for path in before} == before, "the first is as it was"


@pytest.mark.parametrize("what", ["nowhere", "nowhere/update-000000001.pt"])
def test_a_checkpoint_that_is_not_there_is_an_error(go: Go, tmp_path: Path, what: str) -> None:
    with pytest.raises(RunFolderError, match=r"no checkpoint there; allowed: auto, never"):
        go(tmp_path / "run", resume=str(tmp_path / what))


def test_a_file_is_no_folder_to_train_into(go: Go, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=r"--run-dir .*notes\.txt: is a file; name a folder"):
        go(tmp_path / "notes.txt")
    with pytest.raises(RunFolderError, match=r"notes\.txt: cannot be read as a checkpoint") as told:
        go(tmp_path / "run", resume=str(tmp_path / "notes.txt"))
    assert "weights_only" not in str(told.value), "no advice to trust it"


def test_what_cannot_start_leaves_no_folder(go: Go, tmp_path: Path) -> None:
    data = f"data={{name: cifar10, path: {tmp_path / 'nowhere'}}}"
    with pytest.raises(DataError, match="nowhere"):
        go(tmp_path / "run", data, "model={name: resnet20}")
    assert not (tmp_path / "run").exists()


def test_a_start_that_fails_in_the_folder_of_a_stopped_run_is_told_as_what_it_is(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    assert go(folder, stop_after=9) == 138
    assert summary(folder)["status"] == "interrupted"

    def fail(*args: object, **options: object) -> None:
        raise DataError("no samples today")

    with monkeypatch.context() as broken:
        broken.setattr("mpi_dcasgd.runs.build.Subject.open", fail)
        with pytest.raises(DataError):
            go(folder)
    told = {"status": "failed", "reason": "could not be resumed: DataError: no samples today"}
    assert summary(folder) == told
    assert go(folder) == 0
    assert summary(folder)["status"] == "completed"


@pytest.mark.parametrize("resumed", [False, True])
def test_a_mistake_that_shows_in_the_middle_of_training_is_told_as_what_it_is(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumed: bool
) -> None:
    folder = tmp_path / "run"
    if resumed:
        assert go(folder, stop_after=9) == 138
    genuine, calls = Learner.gradient, []

    def fail(learner: Learner, batch: Any) -> Any:
        calls.append(batch)
        if len(calls) > 20:  # long after the first minibatches were tried
            raise ConfigError("Mine.loss", ["raised RuntimeError: sample 13 is broken"])
        return genuine(learner, batch)

    with monkeypatch.context() as broken:
        broken.setattr(Learner, "gradient", fail)
        with pytest.raises(ConfigError):
            go(folder)
    told = summary(folder)
    assert told["status"] == "failed"
    assert told["reason"].startswith("ConfigError: Mine.loss: 1 problem")
    assert told["updates"] > 9 * resumed


def full_disk(*args: object, **options: object) -> None:
    raise RunFolderError("weights.pt: cannot be written: No space left on device")


def test_a_disk_that_is_full_after_the_checkpoint_does_not_undo_the_stop(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, shown = tmp_path / "run", io.StringIO()
    with monkeypatch.context() as full:
        full.setattr("mpi_dcasgd.runs.run_end.save_weights", full_disk)
        assert go(folder, stop_after=9, show=shown) == 138
    assert "No space left on device; the checkpoint is whole" in shown.getvalue()
    assert summary(folder)["status"] == "interrupted"
    assert summary(folder)["reason"].endswith("stopped by SIGUSR1")
    assert go(folder) == 0


def test_records_that_cannot_be_written_any_more_do_not_undo_the_stop_either(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, written = tmp_path / "run", CheckpointFiles.keep_now

    def keep_and_fill(self: CheckpointFiles, *args: Any) -> None:
        written(self, *args)
        monkeypatch.setattr("mpi_dcasgd.record.appending.AppendedFile.append", full_disk)
        monkeypatch.setattr(RunFolder, "write_summary", full_disk)

    monkeypatch.setattr(CheckpointFiles, "keep_now", keep_and_fill)
    assert go(folder, stop_after=9) == 138
    assert "the checkpoint is whole" in (folder / "logs" / "rank-0.log").read_text()
    monkeypatch.undo()
    assert go(folder) == 0


def test_a_stop_without_a_checkpoint_is_a_failure_where_the_rest_fails_too(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    monkeypatch.setattr("mpi_dcasgd.runs.run_end.save_weights", full_disk)
    monkeypatch.setattr("mpi_dcasgd.record.checkpoints.atomic_file", full_disk)
    with pytest.raises(RunFolderError, match="No space left"):
        go(folder, stop_after=9)
    assert summary(folder)["status"] == "failed"


def test_a_run_whose_weights_cannot_be_written_says_so_in_its_summary(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mpi_dcasgd.runs.run_end.save_weights", full_disk)
    with pytest.raises(RunFolderError, match="No space left"):
        go(tmp_path / "run")
    found = summary(tmp_path / "run")
    assert found["status"] == "failed"
    assert "No space left" in found["reason"]


def test_what_a_run_has_learnt_outlives_its_folder(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, finish = tmp_path / "run", Recording.finish

    def remove_first(self: Recording, *args: Any) -> None:
        shutil.rmtree(folder)
        finish(self, *args)

    monkeypatch.setattr(Recording, "finish", remove_first)
    assert go(folder) == 0
    run = RunFolder.open(folder)
    assert run.is_finished()
    assert run.weights()


def test_something_else_is_not_taken_for_a_checkpoint(go: Go, tmp_path: Path) -> None:
    go(tmp_path / "run")
    with pytest.raises(RunFolderError, match="is not a checkpoint of a run"):
        go(tmp_path / "other", resume=str(tmp_path / "run" / "weights.pt"))


def test_records_that_do_not_belong_to_the_checkpoint_are_refused(go: Go, tmp_path: Path) -> None:
    run = tmp_path / "run"
    go(run, stop_after=100)
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(RunFolderError, match=r"metrics.jsonl: has 0 bytes, but"):
        go(run)


def test_a_checkpoint_that_cannot_be_written_is_told_and_training_goes_on(
    go: Go, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "checkpoints").write_text("in the way")
    assert go(run, "checkpoint={every: 1, every_s: null}") == 0
    said = [e["text"] for e in read_metrics(run / "metrics.jsonl") if e["event"] == "message"]
    assert any(text.startswith("no checkpoint: ") for text in said)
    assert go(run, overwrite=True, stop_after=50) == 138
    assert "stopped by SIGUSR1; no checkpoint: " in summary(run)["reason"]


def test_no_second_checkpoint_is_begun_while_one_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on, save = threading.Event(), torch.save

    def slow_save(content: Any, file: Any) -> None:
        may_go_on.wait(30)
        save(content, file)

    monkeypatch.setattr(torch, "save", slow_save)
    files = CheckpointFiles(tmp_path / "checkpoints", keep=2)
    assert files.keep(1, {"server": 1})
    assert not files.keep(2, {"server": 2})
    may_go_on.set()
    files.keep_now(3, {"server": 3})
    found = checkpoints_in(tmp_path / "checkpoints")
    assert [path.stem for path in found] == ["update-000000003", "update-000000001"]
    assert read_checkpoint(found[0])["server"] == 3


def test_another_layout_is_refused(tmp_path: Path) -> None:
    torch.save({"layout": 99}, tmp_path / "update-000000001.pt")
    with pytest.raises(RunFolderError, match="layout 99, but this version of mpi_dcasgd reads"):
        read_checkpoint(tmp_path / "update-000000001.pt")


GROUPS = "groups=[{match: biases, lr: 0.5, weight_decay: 0}, {match: 1.weight, lr: 2.0}]"


def test_a_run_with_groups_goes_on_bit_for_bit_and_only_with_the_same_groups(
    go: Go, tmp_path: Path
) -> None:
    whole, cut, decay = tmp_path / "whole", tmp_path / "cut", "rule.weight_decay.rate=0.01"
    assert go(whole, GROUPS, decay) == 0
    assert go(cut, GROUPS, decay, stop_after=100) == 138
    for words, key in (
        ([decay], "groups"),
        ([GROUPS, decay, "rule.weight_decay.on=conv-and-linear"], "rule.weight_decay.on"),
    ):
        with pytest.raises(RunFolderError, match=rf"is of another job \({key} differ\)"):
            go(cut, *words)
    assert go(cut, GROUPS.replace("1.weight", "[1.weight]"), decay) == 0, "the same, written out"
    assert summary(cut)["weights_sha256"] == summary(whole)["weights_sha256"]
    assert pushes(cut) == pushes(whole)


@pytest.mark.parametrize("sealed", [True, False], ids=["digest", "of-an-earlier-version"])
def test_a_damaged_checkpoint_is_passed_over_by_name(go: Go, tmp_path: Path, sealed: bool) -> None:
    """64 bytes within the weights: a file that PyTorch loads, with other numbers in it."""
    run, words = tmp_path / "run", ["checkpoint={every: 1, every_s: null}"]
    assert go(run, *words, stop_after=200) == 138
    newest, before = checkpoints_in(run / "checkpoints")
    content = torch.load(newest, weights_only=True)
    if not sealed:
        torch.save(content, newest)
    weights = content["server"]["weights"].numpy().tobytes()
    damaged = bytearray(newest.read_bytes())
    place = damaged.index(weights) + 64
    damaged[place : place + 64] = bytes(byte ^ 0xFF for byte in damaged[place : place + 64])
    newest.write_bytes(damaged)
    assert go(run, *words) == 0
    events = read_metrics(run / "metrics.jsonl")
    shown = "\n".join(event["text"] for event in events if event["event"] == "message")
    assert f"{newest}: is damaged: " in shown
    assert "trying the one before" in shown
    assert before.name == "update-000000180.pt"
    assert "resumed after 2 epochs, 180 updates" in shown

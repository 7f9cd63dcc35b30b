"""A run knows its data again: changed ones are told, and not trained on by mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stop_after import StopAfter

from mpi_dcasgd.errors import DataError
from mpi_dcasgd.learning.data import load_dataset
from mpi_dcasgd.learning.data.fingerprint import fingerprint_of
from mpi_dcasgd.learning.data.identity import DataIdentity, differences
from mpi_dcasgd.learning.data.load import DATA
from mpi_dcasgd.learning.data.nests import NestSplit
from mpi_dcasgd.learning.data.part import Part
from mpi_dcasgd.learning.data.samples import SampleSource, SampleSplit
from mpi_dcasgd.learning.data.tensors import TensorSplit
from mpi_dcasgd.record.checkpoints import checkpoints_in, read_checkpoint
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.sealed import save_sealed
from mpi_dcasgd.record.trace_writer import TraceWriter
from mpi_dcasgd.runs.replay import replay
from mpi_dcasgd.runs.result import Run
from mpi_dcasgd.runs.simulate import simulate
from mpi_dcasgd.runs.train import train

pytest.importorskip("PIL")
CPU = torch.device("cpu")


def write(root: Path, counts: dict[str, int]) -> None:
    """Dark images of one class and bright ones of the next, in both splits."""
    from PIL import Image

    for split in ("train", "val"):
        for shade, (name, count) in enumerate(counts.items()):
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                Image.new("RGB", (8, 8), (shade * 100, number, 0)).save(folder / f"{number}.png")


def job_of(tmp_path: Path) -> dict[str, Any]:
    return {
        "name": "small",
        "algorithm": "sgd",
        "epochs": 4,
        "batch_size": 4,
        "lr": 0.1,
        "data": {"name": "imagefolder", "path": str(tmp_path / "data"), "image_size": 8},
        "model": {"name": "mlp", "hidden": [4]},
        "record": {"progress": "off"},
    }


def go(tmp_path: Path, *, stop_after: int = 10**9, **overrides: Any) -> list[str]:
    """Train on ``data`` into ``run``; the messages of all starts so far."""
    job = job_of(tmp_path)
    run = train(job, run_dir=tmp_path / "run", stop=StopAfter(stop_after), **overrides)
    return [event["text"] for event in run.metrics() if event["event"] == "message"]


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    write(tmp_path / "data", {"cat": 8, "dog": 8})
    go(tmp_path, stop_after=6)
    return tmp_path


def test_a_start_says_what_was_found(tmp_path: Path) -> None:
    write(tmp_path / "data", {"cat": 8, "dog": 8})
    (tmp_path / "data" / "train" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "data" / "val" / "cat" / "notes.txt").touch()
    said = go(tmp_path, epochs=1, **{"data.validation": 0.25})
    assert (
        "data: 2 classes, 12 training, 4 validation and 16 test samples; left out: 1 hidden in "
        f"{tmp_path}/data/train, 1 of other types (.txt) in {tmp_path}/data/val"
    ) in said


def test_the_same_data_resume(interrupted: Path) -> None:
    assert any(text.startswith("resumed after") for text in go(interrupted))
    stored = RunFolder(interrupted / "run").data()
    assert stored["samples"] == {"train": 16, "test": 16}
    assert stored["classes"] == ["cat", "dog"]


def test_images_that_were_added_are_told(interrupted: Path) -> None:
    write(interrupted / "data", {"cat": 9, "dog": 8})
    with pytest.raises(DataError, match="17 training samples, where there were 16; 17 test") as e:
        go(interrupted)
    assert "resumes with as many training samples only" in str(e.value)
    with pytest.raises(DataError, match="as many training samples only"):
        go(interrupted, **{"checkpoint.other_data": "accept"})


def test_a_class_that_was_renamed_is_told_and_may_be_accepted(interrupted: Path) -> None:
    for split in ("train", "val"):
        (interrupted / "data" / split / "cat").rename(interrupted / "data" / split / "eel")
    with pytest.raises(DataError, match="class 0 is 'dog' and was 'cat'; class 1 is 'eel' and was"):
        go(interrupted)
    said = go(interrupted, **{"checkpoint.other_data": "accept"})
    told = "the data have changed since the checkpoint: class 0 is 'dog' and was 'cat'"
    assert told in said
    stored = RunFolder(interrupted / "run").data()
    assert stored["classes"] == ["cat", "dog"], "what it began with"
    assert "class 0 is 'dog' and was 'cat'" in stored["resumed_with"][0]


def test_an_image_of_another_size_is_told(interrupted: Path) -> None:
    file = interrupted / "data" / "train" / "dog" / "3.png"
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(DataError, match="as many training samples, but others"):
        go(interrupted)


def test_a_checkpoint_of_an_earlier_version_resumes_without_a_comparison(
    interrupted: Path,
) -> None:
    for path in checkpoints_in(interrupted / "run" / "checkpoints"):
        content = read_checkpoint(path)
        del content["data"]
        with open(path, "wb") as file:
            save_sealed(content, file)
    (interrupted / "run" / "data.json").unlink()
    for split in ("train", "val"):
        (interrupted / "data" / split / "cat").rename(interrupted / "data" / split / "eel")
    assert any(text.startswith("resumed after") for text in go(interrupted))


def test_a_simulation_is_not_resumed_on_other_data(tmp_path: Path) -> None:
    write(tmp_path / "data", {"cat": 8, "dog": 8})
    job = {**job_of(tmp_path), "algorithm": "asgd"}
    options: dict[str, Any] = {"workers": 2, "run_dir": tmp_path / "run"}
    run = simulate(job, **options, stop=StopAfter(1), epochs=40)
    assert run.status == "interrupted"
    write(tmp_path / "data", {"cat": 9, "dog": 8})
    with pytest.raises(DataError, match="17 training samples, where there were 16"):
        simulate(job, **options, epochs=40)


# Fingerprints


def resident(**changes: Any) -> NestSplit:
    return NestSplit({"x": torch.arange(12.0).view(6, 2), "y": torch.arange(6)} | changes, CPU)


def test_every_byte_of_samples_in_memory_counts() -> None:
    changed = torch.arange(12.0).view(6, 2)
    changed[3, 1] += 1e-6 * 7
    names = {
        fingerprint_of(split)
        for split in (
            resident(),
            resident(x=changed),
            resident(x=torch.arange(12.0).view(6, 2).to(torch.bfloat16)),
            resident(x=torch.arange(12.0).view(6, 1, 2)),
            Part(resident(), np.arange(6)),
            Part(resident(), np.arange(6)[::-1]),
        )
    }
    assert len(names) == 6
    assert fingerprint_of(resident()) == fingerprint_of(resident())


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_built_in_data_have_a_fingerprint(name: str) -> None:
    """Those that are made up have views whose rows overlap."""
    source = DATA[name](name=name)
    one, two = (fingerprint_of(load_dataset(source, 1, CPU).train) for _ in range(2))
    assert one == two
    assert len(one) == 64
    other = fingerprint_of(load_dataset(source, 2, CPU).train)
    assert (one == other) == (name == "digits")


class Listed:
    """A map-style data set."""

    def __init__(self, *values: float, drawn: bool = False) -> None:
        self.values = values
        self.drawn = drawn

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> torch.Tensor:
        noise = np.random.default_rng().random() if self.drawn else 0.0
        return torch.tensor(self.values[index] + noise)


def listed(*values: float, drawn: bool = False) -> str:
    source = SampleSource(Listed(*values, drawn=drawn), torch.stack, "train")
    return fingerprint_of(SampleSplit(source, draws=True))


def test_of_other_samples_the_first_and_the_last_count() -> None:
    assert listed(1, 2, 3) == listed(1, 5, 3)
    assert len({listed(1, 2, 3), listed(0, 2, 3), listed(1, 2, 4)}) == 3


def test_samples_that_come_out_otherwise_each_time_say_nothing() -> None:
    assert listed(1, 2, 3, drawn=True) == ""
    assert (
        differences(
            {"samples": {"train": 3}, "fingerprints": {"train": "ab"}},
            {"samples": {"train": 3}, "fingerprints": {"train": ""}},
        )
        == []
    )


def test_one_split_for_both_is_seen() -> None:
    split, other = resident(), TensorSplit(torch.zeros(6, 2), torch.zeros(6), CPU)

    def identity(train: Any, test: Any) -> DataIdentity:
        names = {"train": fingerprint_of(train), "test": fingerprint_of(test)}
        return DataIdentity({"train": len(train), "test": len(test)}, names)

    assert identity(split, resident()).tests_itself
    assert not identity(split, other).tests_itself


# Replay


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A folder that looks like that of a real run, and the data that it was made with."""
    write(tmp_path / "data", {"cat": 8, "dog": 8})
    run = simulate({**job_of(tmp_path), "algorithm": "asgd"}, workers=2, run_dir=tmp_path / "run")
    trace = run.trace()
    writer = TraceWriter(run.path / "trace.bin", {**trace.meta, "driver": "mpi"})
    for r in trace.records():
        writer.add(r.worker, r.ticket, r.staleness, r.action, r.time_s, r.mark)
    writer.end("completed")
    return run.path


def test_replay_names_what_has_changed_in_the_data(recorded: Path) -> None:
    assert replay(recorded).data_changes == ()
    for split in ("train", "val"):
        folder = recorded.parent / "data" / split
        (folder / "cat").rename(folder / "eel")
    found = replay(recorded)
    assert not found.identical
    assert "the data have changed since the run: class 0 is 'dog' and was 'cat'" in str(found)
    with pytest.raises(DataError, match=r"its data have changed: as many training samples, but"):
        replay(recorded, recorded.parent / "other", lr=0.2)
    other = replay(
        recorded, recorded.parent / "other", lr=0.2, **{"checkpoint.other_data": "accept"}
    )
    assert isinstance(other, Run)
    assert other.status == "completed"


def test_replay_does_not_blame_a_gradient_for_images_that_were_added(recorded: Path) -> None:
    write(recorded.parent / "data", {"cat": 9, "dog": 8})
    with pytest.raises(DataError, match="cannot be computed again, for its data have changed: 17"):
        replay(recorded)


def test_a_run_that_tests_on_its_training_samples_says_so(tmp_path: Path) -> None:
    x, y = np.arange(32, dtype=np.float32).reshape(16, 2), np.arange(16) % 2
    np.savez(tmp_path / "same.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    np.savez(tmp_path / "other.npz", x_train=x, y_train=y, x_test=x + 1, y_test=y)
    warning = "the test samples are the training samples: what they say proves nothing"
    for name in ("same", "other"):
        data = {"name": "arrays", "path": str(tmp_path / f"{name}.npz")}
        run = train({**job_of(tmp_path), "data": data}, run_dir=tmp_path / name, epochs=1)
        said = [event["text"] for event in run.metrics() if event["event"] == "message"]
        assert (warning in said) == (name == "same")

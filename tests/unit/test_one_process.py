"""Runs of one process make the checks of start-up that a world makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpi_dcasgd.cli import main

JOB = """\
algorithm: asgd
epochs: 1
batch_size: 100
lr: 0.1
model: {name: mlp, hidden: [8]}
data: {name: digits}
device: cpu
"""
HUGE = "model.hidden=[2000000000]"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "job.yaml").write_text(JOB)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [["train", "algorithm=sgd"], ["simulate", "workers=3"], ["simulate", "algorithm=ssgd"]],
)
def test_memory_that_is_not_there_is_told_and_leaves_no_folder(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command, *more = words
    more += ["workers=2"] if words[-1] == "algorithm=ssgd" else []
    assert main([command, "job.yaml", *more, HUGE, "--run-dir", "r"]) == 2
    error = capsys.readouterr().err
    assert "the process: needs " in error
    assert "GiB available; use a smaller model" in error
    assert not Path("r").exists()


def test_each_simulated_worker_has_its_snapshot(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mpi_dcasgd.runs.build.available_bytes", lambda: 10**6)
    words = ["simulate", "job.yaml", "--run-dir", "r"]
    assert main([*words, "workers=4"]) == 0
    assert main([*words, "workers=400", "--overwrite"]) == 2
    assert "snapshots of 400 workers" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["train", "algorithm=sgd"], ["simulate", "workers=2"]])
def test_batchnorms_last_minibatch_of_one_is_told(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command, *more = words
    # 17 images in minibatches of 16; the network leaves one pixel of each channel.
    data = "data={name: synthetic, num_train: 17, shape: [3, 4, 4]}"
    more += ["model={name: resnet20}", "batch_size=16", data]
    assert main([command, "job.yaml", *more, "--run-dir", "r"]) == 2
    assert "of a single sample BatchNorm takes no statistics" in capsys.readouterr().err
    assert not Path("r").exists()

"""Runs whose workers share memory with the server, and runs whose workers exchange messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpi_dcasgd.runs.replay import replay

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(120)]

JOB = "jobs/digits.yaml"
SMALL = ["algorithm=dcasgd-a", "epochs=1", "model={name: cnn, batchnorm: true}"]


def transports(run: Path) -> list[str]:
    environment = json.loads((run / "environment.json").read_text())
    return [rank["transport"] for rank in environment["ranks"]]


def test_runs_by_either_transport_are_recorded_and_replay_identically(
    shared_world: Callable[..., Any], tmp_path: Path
) -> None:
    choices = {
        "auto": ["transport=auto"],
        "messages": ["transport=messages"],
        "chunks": ["transport=messages", "chunk_mb=0.004"],
        "narrow chunks": ["transport=messages", "chunk_mb=0.004", "wire=fp16"],
    }
    paths = {choice: tmp_path / choice for choice in choices}
    runs = [(str(paths[choice]), [*SMALL, *words]) for choice, words in choices.items()]
    answers = shared_world("world_calls:train", JOB, runs, ranks=3)
    assert [answer.value for answer in answers] == 3 * [4 * ["completed"]]
    assert transports(paths["auto"]) == ["", "shared", "shared"]
    assert transports(paths["messages"]) == ["", "messages", "messages"]
    for choice, path in paths.items():
        ranks = json.loads((path / "environment.json").read_text())["ranks"]
        assert {rank["chunks"] > 2 for rank in ranks[1:]} == {"chunks" in choice}
    for path in paths.values():
        assert replay(path).identical
    log = (paths["auto"] / "logs" / "rank-0.log").read_text()
    assert "2 of 2 workers share memory with the server" in log


def test_a_worker_that_cannot_share_memory_is_named_in_the_log_or_refused(
    shared_world: Callable[..., Any], tmp_path: Path
) -> None:
    run, refused = tmp_path / "run", tmp_path / "refused"
    words = [*SMALL, "wire.push=fp16", "wire.reply=bf16"]
    answers = shared_world("world_calls:train_apart", JOB, str(run), words, ranks=3)
    assert [answer.value for answer in answers] == 3 * ["completed"]
    assert transports(run) == ["", "shared", "messages"]
    log = (run / "logs" / "rank-0.log").read_text()
    assert "on their way: gradients to fp16, weights to bf16" in log
    assert "1 of 2 workers share memory with the server" in log
    assert "worker 1 (rank 2 on " in log
    assert "exchanges messages with the server: is in another container" in log
    assert replay(run).identical
    words = [*SMALL, "transport=shared"]
    answers = shared_world("world_calls:train_apart", JOB, str(refused), words, ranks=3)
    for answer in answers:
        assert "transport: got shared" in answer.value
        assert "worker 1 (rank 2 on " in answer.value
    assert not refused.exists()


def test_a_model_that_writes_its_own_weights_has_a_copy_of_them(
    shared_world: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "renormed.py").write_text(
        "import torch\n"
        "def renormed(width: int = 4, *, input_shape, num_classes):\n"
        "    class Net(torch.nn.Module):\n"
        "        def __init__(self):\n"
        "            super().__init__()\n"
        "            self.table = torch.nn.Embedding(64, width, max_norm=1.0)\n"
        "            self.out = torch.nn.Linear(width, num_classes)\n"
        "        def forward(self, images):\n"
        "            return self.out(self.table(images.flatten(1).argmax(1)))\n"
        "    return Net()\n"
    )
    (tmp_path / "job.yaml").write_text(
        "algorithm: dcasgd-a\nepochs: 1\nbatch_size: 64\nlr: 0.1\n"
        "model: {name: 'renormed:renormed'}\ndata: {name: digits}\n"
    )
    run = tmp_path / "run"
    arguments = (str(tmp_path / "job.yaml"), [(str(run), [])])
    answers = shared_world("world_calls:train", *arguments, ranks=3)
    assert [answer.value for answer in answers] == 3 * [["completed"]]
    assert transports(run) == ["", "shared", "shared"]
    # A small model is replayed at copies of its snapshots, so the run has to have left them alone.
    assert replay(run).identical
    assert "changes its weights itself" in (run / "logs" / "rank-1.log").read_text()

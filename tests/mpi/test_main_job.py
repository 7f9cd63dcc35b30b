"""The main job as users start it: real launches, real digits, real Horovod."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import mpi_dcasgd
from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.trace import read_trace
from mpi_dcasgd.runs.replay import replay

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(300)]

JOB = "jobs/digits.yaml"
WORKERS = 4
ASYNCHRONOUS = ("asgd", "dcasgd-c", "dcasgd-a")

LAUNCHED = {("sgd", WORKERS): None, ("ssgd", WORKERS): WORKERS, ("asgd", 1): 2}
"""What is started by a command, as users do, and the ranks if it needs mpirun for that."""


class Runs:
    """Trains each algorithm once, when a test first asks for it."""

    def __init__(
        self,
        folder: Path,
        run: Callable[..., Any],
        mpirun: Callable[..., Any],
        shared_world: Callable[..., Any],
    ) -> None:
        self._folder = folder
        self._run = run
        self._mpirun = mpirun
        self._shared_world = shared_world

    def __call__(self, algorithm: str, *overrides: str, workers: int = WORKERS) -> Path:
        path = self._folder / "-".join([algorithm, str(workers), *overrides])
        if path.exists():
            return path
        words = [f"algorithm={algorithm}", *overrides]
        if (algorithm, workers) in LAUNCHED and not overrides:
            train = ["-m", "mpi_dcasgd", "train", JOB, *words, "--run-dir", str(path)]
            if size := LAUNCHED[algorithm, workers]:
                finished = self._mpirun(size, *train, timeout=120)
            else:
                finished = self._run([sys.executable, *train], timeout=120)
            assert finished.status == 0, finished
        elif algorithm == "sgd":
            assert mpi_dcasgd.train(JOB, run_dir=path, words=words).status == "completed"
        else:
            ranks = workers + (algorithm != "ssgd")
            runs = [(str(path), words)]
            answers = self._shared_world("world_calls:train", JOB, runs, ranks=ranks)
            assert [answer.value for answer in answers] == ranks * [["completed"]]
        return path

    def summary(self, *args: str, **kwargs: int) -> dict[str, Any]:
        result: dict[str, Any] = json.loads((self(*args, **kwargs) / "summary.json").read_text())
        return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def runs(
    folder: Path, processes: Any, mpirun: Callable[..., Any], shared_world: Callable[..., Any]
) -> Runs:
    return Runs(folder, processes.run, mpirun, shared_world)


EVERY = [
    "sgd",
    pytest.param("ssgd", marks=pytest.mark.horovod),
    "asgd",
    "dcasgd-c",
    "dcasgd-a",
]


@pytest.mark.parametrize("algorithm", EVERY)
def test_digits_are_learnt(runs: Runs, algorithm: str) -> None:
    summary = runs.summary(algorithm)
    assert summary["status"] == "completed"
    assert summary["test_error"] <= 0.04
    assert summary["algorithm"] == algorithm
    assert summary["num_workers"] == (1 if algorithm == "sgd" else WORKERS)
    assert summary["world_size"] == {"sgd": 1, "ssgd": WORKERS}.get(algorithm, WORKERS + 1)
    assert summary["samples"] == summary["epochs"] * 1437
    assert summary["nonfinite"] == summary["dropped"] == 0


@pytest.mark.parametrize("algorithm", EVERY)
def test_a_run_folder_holds_what_a_report_and_a_user_need(runs: Runs, algorithm: str) -> None:
    path = runs(algorithm)
    events = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    evaluated = [event["epoch"] for event in events if event["event"] == "evaluation"]
    summary = runs.summary(algorithm)
    assert evaluated == list(range(1, summary["epochs"] + 1))
    workers = [event for event in events if event["event"] == "worker"]
    assert [event["worker"] for event in workers] == list(range(summary["num_workers"]))
    assert sum(event["samples"] for event in workers) == summary["samples"]
    saved = torch.load(path / "weights.pt", weights_only=True)
    assert saved["version"] == summary["updates"]
    assert all(torch.isfinite(value).all() for value in saved["state_dict"].values())
    environment = json.loads((path / "environment.json").read_text())
    assert len(environment["ranks"]) == summary["world_size"]
    trace = read_trace(path / "trace.bin", strict=True)
    assert trace.updates == summary["updates"]
    logs = sorted(file.name for file in (path / "logs").iterdir())
    assert logs == [f"rank-{rank}.log" for rank in range(summary["world_size"])]


def test_two_sequential_runs_with_one_seed_are_the_same(runs: Runs, tmp_path: Path) -> None:
    again = mpi_dcasgd.train(JOB, run_dir=tmp_path / "again", algorithm="sgd").summary
    assert again["weights_sha256"] == runs.summary("sgd")["weights_sha256"]
    other = runs.summary("sgd", "seed=1", "epochs=1")
    assert other["weights_sha256"] != runs.summary("sgd", "epochs=1")["weights_sha256"]


def test_asgd_with_one_worker_gives_the_sequential_weights_bit_for_bit(runs: Runs) -> None:
    assert (
        runs.summary("asgd", workers=1)["weights_sha256"] == runs.summary("sgd")["weights_sha256"]
    )


@pytest.mark.parametrize("algorithm", ASYNCHRONOUS)
def test_four_equal_workers_see_a_staleness_of_about_three(runs: Runs, algorithm: str) -> None:
    # (W - 1) * T minus the ages still in flight at the end, over T: exact, and just below W - 1.
    assert runs.summary(algorithm)["staleness_mean"] == pytest.approx(3, abs=0.1)


@pytest.mark.horovod
def test_synchronous_updates_take_all_workers_minibatches(runs: Runs) -> None:
    sequential, synchronous = runs.summary("sgd"), runs.summary("ssgd")
    assert synchronous["staleness_max"] == 0
    per_epoch = -(-1437 // (WORKERS * synchronous["batch_size"]))
    assert synchronous["updates"] == per_epoch * synchronous["epochs"]
    assert synchronous["samples"] == sequential["samples"]


@pytest.mark.horovod
def test_synchronous_workers_equal_one_with_a_larger_batch(runs: Runs) -> None:
    # The sequential run takes the job's rate; ssgd must not scale it for this comparison.
    group = runs("ssgd", "epochs=3", "sync.lr_scaling=none", "batch_size=16")
    large = runs("sgd", "epochs=3", "batch_size=64")
    ours, theirs = (
        torch.load(path / "weights.pt", weights_only=True)["state_dict"] for path in (group, large)
    )
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.horovod
def test_horovod_and_torch_distributed_give_the_same_weights_to_rounding(runs: Runs) -> None:
    words = ("epochs=3", "sync.lr_scaling=none", "batch_size=16")
    one, other = (
        torch.load(runs("ssgd", *words, *backend) / "weights.pt")
        for backend in ((), ("sync.backend=ddp",))
    )
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(other["state_dict"][name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(("sync.compression=fp16",), marks=pytest.mark.horovod),
        ("sync.backend=ddp", "sync.compression=bf16", "sync.accumulate=2"),
    ],
)
def test_compressed_gradients_learn_too(runs: Runs, overrides: tuple[str, ...]) -> None:
    assert runs.summary("ssgd", *overrides)["test_error"] <= 0.04


@pytest.mark.parametrize("algorithm", ASYNCHRONOUS)
def test_a_real_run_is_replayed_identically(runs: Runs, algorithm: str) -> None:
    found = replay(runs(algorithm))
    assert found.identical, found
    assert "identical: " in str(found)


def test_a_record_that_is_not_whole_is_not_called_identical(runs: Runs, tmp_path: Path) -> None:
    copy = shutil.copytree(runs("asgd"), tmp_path / "copy")
    whole = (copy / "trace.bin").read_bytes()
    (copy / "trace.bin").write_bytes(whole[: len(whole) // 2])
    found = replay(copy)
    assert (found.verdict, found.identical, bool(found)) == ("cut", False, False)
    assert "CUT: every gradient is the same as far as the trace goes" in str(found)
    (copy / "summary.json").write_text('{"status": "compl')
    with pytest.raises(RunFolderError, match=r"summary\.json: cannot be read"):
        replay(copy)


def test_a_run_with_batchnorm_and_augmentation_is_replayed_identically(runs: Runs) -> None:
    path = runs(
        "dcasgd-a",
        "model.name=cnn",
        "model.batchnorm=true",
        "model.dropout=0.1",
        "data.augment=standard",
        "epochs=2",
    )
    found = replay(path)
    assert found.identical, found

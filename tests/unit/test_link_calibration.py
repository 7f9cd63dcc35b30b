"""Bandwidth of links from a run, and ``bench prediction``: the simulator held against runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import command

from mpi_dcasgd.drivers.simulation.cluster import ServerTimes, parse_cluster
from mpi_dcasgd.drivers.simulation.network import Exchange
from mpi_dcasgd.errors import LaunchError, RunFolderError
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.runs.jobs import load_job
from mpi_dcasgd.server.header import HEADER_BYTES
from mpi_dcasgd.tools.bench import prediction
from mpi_dcasgd.tools.bench.prediction import WAYS, Predictions, Trial, as_table, predict, run
from mpi_dcasgd.tools.link_calibration import (
    late_share_of_run,
    linked_cluster_of_run,
    pushes_per_s,
)

JOB = """\
name: linked
algorithm: asgd
batch_size: 16
lr: 0.1
epochs: 2
model: {name: mlp, hidden: [8]}
data: {name: synthetic, num_train: 3200, num_test: 8}
"""
TRIAL = Trial(workers=2, params=10_000, step_s=0.1, steps=30, chunk_mb=0.005)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs")
    (path / "job.yaml").write_text(JOB)
    return path


@pytest.fixture(scope="module")
def linked(folder: Path) -> RunFolder:
    """A run over links of 40 kB/s, whose messages take about half as long as its steps."""
    words = ["workers=3", "delays={model: gamma, mean_s: 0.1, machine_cv: 0}"]
    words += ["network={bytes_per_s: 4.0e4, server_bytes_per_s: 4.0e4}", "server.service_s=0.002"]
    run_dir = str(folder / "linked")
    assert command("simulate", str(folder / "job.yaml"), *words, "--run-dir", run_dir) == 0
    return RunFolder.open(run_dir)


def size_of(folder: RunFolder) -> int:
    return HEADER_BYTES + 4 * sum(p.numel() for p in folder.weights().values())


def test_the_bandwidth_is_found_of_a_link_that_workers_share(linked: RunFolder) -> None:
    found = linked_cluster_of_run(linked, ServerTimes(service_s=0.002), size_of(linked))
    assert found["network"]["bytes_per_s"] == pytest.approx(4e4, rel=0.1)
    assert found["network"]["server_bytes_per_s"] == found["network"]["bytes_per_s"]
    assert (found["workers"], found["server"]) == (3, {"service_s": 0.002})
    half = Exchange(element_bytes=2)
    found = linked_cluster_of_run(linked, ServerTimes(service_s=0.002), size_of(linked), half)
    assert found["network"]["bytes_per_s"] == pytest.approx(2e4, rel=0.1), "half the bytes"


def test_how_equally_a_link_was_shared_is_found(folder: Path) -> None:
    words = ["workers=2", "delays={model: gamma, mean_s: 0.1, machine_cv: 0}", "epochs=2"]
    words += ["network={bytes_per_s: 4.0e4, server_bytes_per_s: 4.0e4, late_share: 0.12}"]
    run_dir = str(folder / "late")
    assert command("simulate", str(folder / "job.yaml"), *words, "--run-dir", run_dir) == 0
    late = RunFolder.open(run_dir)
    cluster = {"network": {"bytes_per_s": 4e4, "server_bytes_per_s": 4e4}, "server": {}}
    size = size_of(late)
    assert late_share_of_run(late, cluster, size) < 0.8
    plain = {**cluster, "network": {"bytes_per_s": 8e4, "server_bytes_per_s": 8e4}}
    assert late_share_of_run(late, plain, size) == 1.0, "a faster link needs no unequal shares"


def test_calibrate_writes_a_cluster_with_the_link(
    linked: RunFolder, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "cluster.yaml"
    assert command("calibrate", "--link", str(linked.path), "-o", str(file)) == 0
    assert "links of 0.3" in capsys.readouterr().out  # Mbit/s
    words = ["workers=6", f"cluster={file}", "--timing-only", "--updates", "50"]
    assert command("simulate", str(folder / "job.yaml"), *words) == 0
    assert command("calibrate", "--link", str(folder / "job.yaml")) == 2
    assert "a link is found from one run" in capsys.readouterr().err


def test_a_run_that_waited_for_no_link_is_refused(folder: Path, linked: RunFolder) -> None:
    with pytest.raises(RunFolderError, match="nothing can be told of a link"):
        linked_cluster_of_run(linked, ServerTimes(service_s=10.0), size_of(linked))


def test_rates_leave_the_first_quarter_out() -> None:
    ends_s = np.concatenate([np.full(5, 100.0), 100.0 + np.arange(1, 16) / 4])
    assert pushes_per_s(ends_s) == pytest.approx(4.0)


def test_each_way_is_a_job_and_an_exchange_that_agree(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(prediction._JOB)
    jobs = {way: load_job(file, words=TRIAL.words(way)) for way in WAYS}
    assert [TRIAL.ranks(way) for way in WAYS] == [2, 3, 3, 3, 4]
    assert {job.transport for job in jobs.values()} == {"messages"}
    steps = [job.data.num_train // job.batch_size for job in jobs.values()]  # type: ignore[attr-defined]
    assert steps == [30, 60, 60, 60, 60]
    assert [job.servers for job in jobs.values()] == [1, 1, 1, 1, 2]
    assert [job.chunk_mb for job in jobs.values()] == [0, 0, 0.005, 0, 0]
    assert [str(jobs[way].wire) for way in ("chunks", "bf16")] == ["float32", "bf16"]
    exchanges = [Exchange(**TRIAL.exchange(way)) for way in WAYS]
    assert exchanges == [
        Exchange(),
        Exchange(),
        Exchange(chunk_bytes=5000),
        Exchange(element_bytes=2),
        Exchange(servers=2),
    ]
    assert all(parse_cluster("", {"exchange": TRIAL.exchange(way)}) for way in WAYS)


CLUSTER = {
    "workers": 2,
    "delays": {"model": "empirical", "steps_s": [[0.1]]},
    "network": {"bytes_per_s": 1e6, "server_bytes_per_s": 1e6, "late_share": 0.5},
}


def test_what_is_predicted_is_faster_with_less_on_the_link() -> None:
    rates = {way: predict(TRIAL, way, CLUSTER, 100_000) for way in WAYS}
    # A step of 0.1 s, and two messages of 0.1 s; of the other worker's in between.
    assert 2 / 0.5 < rates["messages"] < 2 / 0.3
    assert all(rates[way] > rates["messages"] for way in ("chunks", "bf16", "servers"))
    assert rates["alone"] == pytest.approx(1 / 0.3, rel=0.01)
    assert rates["servers"] == pytest.approx(2 / 0.3, rel=0.01), "a link of each for both"


def test_every_way_is_run_and_predicted_in_turns(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran: list[tuple[int, str]] = []

    def finish(ranks: int, program: Sequence[str]) -> None:
        run_dir = Path(program[-1])
        ran.append((ranks, run_dir.name))
        words = [word for word in program[5:-2] if not word.startswith(("inject", "transport"))]
        workers = 1 if "alone" in run_dir.name else 2
        job = ["simulate", program[4], *words, "transport=auto", f"workers={workers}"]
        job += ["delays=constant", "delays.mean_s=0.1", "--run-dir", str(run_dir)]
        assert command(*job) == 0

    trial = Trial(2, 100, 0.1, 8, 0.0005)
    starter: Any = type("Starter", (), {"finish": staticmethod(finish)})
    found = prediction.measure(trial, 1, starter, lambda alone, together: (CLUSTER, 100_000))
    ranks = {"alone": 2, "messages": 3, "chunks": 3, "bf16": 3, "servers": 4}
    assert ran == [(count, f"0-{way}") for way, count in ranks.items()]
    assert found.measured["messages"] == pytest.approx([20.0], rel=0.2)
    assert json.loads(json.dumps(found.entries()))[2]["way"] == "chunks"
    with pytest.raises(LaunchError, match="the run bf16 of the benchmark ended without a result"):
        run(trial, "bf16", tmp_path / "none", lambda ranks, program: None)


def test_ratios_are_taken_within_a_round() -> None:
    measured = {way: [2.0, 4.0] for way in WAYS}
    predicted = {**measured, "bf16": [1.0, 8.0]}
    network = [{"bytes_per_s": 25e6, "late_share": share} for share in (0.25, 0.75)]
    found = Predictions(TRIAL, measured, predicted, network)
    entry = found.entries()[3]
    assert (entry["over_measured_min"], entry["over_measured_max"]) == (0.5, 2.0)
    shown = as_table(found)
    assert "links of 200 Mbit/s (200 to 200), late_share 0.5 (0.25 to 0.75)" in shown
    assert "| in 16 bits (bf16) | 3 | 4.5 | 1.25 (0.50 to 2.00) |" in shown
    assert "| in one piece | 3 | 3 | 1.00 (1.00 to 1.00) fitted |" in shown

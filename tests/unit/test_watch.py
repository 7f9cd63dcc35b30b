"""Watching runs from another shell, and the warnings that a run gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic_runs import synthetic_run

from mpi_dcasgd import simulate
from mpi_dcasgd.cli import main
from mpi_dcasgd.cli.watch import lines_of
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.steps import Load
from mpi_dcasgd.record.warnings import Warnings
from mpi_dcasgd.runs.watch import Watched, watch
from mpi_dcasgd.tools.run_status import RunStatus

JOB = {
    "algorithm": "asgd",
    "epochs": 2,
    "batch_size": 4,
    "lr": 0.01,
    "data": {"name": "synthetic", "num_train": 400, "num_test": 20, "shape": [4]},
    "model": {"name": "mlp", "hidden": (4,)},
}


def append(folder: Path, *events: dict[str, object]) -> None:
    with RunFolder(folder).metrics_jsonl.open("a") as file:
        file.write("".join(json.dumps(event) + "\n" for event in events))


def test_a_finished_run_is_shown_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = synthetic_run(tmp_path)
    assert main(["watch", str(folder)]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert "[########################] 100 %  done  epoch 5.0/5  test error" in line


def test_a_failed_run_says_why_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = synthetic_run(tmp_path, status="failed")
    assert main(["watch", str(folder)]) == 1
    assert "  rank 2 on c7: out of memory" in capsys.readouterr().out.splitlines()


def test_a_study_has_a_line_for_each_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic_run(tmp_path, "asgd")
    synthetic_run(tmp_path, "ssgd")
    assert main(["watch", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("-")[1] for line in lines if "100 %" in line] == ["asgd", "ssgd"]


def test_it_follows_a_run_and_ends_with_it(tmp_path: Path) -> None:
    folder = synthetic_run(tmp_path, status=None)  # its file is fresh: somebody is at it
    progress = {"event": "progress", "time_s": 1, "samples": 2_000, "samples_per_s": 1_000.0}
    append(folder, progress | {"epoch": 4.0, "server_load": 0.5})
    looks = watch(folder, every_s=1e-3)
    (run,) = next(looks)
    assert run.status.state == "running"
    assert run.eta_s == 3.0
    assert "server 50 % busy" in lines_of(run, detailed=True)[0]
    append(folder, {"event": "warning", "time_s": 2, "kind": "k", "text": "worker 1 lags"})
    with RunFolder(folder).metrics_jsonl.open("a") as file:
        file.write('{"event": "progress", "samp')  # half a line, as a file server may show it
    (run,) = next(looks)
    assert run.warnings[-1] == "worker 1 lags"
    assert run.progress["samples"] == 2_000
    with RunFolder(folder).metrics_jsonl.open("a") as file:
        file.write('les": 3000}\n')
    (run,) = next(looks)
    assert run.progress["samples"] == 3_000
    RunFolder(folder).write_summary({"status": "completed"})
    (run,) = next(looks)
    assert run.done == 1.0
    assert next(looks, None) is None


def test_each_worker_has_its_numbers() -> None:
    progress = {"worker_pushes": [45, 0], "worker_step_s": [0.0203, None]}
    run = Watched(RunStatus("a", "running", epoch=1.0), epochs=4, progress=progress)
    head, workers = lines_of(run, detailed=True)
    assert head == "a  [######..................]  25 %  running  epoch 1.0/4"
    assert workers == "  pushes of worker 0: 45 of 20.3 ms   1: none"
    assert lines_of(run, detailed=False) == [head]


def test_seconds_between_looks_are_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["watch", str(tmp_path), "--every", "0"]) == 2
    assert "--every 0: give seconds above 0" in capsys.readouterr().err


def test_a_saturated_server_and_a_slow_worker_are_told_as_they_happen(tmp_path: Path) -> None:
    run = simulate(
        JOB,
        workers=8,
        cluster={"delays": {"model": "constant"}, "slow": {7: 4}, "server": {"service_s": 0.4}},
        run_dir=tmp_path / "run",
    )
    told = [event for event in run.metrics() if event["event"] == "warning"]
    assert [event["kind"] for event in told] == ["server saturated", "worker 7 lags"]
    assert "about 3.5 workers are of use, and there are 8" in told[0]["text"]
    assert "worker 7 lags: 4e+03 ms a step, 4.0 times the usual 1e+03 ms" in told[1]["text"]
    loads = [event["server_load"] for event in run.metrics() if event["event"] == "progress"]
    assert max(loads) == 1.0


def test_equal_workers_and_an_idle_server_are_no_news() -> None:
    warnings = Warnings()
    assert not warnings.of_load(Load(0.1, (20, 21, 19), (1.0, 1.0, 1.1)), 1.0)
    # A busy server is no obstacle to workers that it is quick enough for.
    assert not warnings.of_load(Load(0.95, (20, 20), (1.0, 1.0)), 1.0)


def test_a_silent_worker_is_told_once() -> None:
    warnings = Warnings()
    # Few pushes prove nothing; together they do.
    assert not warnings.of_load(Load(0.1, (5, 0, 4), (0.2, 0.0, 0.3)), 1.0)
    warnings = Warnings(warnings.state_dict())
    (told,) = warnings.of_load(Load(0.1, (15, 0, 15), (0.8, 0.0, 0.8)), 1.0)
    assert told.text == "worker 1 has pushed nothing while others pushed 20"
    assert not warnings.of_load(Load(0.1, (20, 0, 19), (1.0, 0.0, 1.1)), 1.0)
    assert not Warnings(warnings.state_dict()).of_load(Load(0.1, (20, 0, 19), (1.0, 0.0, 1.1)), 1.0)


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        ([2.3, 2.3, 2.3], False),
        ([2.3, 2.2, 2.3, 2.31], True),
        ([2.3, 1.0, 0.5, 0.5, 0.5], False),
        ([-1.0, -2.0, -3.0, -4.0], False),
        ([-4.0, -3.0, -2.0, -1.0], True),
        ([float("nan")] * 5, False),
    ],
)
def test_a_loss_that_does_not_fall_is_told(losses: list[float], told: bool) -> None:
    assert bool(Warnings().of_losses(losses)) is told

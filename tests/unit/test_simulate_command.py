"""simulate and calibrate, from the command line to the files."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from mpi_dcasgd.cli import main
from mpi_dcasgd.drivers.conductor import Conductor
from mpi_dcasgd.drivers.simulation.cluster import Network, ServerTimes
from mpi_dcasgd.drivers.simulation.delays import Constant, Gamma
from mpi_dcasgd.errors import ConfigError, RunFolderError
from mpi_dcasgd.record.checkpoints import checkpoints_in
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.trace import read_trace
from mpi_dcasgd.runs import virtual
from mpi_dcasgd.runs.simulate import simulate as simulate_run
from mpi_dcasgd.runs.simulation import resolve_simulation, split_overrides
from mpi_dcasgd.runs.train import train
from mpi_dcasgd.server.header import HEADER_BYTES
from mpi_dcasgd.tools import calibration
from mpi_dcasgd.tools.calibration import cluster_of_run, delays_of_run

pytestmark = pytest.mark.usefixtures("every_checkpoint")

GOLDEN = Path(__file__).parents[1] / "golden" / "states"

JOB = """
algorithm: dcasgd-a
epochs: 2
batch_size: 16
lr: 0.1
model: {name: mlp, hidden: [8]}
data: {name: synthetic, num_train: 200, num_test: 40, shape: [6], num_classes: 3}
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(JOB)
    return path


def simulate(job: Path, run_dir: Path, *words: str) -> dict[str, Any]:
    assert main(["simulate", str(job), "--run-dir", str(run_dir), *words]) == 0
    summary: dict[str, Any] = json.loads((run_dir / "summary.json").read_text())
    return summary


def test_words_are_the_simulations_or_the_jobs() -> None:
    mine, theirs = split_overrides(["workers=4", "lr=0.1", "network.latency_s=1", "seed=3"])
    assert mine == ["workers=4", "network.latency_s=1"]
    assert theirs == ["lr=0.1", "seed=3"]


def test_a_cluster_is_put_together_from_words() -> None:
    simulation = resolve_simulation(
        ["workers=4", "delays=gamma", "delays.mean_s=0.5", "slow={2: 4}", "network.latency_s=1e-3"]
    )
    assert simulation.workers == 4
    assert simulation.cluster.delays == Gamma(mean_s=0.5)
    assert simulation.cluster.slow == {2: 4.0}
    assert simulation.cluster.network == Network(latency_s=1e-3)


def test_words_go_before_the_cluster_file(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("workers: 3\ndelays: gamma\nnetwork: {latency_s: 5e-6, bytes_per_s: 1e9}\n")
    simulation = resolve_simulation(["delays=constant", f"cluster={file}", "network.latency_s=1"])
    assert simulation.workers == 3
    assert simulation.cluster.delays == Constant()
    assert simulation.cluster.network == Network(latency_s=1.0, bytes_per_s=1e9)
    assert resolve_simulation([f"cluster={file}", "workers=8"]).workers == 8


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_simulation(["delays=gama", "delay_seed=x"])
    text = str(caught.value)
    for part in ("workers: missing", "did you mean gamma", "delay_seed: got 'x'"):
        assert part in text


def test_a_simulated_run_leaves_an_ordinary_run_folder(job: Path, tmp_path: Path) -> None:
    summary = simulate(job, tmp_path / "run", "workers=4", "delays=gamma", "slow={1: 3}")
    assert summary["status"] == "completed"
    assert summary["driver"] == "simulator"
    assert (summary["num_workers"], summary["world_size"]) == (4, 5)
    assert summary["updates"] == 26
    assert 0 <= summary["test_error"] <= 1
    trace = read_trace(tmp_path / "run" / "trace.bin", strict=True)
    assert len(trace) == 26
    assert trace.time_us[-1] / 1e6 == pytest.approx(summary["wall_s"], abs=1e-4)
    saved = torch.load(tmp_path / "run" / "weights.pt", weights_only=True)
    assert saved["version"] == 26
    cluster = yaml.safe_load((tmp_path / "run" / "cluster.yaml").read_text())
    assert cluster["workers"] == 4


def test_a_run_says_what_its_momentum_does_to_the_margin_of_stability(
    job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("algorithm=stable-asgd", "rule.momentum=heavy-ball", "workers=2", "epochs=1")
    simulate(job, tmp_path / "run", *words)
    assert "with HeavyBall 0.9 far less of it is left" in capsys.readouterr().out


def test_the_same_words_give_the_same_weights_and_trace(job: Path, tmp_path: Path) -> None:
    words = ["workers=3", "delays=pareto", "crashes={every_s: 8, repair_s: 1}"]
    first = simulate(job, tmp_path / "a", *words)
    again = simulate(job, tmp_path / "b", *words)
    other = simulate(job, tmp_path / "c", *words, "delay_seed=9")
    assert first["weights_sha256"] == again["weights_sha256"] != other["weights_sha256"]
    traces = [(tmp_path / name / "trace.bin").read_bytes() for name in "ab"]
    assert traces[0] == traces[1]


def test_one_worker_without_delays_is_sequential_training(job: Path, tmp_path: Path) -> None:
    delays = "delays={model: constant, mean_s: 0}"
    alone = simulate(job, tmp_path / "sim", "workers=1", delays, "algorithm=asgd")
    train = [sys.executable, "-m", "mpi_dcasgd", "train", str(job), "algorithm=sgd"]
    subprocess.run([*train, "--run-dir", str(tmp_path / "seq")], check=True, capture_output=True)
    summary = json.loads((tmp_path / "seq" / "summary.json").read_text())
    assert alone["weights_sha256"] == summary["weights_sha256"]


def test_ssgd_is_simulated_with_backup_workers(job: Path, tmp_path: Path) -> None:
    words = ["algorithm=ssgd", "workers=3", "slow={0: 5}"]
    plain = simulate(job, tmp_path / "plain", *words)
    backed = simulate(job, tmp_path / "backed", *words, "backup=1")
    assert plain["updates"] == 10, "an epoch of 13 minibatches ends with a step of one"
    assert backed["updates"] == 9
    assert plain["wall_s"] == pytest.approx(50.0, abs=5)
    assert backed["wall_s"] < 20.0
    stored = yaml.safe_load((tmp_path / "backed" / "job.yaml").read_text())
    assert stored["sync"]["backup"] == 1, "what reports tell such runs from others by"


def test_ssgd_is_simulated_with_several_minibatches_to_an_update(job: Path, tmp_path: Path) -> None:
    words = ["algorithm=ssgd", "workers=3", "delays=constant"]
    summary = simulate(job, tmp_path / "run", *words, "sync.accumulate=2")
    assert summary["updates"] == 6, "13 minibatches an epoch, six a step"
    assert summary["wall_s"] == pytest.approx(2 * (2 + 2 + 1))


def test_a_real_run_has_no_backup_workers(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "-n", "3", str(job), "algorithm=ssgd", "sync.backup=1"]) == 2
    assert "sync.backup: got 1; an allreduce waits for every rank" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["algorithm=asgd"], ["algorithm=ssgd", "backup=1"]])
def test_a_run_goes_on_from_its_checkpoint_as_if_nothing_had_been(
    job: Path, tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*words, "workers=2", "delays=exponential", "epochs=6", "--checkpoint-every", "1"]
    whole = simulate(job, tmp_path / "whole", *words)
    monkeypatch.setattr(virtual, "_SLICE", 1)
    _interrupt(monkeypatch, after=17)
    assert main(["simulate", str(job), "--run-dir", str(tmp_path / "cut"), *words]) == 143
    cut = json.loads((tmp_path / "cut" / "summary.json").read_text())
    assert cut["status"] == "interrupted"
    assert cut["updates"] == 17
    monkeypatch.undo()
    resumed = simulate(job, tmp_path / "cut", *words, "--resume")
    timing = {"startup_s"}
    assert {k: v for k, v in resumed.items() if k not in timing} == {
        k: v for k, v in whole.items() if k not in timing
    }
    traces = [(tmp_path / name / "trace.bin").read_bytes() for name in ("whole", "cut")]
    assert traces[0] == traces[1]


def _interrupt(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    counted = iter(range(1, 1000))
    original = Conductor.told

    def told(self: Conductor, record: Any) -> None:
        original(self, record)
        if next(counted) == after:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Conductor, "told", told)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda saved: saved.pop("layout"), "is not a checkpoint of a run"),
        (lambda saved: saved.update(layout=0), "a checkpoint of layout 0, but this version"),
        (None, "cannot be read as a checkpoint"),
    ],
)
def test_a_checkpoint_that_cannot_be_understood_is_refused(
    job: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, Any]], Any] | None,
    told: str,
) -> None:
    simulate(job, tmp_path / "run", "workers=2", "--checkpoint-every", "1")
    path = checkpoints_in(tmp_path / "run" / "checkpoints")[0]
    if change:
        saved = torch.load(path, weights_only=True)
        change(saved)
        torch.save(saved, path)
    else:
        path.write_bytes(path.read_bytes()[:1000])
    words = ["--run-dir", str(tmp_path / "run"), "--resume", str(path), "--overwrite"]
    assert main(["simulate", str(job), "workers=2", *words]) == 2
    message = capsys.readouterr().err
    assert f"{path}: {told}" in message
    assert "start over with --resume never" in message
    assert "Traceback" not in message


def test_another_simulations_checkpoint_is_refused(
    job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    simulate(job, tmp_path / "run", "workers=2", "--checkpoint-every", "1")
    words = ["--run-dir", str(tmp_path / "run"), "--resume"]
    assert main(["simulate", str(job), "workers=2", "lr=0.2", *words]) == 2
    assert "is of another job (lr differ); resume with the job" in capsys.readouterr().err
    assert main(["simulate", str(job), "workers=3", "slow={2: 3}", *words]) == 2
    assert "is of another simulation (cluster.slow.2, workers differ)" in capsys.readouterr().err
    assert main(["train", str(job), "algorithm=sgd", *words[:2]]) == 2
    assert "is of another job (algorithm" in capsys.readouterr().err


def test_a_simulated_run_is_not_gone_on_with_as_a_real_one(job: Path, tmp_path: Path) -> None:
    words = ["algorithm=sgd", "delays={model: constant, mean_s: 0}"]
    simulate(job, tmp_path / "run", "workers=1", *words, "--checkpoint-every", "1")
    with pytest.raises(RunFolderError, match="is of a simulated run, which this is not"):
        train(job, run_dir=tmp_path / "run", algorithm="sgd")
    train(job, run_dir=tmp_path / "real", algorithm="sgd", **{"checkpoint.every": 1})
    with pytest.raises(RunFolderError, match="is of a real run, which this is not"):
        simulate_run(job, run_dir=tmp_path / "real", algorithm="sgd", workers=1)


def test_a_checkpoint_of_an_earlier_version_lacks_keys_and_is_gone_on_with(
    job: Path, tmp_path: Path
) -> None:
    simulate(job, tmp_path / "run", "workers=2", "--checkpoint-every", "1")
    path = checkpoints_in(tmp_path / "run" / "checkpoints")[0]
    saved = torch.load(path, weights_only=True)
    del saved["job"]["capture"], saved["job"]["sync"]["backup"]
    torch.save(saved, path)
    words = ["--run-dir", str(tmp_path / "run"), "--resume", str(path), "--overwrite"]
    assert main(["simulate", str(job), "workers=2", *words]) == 0


@pytest.mark.parametrize("algorithm", ["asgd", "ssgd"])
def test_a_simulation_that_version_0_1_began_is_gone_on_with(
    job: Path, tmp_path: Path, algorithm: str
) -> None:
    """Its whole state lay in one file, and its records are told once more from the start."""
    words = [f"algorithm={algorithm}", "workers=2", "delays=exponential", "epochs=6"]
    words += ["fuse=blocks", *(["backup=1"] if algorithm == "ssgd" else [])]
    whole = simulate(job, tmp_path / "whole", *words)
    folder = tmp_path / "cut" / "checkpoints"
    folder.mkdir(parents=True)
    shutil.copy(GOLDEN / f"simulator-{algorithm}.pt", folder / "simulator.pt")
    resumed = simulate(job, tmp_path / "cut", *words)
    events = RunFolder(tmp_path / "cut").metrics()
    assert any("resumed after" in e["text"] for e in events if e["event"] == "message")
    for key in ("updates", "samples", "staleness_histogram", "restarts", "best_epoch"):
        assert resumed[key] == whole[key]
    traces = [RunFolder(tmp_path / name).trace(strict=True) for name in ("whole", "cut")]
    order = [[(r.worker, r.ticket, r.staleness) for r in trace.records()] for trace in traces]
    assert order[0] == order[1]
    weights = [RunFolder(tmp_path / name).weights() for name in ("whole", "cut")]
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], atol=1e-5), "another machine wrote it"
    with pytest.raises(RunFolderError, match=r"is of another simulation \(workers differ\)"):
        simulate_run(job, workers=3, words=words[2:], resume=folder.parent, algorithm=algorithm)


def test_an_old_checkpoint_does_not_outlive_another_run(job: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    shutil.copy(GOLDEN / "simulator-asgd.pt", folder / "simulator.pt")
    simulate(job, tmp_path / "run", "workers=2", "--resume", "never")
    assert not (folder / "simulator.pt").exists()


@pytest.mark.parametrize("bare", [["--resume"], ["--resume", "auto"], []])
def test_a_simulation_resumes_by_the_words_of_train(
    job: Path, tmp_path: Path, bare: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a flag it may stand before a job and before an override, as in version 0.1."""
    run = ["--run-dir", str(tmp_path / "run")]
    _interrupt(monkeypatch, after=17)
    assert main(["simulate", *run, str(job), "workers=2", "epochs=6"]) == 143
    monkeypatch.undo()
    assert main(["simulate", *run, *bare, str(job), "workers=2", "epochs=6"]) == 0
    events = [e["event"] for e in RunFolder(tmp_path / "run").metrics()]
    assert events.count("resume") == 1
    again = ["simulate", *run, "--overwrite", *bare, str(job), "workers=2", "epochs=6"]
    assert main(again) == 0, "begins anew"
    assert "resume" not in [e["event"] for e in RunFolder(tmp_path / "run").metrics()]


def test_a_flag_before_an_override_is_a_flag(job: Path, tmp_path: Path) -> None:
    words = ["simulate", str(job), "--run-dir", str(tmp_path / "run"), "--resume", "workers=2"]
    assert main(words) == 0


def test_resuming_needs_a_run(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", str(job), "workers=2", "--resume"]) == 2
    assert "--resume: name the run to resume with --run-dir" in capsys.readouterr().err


def test_checkpoint_every_is_the_jobs(job: Path, tmp_path: Path) -> None:
    words = ["workers=2", "--checkpoint-every", "1"]
    simulate(job, tmp_path / "option", *words)
    simulate(job, tmp_path / "key", "workers=2", "checkpoint.every=1")
    names = [
        [path.name for path in checkpoints_in(tmp_path / name / "checkpoints")]
        for name in ("option", "key")
    ]
    assert names[0] == names[1] != []


def test_virtual_seconds_do_not_make_checkpoints_due(job: Path, tmp_path: Path) -> None:
    """Those of ``checkpoint.every_s`` are of a person who waits."""
    words = ["workers=2", "delays={model: constant, mean_s: 1000}", "checkpoint.every_s=900"]
    simulate(job, tmp_path / "run", *words)
    assert not checkpoints_in(tmp_path / "run" / "checkpoints")


def test_what_would_be_ignored_is_refused(
    job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", str(job), "workers=2", "--updates", "100"]) == 2
    assert "--updates: only with --timing-only" in capsys.readouterr().err
    assert main(["replay", str(tmp_path), "--run-dir", str(tmp_path / "out")]) == 2
    assert "--run-dir: only with key=value words" in capsys.readouterr().err


def test_nobody_is_told_to_wait_for_virtual_seconds(
    job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    simulate(job, tmp_path / "run", "workers=2")
    told = capsys.readouterr()
    assert "epoch 2.0/2" in told.out + told.err
    assert "eta" not in told.out + told.err


def test_start_up_figures_are_called_so(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["simulate", str(job), "workers=1000", "--timing-only"]
    assert main(words) == 0
    assert "Start-up figures (26 updates, 1000 workers)" in capsys.readouterr().out
    assert main([*words, "--updates", "100000"]) == 0
    assert "Start-up figures" not in capsys.readouterr().out


def test_timing_only_prints_json(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["workers=50", "delays=gamma", "server.service_s=0.1", "--timing-only", "--json"]
    assert main(["simulate", str(job), *words, "--updates", "3000"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["updates"] == 3000
    assert found["updates_per_s"] == pytest.approx(10.0, rel=0.02)
    assert found["staleness_mean"] == pytest.approx(49, abs=0.5)


def test_timing_only_agrees_with_the_run(job: Path, tmp_path: Path, capsys: Any) -> None:
    words = ["workers=4", "delays=gamma", "network={latency_s: 0.1, bytes_per_s: 1e4}"]
    summary = simulate(job, tmp_path / "run", *words)
    capsys.readouterr()
    assert main(["simulate", str(job), *words, "--timing-only", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["time_s"] == pytest.approx(summary["wall_s"], abs=1e-5)
    assert found["staleness"] == summary["staleness_histogram"]


def test_timing_only_makes_the_updates_of_a_rule_that_collects(
    job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["workers=4", "algorithm=rennala", "--timing-only", "--json"]
    assert main(["simulate", str(job), *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["updates"] == 7, "26 minibatches, four a step"
    assert found["dropped"] > 0, "who is served before the step computes at the old weights"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["delays=gamma"], "workers: missing"),
        (["workers=2", "algorithm=sgd"], "sgd is one process"),
        (["workers=2", "backup=1"], "sync.backup: got 1 (a whole number), which has no effect: "),
        (["workers=2", "slow={5: 2}"], "there is no worker 5"),
        (["workers=2", "cluster=none.yaml"], "none.yaml: 1 problem\n  no such file"),
        (["workers=2", "delays.mean_s=x"], "delays"),
    ],
)
def test_mistakes_are_one_message_and_status_two(
    job: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", str(job), "--timing-only", *words]) == 2
    assert message in capsys.readouterr().err


# ---- calibration ----


@pytest.fixture
def known(job: Path, tmp_path: Path) -> RunFolder:
    """A run on a cluster that is known exactly: what calibration must find."""
    words = ["workers=2", "delays={model: gamma, mean_s: 0.1, machine_cv: 0}", "epochs=40"]
    simulate(job, tmp_path / "known", *words, "slow={1: 2}", "network.latency_s=0.02")
    return RunFolder.open(tmp_path / "known")


def test_calibration_finds_the_cluster_that_a_run_ran_on(known: RunFolder) -> None:
    settings = cluster_of_run(known, ServerTimes())
    means = [sum(steps) / len(steps) for steps in settings["delays"]["steps_s"]]
    assert means[0] == pytest.approx(0.1, rel=0.02)
    assert means[1] == pytest.approx(0.2, rel=0.02)
    assert settings["network"]["latency_s"] == pytest.approx(0.02, rel=0.02)


def test_a_service_time_is_not_taken_for_a_message(known: RunFolder) -> None:
    server = ServerTimes(service_s=0.002, bytes_per_s=500_000.0)
    settings = cluster_of_run(known, server, size=1000)
    assert settings["network"]["latency_s"] == pytest.approx(0.018, rel=0.05)
    assert settings["server"] == {"service_s": 0.002, "bytes_per_s": 500_000.0}


def test_several_servers_divide_what_grows_with_the_length_of_a_push(known: RunFolder) -> None:
    server = ServerTimes(service_s=0.002, bytes_per_s=500_000.0)
    settings = cluster_of_run(known, server, size=1000, servers=2)
    # A push of 3 ms in place of 4, and two latencies more until all servers are agreed about it.
    assert settings["network"]["latency_s"] == pytest.approx((0.04 - 0.003) / 4, rel=0.05)


def test_a_push_costs_so_much_whatever_its_length_and_so_much_by_its_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    costs_s = {32: 25e-6, 1_000_000: 1.025e-3, 64: 26e-6}
    monkeypatch.setattr(
        calibration, "measure_push_s", lambda server, pushes: costs_s[server.layout.size]
    )
    short, long, same = (
        SimpleNamespace(layout=SimpleNamespace(size=size)) for size in (32, 1_000_000, 64)
    )
    found = calibration.measure_service(long, short, 5)  # type: ignore[arg-type]
    assert found.service_s == 25e-6
    assert found.push_s(HEADER_BYTES + 4_000_000) == pytest.approx(1.025e-3)
    found = calibration.measure_service(same, short, 5)  # type: ignore[arg-type]
    assert (found.service_s, found.bytes_per_s) == (26e-6, None), "within what a clock can tell"
    both = [
        {"delays": {"steps_s": []}, "network": {"latency_s": 0.0}, "server": server}
        for server in ({"service_s": 1.0, "bytes_per_s": 4.0}, {"service_s": 3.0})
    ]
    assert calibration.merged(both)["server"] == {"service_s": 2.0, "bytes_per_s": 8.0}


def test_a_calibrated_cluster_predicts_the_run(
    known: RunFolder, job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cluster.yaml"
    assert main(["calibrate", str(known.path), "-o", str(out)]) == 0
    capsys.readouterr()
    words = [f"cluster={out}", "epochs=40", "--timing-only", "--json"]
    assert main(["simulate", str(job), *words]) == 0
    predicted = json.loads(capsys.readouterr().out)
    measured = json.loads(known.summary_json.read_text())
    assert predicted["time_s"] == pytest.approx(measured["wall_s"], rel=0.03)
    assert predicted["staleness_mean"] == pytest.approx(measured["staleness_mean"], rel=0.03)


def test_delays_can_be_drawn_from_a_run(known: RunFolder) -> None:
    simulation = resolve_simulation(["workers=4", f"delays={known.path}"])
    assert simulation.settings["delays"] == delays_of_run(known)
    assert simulation.cluster.delays.mean_s == pytest.approx(0.15, rel=0.02)


def test_a_run_without_asynchronous_workers_cannot_be_calibrated_from(
    job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    simulate(job, tmp_path / "sync", "workers=2", "algorithm=ssgd")
    assert main(["calibrate", str(tmp_path / "sync")]) == 2
    assert "ssgd, a simulator run; only the records of asynchronous" in capsys.readouterr().err


def test_a_run_that_did_not_end_cannot_be_calibrated_from(known: RunFolder) -> None:
    lines = known.metrics_jsonl.read_text().splitlines()
    known.metrics_jsonl.write_text("\n".join(line for line in lines if '"worker"' not in line))
    with pytest.raises(RunFolderError, match="take a run that came to its end"):
        delays_of_run(known)


@pytest.mark.mpi
def test_this_machine_can_be_measured(
    job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "machine.yaml"
    assert main(["calibrate", str(job), "-o", str(out)]) == 0
    settings = yaml.safe_load(out.read_text())
    assert settings["delays"]["steps_s"][0][0] > 0
    assert 0 < settings["network"]["latency_s"] < 1
    assert 0 < settings["server"]["service_s"] < 1
    assert settings["server"].get("bytes_per_s", 1e9) > 1e6
    assert resolve_simulation([f"cluster={out}", "workers=2"]).workers == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["algorithm=sgd", "workers=4"], "workers: sgd is one process"),
        (
            ["algorithm=asgd", "workers=3", "backup=1"],
            "sync.backup: got 1 (a whole number), which has no effect: ",
        ),
        (["algorithm=ssgd", "workers=3", "backup=-1"], "sync.backup: got -1"),
    ],
)
def test_what_cannot_be_simulated_is_refused(
    job: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["simulate", str(job), *words]) == 2
    assert said in capsys.readouterr().err

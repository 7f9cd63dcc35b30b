"""Looking closer at runs: gaps, compensations and steps, measured while they are computed again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mpi_dcasgd import Run, closeup, simulate
from mpi_dcasgd.cli import main
from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.trace_writer import TraceWriter
from mpi_dcasgd.rules.algorithms import resolve_rule
from mpi_dcasgd.rules.chain import Chain
from mpi_dcasgd.rules.correction import correction_norm
from mpi_dcasgd.rules.part import Facts
from mpi_dcasgd.rules.stretch import Stretch
from mpi_dcasgd.server.records import Action

JOB: dict[str, Any] = {
    "algorithm": "asgd",
    "epochs": 2,
    "batch_size": 1,
    "lr": 0.02,
    "task": {"name": "quadratic", "dimension": 1, "noise": 0.0, "samples": 20},
}
SYNTHETIC = {
    "algorithm": "asgd",
    "epochs": 1,
    "batch_size": 5,
    "lr": 0.1,
    "data": {"name": "synthetic", "num_train": 200, "num_test": 10, "shape": [4]},
    "model": {"name": "mlp", "hidden": (4,)},
}


def simulated(folder: Path, job: dict[str, Any] = JOB, **changes: Any) -> Path:
    return simulate(job, workers=3, delays="gamma", run_dir=folder / "run", **changes).path


@pytest.mark.parametrize("adaptive", ["", "global", "per_worker"])
@pytest.mark.parametrize("stretches", [(), (Stretch(0, 16, lr=0.1), Stretch(16, 48))])
def test_the_correction_is_measured_as_the_paper_writes_it(
    adaptive: str, stretches: tuple[Stretch, ...]
) -> None:
    settings = {"decay": 0.5, "mean_square": adaptive} if adaptive else {}
    name = "dcasgd-a" if adaptive else "dcasgd-c"
    changes = {"compensation": {"dc_lambda": 3.0, **settings}, "weight_decay": {"rate": 0.1}}
    rule = resolve_rule(name, changes)
    rng = torch.Generator().manual_seed(1)
    params, grad, snapshot = (torch.randn(48, generator=rng) for _ in range(3))
    chain = Chain(rule, params, 2, fuse="plain", stretches=stretches)
    facts = Facts(0.1, 0.1, 1, 5, 1, 2, 1.0)
    for _ in range(2):  # the second time with a mean square that remembers
        state = chain.state_dict().get("compensation.mean_square")
        strength = torch.tensor(3.0)
        if state is not None:
            strength = 3.0 / (0.5 * state[-1] + 0.5 * grad * grad + 1e-7).sqrt()
        expected = (strength * grad * grad * (params - snapshot)).norm()
        kept = [vector.clone() for vectors in chain.state_dict().values() for vector in vectors]
        found = correction_norm(chain, params, grad, snapshot, facts)
        assert found == pytest.approx(float(expected), rel=1e-5)
        now = [vector for vectors in chain.state_dict().values() for vector in vectors]
        assert all(map(torch.equal, kept, now))
        chain.apply(params, grad, snapshot, facts)


def test_gaps_are_the_steps_in_between(tmp_path: Path) -> None:
    path = simulated(tmp_path)
    seen = closeup(path, every=1).closeup
    assert seen.meta["identical"]
    assert len(seen) == len(Run(path).trace()) == 40
    # One number, that only ever falls: how far it went is the sum of its steps.
    for version, staleness, gap in zip(seen.version, seen.staleness, seen.gap, strict=True):
        between = seen.step_norm[version - staleness : version].sum()
        assert gap == pytest.approx(between, rel=1e-3, abs=1e-6)
    assert seen.staleness.max() >= 2
    np.testing.assert_allclose(seen.effective_lr, 0.02, rtol=1e-3)
    assert np.isnan(seen.compensation_share).all()
    assert seen.epoch[-1] == 2.0


def test_pushes_in_between_change_nothing(tmp_path: Path) -> None:
    path = simulated(tmp_path, algorithm="dcasgd-c")
    all_of_them, some = closeup(path, every=1).closeup, closeup(path, every=7).closeup
    assert some.push.tolist() == [0, 7, 14, 21, 28, 35]
    assert some.rows() == all_of_them.rows()[::7]
    np.testing.assert_array_equal(some.compensation_norm > 0, some.staleness > 0)


@pytest.mark.parametrize("algorithm", ["rennala", "ringmaster", "dana", "ssp"])
def test_every_kind_of_admission_is_computed_again(tmp_path: Path, algorithm: str) -> None:
    path = simulated(tmp_path, SYNTHETIC, algorithm=algorithm, slow={2: 8})
    seen = closeup(path, every=1).closeup
    assert seen.meta["identical"]
    actions = {Action(number) for number in seen.action.tolist()}
    assert Action.HELD in actions or algorithm != "rennala"
    assert Action.DROPPED in actions or algorithm != "ringmaster"
    stepped = seen.action == Action.APPLIED
    assert (seen.step_norm[stepped] > 0).all()
    assert (seen.step_norm[~stepped] == 0).all()
    dropped = seen.action == Action.DROPPED  # the simulator does not compute them
    assert np.isnan(seen.grad_norm[dropped]).all()
    assert (seen.grad_norm[~dropped] > 0).all()


def rewritten(path: Path, *, pushes: int | None = None, other: int | None = None) -> None:
    """Cut a trace, or give one of its gradients another fingerprint."""
    trace = Run(path).trace()
    writer = TraceWriter(RunFolder(path).trace_bin, trace.meta)
    for number, r in enumerate(list(trace.records())[:pushes]):
        mark = r.mark ^ 1 if number == other else r.mark
        writer.add(r.worker, r.ticket, r.staleness, r.action, r.time_s, mark)
    writer.close()


def test_gradients_that_are_not_the_runs_are_told_and_looked_at_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = simulated(tmp_path)
    rewritten(path, other=9)
    assert main(["closeup", str(path), "--every", "3"]) == 0
    out = capsys.readouterr().out
    assert "3 workers, 40 pushes; looking at every 3rd" in out
    assert "computed again not bit for bit" in out
    assert "from push 9 on gradients are not the run's bit for bit" in out
    assert Run(path).closeup().meta["first_other"] == 9


def test_what_was_found_is_read_back_and_belongs_to_its_trace(tmp_path: Path) -> None:
    path = simulated(tmp_path, algorithm="dcasgd-c")
    with pytest.raises(RunFolderError, match=r"`mpi-dcasgd closeup .*` makes it"):
        Run(path).closeup()
    found = closeup(path).closeup
    assert Run(path).closeup().rows() == found.rows()
    assert Run(path).closeup().meta == found.meta
    file = RunFolder(path).closeup_jsonl
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b'"gap": 0.0,', b'"gap": 9.0,', 1))
    with pytest.raises(RunFolderError, match="damaged: its bytes do not match their digest"):
        Run(path).closeup()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunFolderError, match="damaged"):
        Run(path).closeup()
    file.write_bytes(whole)
    rewritten(path, pushes=30)
    with pytest.raises(RunFolderError, match="pushes that the run has not kept"):
        Run(path).closeup()


def test_a_new_run_in_the_folder_leaves_no_look_at_the_old_one(tmp_path: Path) -> None:
    path = simulated(tmp_path)
    file = closeup(path).path
    assert file.is_file()
    simulated(tmp_path, overwrite=True)
    assert not file.exists()


@pytest.mark.parametrize("algorithm", ["ssgd", "sgd"])
def test_runs_without_staleness_are_refused(
    tmp_path: Path, algorithm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = simulate(
        JOB, workers=2 if algorithm == "ssgd" else 1, algorithm=algorithm, run_dir=tmp_path / "run"
    )
    assert main(["closeup", str(run.path)]) == 2
    assert f"a run of {algorithm}, none of whose gradients is stale" in capsys.readouterr().err


def test_runs_without_a_trace_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = simulated(tmp_path)
    RunFolder(path).trace_bin.unlink()
    assert main(["closeup", str(path)]) == 2
    assert "has no trace.bin" in capsys.readouterr().err


def test_not_a_number_stands_for_what_there_is_not(tmp_path: Path) -> None:
    seen = closeup(simulated(tmp_path), every=1).closeup
    assert all(math.isnan(row["compensation_norm"]) for row in seen.rows())
    assert '"compensation_norm": null' in RunFolder(tmp_path / "run").closeup_jsonl.read_text()

"""The Python API: what it takes, what it returns, and what it leaves as it was."""

from __future__ import annotations

import doctest
import importlib
import io
import logging
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from disguise import disguise

import mpi_dcasgd
from mpi_dcasgd.config.load import job_as_yaml
from mpi_dcasgd.drivers.conductor import Conductor
from mpi_dcasgd.errors import ConfigError, NonFiniteError
from mpi_dcasgd.learning.learner import Learner
from mpi_dcasgd.record.checkpoints import checkpoints_in
from mpi_dcasgd.record.metrics import EVENTS
from mpi_dcasgd.runs import virtual
from mpi_dcasgd.runs.rank_failure import abort

JOB: dict[str, Any] = {
    "name": "tiny",
    "algorithm": "sgd",
    "epochs": 2,
    "batch_size": 16,
    "lr": 0.1,
    "model": {"name": "mlp", "hidden": (8,)},
    "data": {
        "name": "synthetic",
        "num_train": 200,
        "num_test": 40,
        "shape": [6],
        "num_classes": 3,
    },
}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def state_of_the_process() -> dict[str, Any]:
    """All that is the caller's."""
    root = logging.getLogger()
    return {
        "handlers": [signal.getsignal(number) for number in SIGNALS],
        "threads": torch.get_num_threads(),
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark),
        "torch": torch.get_rng_state().tolist(),
        "numpy": repr(np.random.get_state()),
        "python": random.getstate(),
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "logging": (root.level, list(root.handlers), logging.root.manager.disable),
        "directory": os.getcwd(),
        "environ": dict(os.environ),
        "running": {thread.name for thread in threading.enumerate()},
        "path": list(sys.path),
    }


@pytest.fixture
def unlike_the_job() -> Iterator[None]:
    """Settings of the caller's that no run has."""
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark
    torch.set_num_threads(2)
    cudnn.deterministic, cudnn.benchmark = False, True
    torch.manual_seed(1234)
    yield
    torch.set_num_threads(threads)
    cudnn.deterministic, cudnn.benchmark = flags


@pytest.fixture
def asynchronous(tmp_path: Path) -> Path:
    """A folder that looks like that of a real run: replay takes no simulated one."""
    run = mpi_dcasgd.simulate(JOB, workers=2, run_dir=tmp_path / "real", algorithm="asgd")
    disguise(run.path)
    return run.path


def use(name: str, tmp_path: Path) -> Any:
    """Call one function of the API."""
    if name == "train":
        return mpi_dcasgd.train(JOB, run_dir=tmp_path / "run")
    if name == "simulate":
        return mpi_dcasgd.simulate(JOB, workers=2, run_dir=tmp_path / "run", algorithm="ssgd")
    if name == "replay":
        return mpi_dcasgd.replay(tmp_path / "real")
    if name == "replay with changes":
        return mpi_dcasgd.replay(tmp_path / "real", tmp_path / "run", lr=0.2)
    assert name == "simulate_timing"
    return mpi_dcasgd.simulate_timing(JOB, workers=2, algorithm="asgd")


FUNCTIONS = ["train", "simulate", "replay", "replay with changes", "simulate_timing"]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_process_is_left_as_it_was_and_nothing_is_printed(
    function: str,
    asynchronous: Path,
    tmp_path: Path,
    unlike_the_job: None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = state_of_the_process()
    use(function, tmp_path)
    assert state_of_the_process() == before
    assert tuple(capfd.readouterr()) == ("", "")


@pytest.mark.parametrize("function", FUNCTIONS[:4])
def test_the_process_is_left_as_it_was_by_a_failure_too(
    function: str,
    asynchronous: Path,
    tmp_path: Path,
    unlike_the_job: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    counted, gradient = iter(range(100)), Learner.gradient

    def failing(self: Learner, batch: Any) -> Any:
        if next(counted) < 5:  # warming up is not training
            return gradient(self, batch)
        torch.rand(1)
        raise OSError("a lightning struck")

    monkeypatch.setattr(Learner, "gradient", failing)
    before = state_of_the_process()
    with pytest.raises(OSError, match="a lightning struck"):
        use(function, tmp_path)
    assert state_of_the_process() == before
    assert tuple(capfd.readouterr()) == ("", "")
    if function != "replay":
        run = mpi_dcasgd.Run(tmp_path / "run")
        assert (run.status, run.summary["reason"]) == ("failed", "OSError: a lightning struck")
        assert "a lightning struck" in (run.path / "logs" / "rank-0.log").read_text()


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    program = """
import sys, mpi_dcasgd
assert set(mpi_dcasgd.__all__) <= set(dir(mpi_dcasgd))
found = {"torch", "numpy", "pydantic", "yaml", "mpi4py"} & set(sys.modules)
assert not found, found
from mpi_dcasgd import train
assert "torch" in sys.modules and "mpi4py" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", mpi_dcasgd.__all__)
def test_every_name_is_there_and_is_described(name: str) -> None:
    found = getattr(mpi_dcasgd, name)
    if name not in ("STARTED", "__version__"):
        assert found.__doc__
        assert not isinstance(found, type(mpi_dcasgd)), "a module of that name hides it"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = mpi_dcasgd.trian  # type: ignore[attr-defined]


def test_the_packages_modules_do_not_hide_its_functions() -> None:
    import mpi_dcasgd.reporting.write
    import mpi_dcasgd.runs.replay

    assert mpi_dcasgd.report.__module__ == "mpi_dcasgd.runs.report"
    assert mpi_dcasgd.replay.__module__ == "mpi_dcasgd.runs.replay"


# --- jobs -----------------------------------------------------------------------------------


def test_a_job_may_be_a_file_a_mapping_or_a_job(tmp_path: Path) -> None:
    from_mapping = mpi_dcasgd.load_job(JOB)
    file = tmp_path / "tiny.yaml"
    file.write_text(
        "{name: tiny, algorithm: sgd, epochs: 2, batch_size: 16, lr: 0.1, model: {name: mlp, "
        "hidden: [8]}, data: {name: synthetic, num_train: 200, num_test: 40, shape: [6], "
        "num_classes: 3}}"
    )
    assert mpi_dcasgd.load_job(file) == mpi_dcasgd.load_job(str(file)) == from_mapping
    assert mpi_dcasgd.load_job(from_mapping) is from_mapping
    with pytest.raises(ConfigError, match="got None; allowed: a Job, a path or a mapping"):
        mpi_dcasgd.load_job(None)  # type: ignore[arg-type]
    assert mpi_dcasgd.load_job(job_as_yaml(from_mapping)) == from_mapping
    assert JOB["model"]["hidden"] == (8,), "it was not changed"


def test_changes_are_keywords_and_words_and_keywords_go_first() -> None:
    job = mpi_dcasgd.load_job(
        JOB,
        algorithm="dcasgd-c",
        words=["lr=0.3", "rule.compensation.dc_lambda=3", "seed=5"],
        lr=np.float64(0.2),
        **{"rule.compensation.dc_lambda": np.float32(0.5), "data.num_train": np.int64(100)},
    )
    assert (job.lr, job.seed, job.data.num_train) == (0.2, 5, 100)
    assert job.rule.compensation.dc_lambda == 0.5  # type: ignore[attr-defined]
    changed = mpi_dcasgd.load_job(job, algorithm="asgd", words=["lr=1"])
    assert (changed.lr, changed.seed) == (1.0, 5)
    # Nothing is left in it that YAML or a checkpoint could not hold.
    assert type(job_as_yaml(job)["lr"]) is float
    assert type(job_as_yaml(job)["data"]["num_train"]) is int


def test_all_problems_are_told_at_once_wherever_they_come_from() -> None:
    with pytest.raises(mpi_dcasgd.ConfigError) as told:
        mpi_dcasgd.load_job(JOB, words=["epochs=no", "what"], lr=-1, **{"model.nme": 3})
    text = str(told.value)
    for part in ("'what': not an override", "epochs: got 'no'", "lr: ", "model.nme: "):
        assert part in text
    assert text.startswith("job with overrides: 4 problems")


@pytest.mark.parametrize("call", [mpi_dcasgd.train, mpi_dcasgd.simulate])
def test_a_wrong_job_is_an_exception_of_the_package(call: Callable[..., Any]) -> None:
    with pytest.raises(mpi_dcasgd.UserError, match="lr: got -1"):
        call(JOB, lr=-1, **({"workers": 2} if call is mpi_dcasgd.simulate else {}))


# --- runs -----------------------------------------------------------------------------------


def test_a_run_is_read_from_its_folder(tmp_path: Path) -> None:
    run = mpi_dcasgd.train(JOB, run_dir=str(tmp_path / "run"), lr=0.2)
    assert run.path == tmp_path / "run"
    assert (run.status, run.stopped_by) == ("completed", None)
    assert run.summary["updates"] == len(run.trace()) == 26
    assert set(EVENTS) > {row["event"] for row in run.metrics()} > {"start", "evaluation", "end"}
    with pytest.raises(ConfigError, match=r"event: got 'evaluatoin'; .* did you mean evaluation"):
        run.metrics("evaluatoin")
    assert [row["epoch"] for row in run.metrics("evaluation")] == [1, 2]
    assert run.job == mpi_dcasgd.load_job(JOB, lr=0.2)
    assert set(run.weights()) == {"1.weight", "1.bias", "3.weight", "3.bias"}
    assert mpi_dcasgd.Run(run.path).summary == run.summary
    assert repr(run) == f"Run({str(run.path)!r})"


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(mpi_dcasgd.RunFolderError, match="no such run folder"):
        mpi_dcasgd.Run(tmp_path / "nowhere")


def test_a_run_that_was_killed_is_unfinished(tmp_path: Path) -> None:
    run = mpi_dcasgd.train(JOB, run_dir=tmp_path / "run")
    (run.path / "summary.json").unlink()
    assert (run.status, run.summary) == ("unfinished", {})


def test_progress_goes_to_a_stream_that_is_given(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stream = io.StringIO()
    mpi_dcasgd.train(JOB, run_dir=tmp_path / "run", show=stream)
    assert "after 2 of 2 epochs" in stream.getvalue()
    assert tuple(capfd.readouterr()) == ("", "")


def test_start_up_is_timed_from_the_call(tmp_path: Path) -> None:
    """Not from the import of the package, which a notebook did an hour ago."""
    run = mpi_dcasgd.train(JOB, run_dir=tmp_path / "run")
    again = mpi_dcasgd.train(JOB, run_dir=tmp_path / "again", started=mpi_dcasgd.STARTED)
    assert run.summary["startup_s"] < again.summary["startup_s"]


def test_a_communicator_of_one_process_is_no_world(tmp_path: Path) -> None:
    class One:
        rank, size = 0, 1

        def Idup(self) -> Any:  # noqa: N802  # MPI's name
            return self, SimpleNamespace(Test=lambda: True)

        def iprobe(self, source: int, tag: int) -> bool:
            return True

        def recv(self, source: int, tag: int) -> None:
            """Say, as the other rank, that it may have a job that it could train."""

        def isend(self, said: Any, dest: int, tag: int) -> Any:
            return SimpleNamespace(Test=lambda: True)

    run = mpi_dcasgd.train(JOB, One(), tmp_path / "run")  # type: ignore[arg-type]
    assert run.status == "completed"
    One.size = 2
    with pytest.raises(mpi_dcasgd.LaunchError, match="algorithm sgd is one process, but got"):
        mpi_dcasgd.train(JOB, One(), tmp_path / "other")  # type: ignore[arg-type]


def interrupt(monkeypatch: pytest.MonkeyPatch, after: int, how: Callable[[], None]) -> None:
    counted = iter(range(1, 1000))
    original = Conductor.told

    def told(self: Conductor, record: Any) -> None:
        original(self, record)
        if next(counted) == after:
            how()

    monkeypatch.setattr(Conductor, "told", told)
    monkeypatch.setattr(virtual, "_SLICE", 1)


@pytest.mark.parametrize("function", ["train", "simulate", "replay with changes"])
def test_a_signal_interrupts_and_the_same_call_resumes(
    function: str, asynchronous: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = use(function, tmp_path)
    whole.path.rename(tmp_path / "whole")
    before = [signal.getsignal(number) for number in SIGNALS]
    interrupt(monkeypatch, 5, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        use(function, tmp_path)
    cut = mpi_dcasgd.Run(tmp_path / "run")
    assert cut.status == "interrupted"
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert checkpoints_in(cut.path / "checkpoints")
    monkeypatch.undo()
    resumed = use(function, tmp_path)
    assert resumed.status == "completed"
    whole = mpi_dcasgd.Run(tmp_path / "whole")
    assert resumed.summary["weights_sha256"] == whole.summary["weights_sha256"]
    times = [[row["time_s"] for row in run.metrics("evaluation")] for run in (whole, resumed)]
    if function != "train":
        assert resumed.summary["restarts"] == 0, "virtual workers have not been interrupted"
        assert times[0] == times[1]
        assert resumed.metrics("progress") == whole.metrics("progress")
        assert (resumed.path / "trace.bin").read_bytes() == (whole.path / "trace.bin").read_bytes()


def test_another_order_does_not_go_on(
    asynchronous: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, 5, lambda: signal.raise_signal(signal.SIGUSR1))
    assert use("replay with changes", tmp_path).stopped_by == signal.SIGUSR1
    monkeypatch.undo()
    other = mpi_dcasgd.simulate(
        JOB, workers=2, delay_seed=3, run_dir=tmp_path / "other", algorithm="asgd", delays="gamma"
    )
    disguise(other.path)
    with pytest.raises(mpi_dcasgd.RunFolderError, match=r"another simulation \(order differ\)"):
        mpi_dcasgd.replay(other, tmp_path / "run", lr=0.2)


def test_a_flag_of_the_callers_stops_a_run_and_no_handler_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, seen = mpi_dcasgd.StopFlag(), []

    def set_it() -> None:
        seen.append([signal.getsignal(number) for number in SIGNALS])
        stop.set()

    before = [signal.getsignal(number) for number in SIGNALS]
    interrupt(monkeypatch, 5, set_it)
    run = mpi_dcasgd.train(JOB, run_dir=tmp_path / "run", stop=stop)
    assert (run.status, run.stopped_by) == ("interrupted", None)
    assert run.summary["reason"] == "stopped on request"
    assert seen == [before]


def test_runs_go_in_other_threads_too(tmp_path: Path) -> None:
    """Where Python allows no signal handlers."""
    found: list[Any] = []

    def work() -> None:
        try:
            found.append(mpi_dcasgd.train(JOB, run_dir=tmp_path / "run"))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0].status == "completed", found


def test_a_second_run_is_the_same_as_the_first_and_leaves_nothing_behind(tmp_path: Path) -> None:
    shas, open_files = set(), []
    for number in range(4):
        run = mpi_dcasgd.train(JOB, run_dir=tmp_path / f"run-{number}")
        shas.add(run.summary["weights_sha256"])
        open_files.append(len(os.listdir("/proc/self/fd")))
    assert len(shas) == 1
    assert open_files[1] == open_files[-1]


# --- replay ---------------------------------------------------------------------------------


def test_a_replay_says_that_a_run_is_identical(asynchronous: Path) -> None:
    found = mpi_dcasgd.replay(asynchronous)
    assert (found.verdict, found.identical, found.difference) == ("identical", True, None)
    assert (found.pushes, found.updates) == (26, 26)
    assert found.weights_sha256 == found.recorded_sha256
    assert str(found).startswith("identical: 26 pushes, 26 updates in ")


def test_a_replay_says_that_the_file_of_weights_is_damaged(asynchronous: Path) -> None:
    (asynchronous / "weights.pt").write_bytes(b"garbage")
    found = mpi_dcasgd.replay(asynchronous)
    assert found.identical, "what was computed is"
    assert "\nbut the file is damaged: " in str(found)
    assert "weights.pt" in found.damage


def test_a_run_that_did_not_come_to_its_end_is_identical_as_far_as_it_went(
    asynchronous: Path,
) -> None:
    (asynchronous / "summary.json").unlink()
    (asynchronous / "weights.pt").unlink()
    trace = asynchronous / "trace.bin"
    trace.write_bytes(trace.read_bytes()[:-20])  # as a process that was killed leaves it
    found = mpi_dcasgd.replay(asynchronous)
    assert (found.verdict, found.identical, found.recorded_sha256) == ("identical", True, "")
    assert str(found).startswith("identical as far as the trace goes: ")
    assert str(found).endswith("so there are no final weights to compare")


def test_a_replay_says_where_a_run_differs(asynchronous: Path) -> None:
    file = asynchronous / "job.yaml"
    file.write_text(file.read_text().replace("seed: 0", "seed: 1"))
    found = mpi_dcasgd.replay(mpi_dcasgd.Run(asynchronous))
    assert found.verdict == "different"
    assert found.difference is not None
    assert found.difference.number == 0
    assert str(found).startswith("DIFFERENT from push 0: the gradient's fingerprint was ")


def test_a_replay_with_changes_is_a_run_of_its_own(asynchronous: Path, tmp_path: Path) -> None:
    run = mpi_dcasgd.replay(asynchronous, tmp_path / "other", algorithm="dcasgd-a")
    real = mpi_dcasgd.Run(asynchronous)
    assert run.summary["driver"] == "replay"
    assert run.job.algorithm == "dcasgd-a"
    assert run.summary["wall_s"] == pytest.approx(real.summary["wall_s"], abs=1e-5)
    assert run.summary["weights_sha256"] != real.summary["weights_sha256"]


def test_a_replay_without_changes_writes_nothing(asynchronous: Path, tmp_path: Path) -> None:
    with pytest.raises(mpi_dcasgd.ConfigError, match="run_dir: only with changes of the job"):
        mpi_dcasgd.replay(asynchronous, tmp_path / "other")  # type: ignore[call-overload]


# --- simulate and calibrate -----------------------------------------------------------------


def test_a_cluster_is_given_by_keywords_a_mapping_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("workers: 2\nslow: {1: 3}\n")
    options: dict[str, Any] = {"algorithm": "asgd"}
    runs = [
        mpi_dcasgd.simulate(JOB, run_dir=tmp_path / str(number), **options, **cluster)
        for number, cluster in enumerate(
            [
                {"workers": 2, "slow": {1: 3}},
                {"cluster": {"workers": 2, "slow": {1: np.float64(3)}}},
                {"cluster": file},
                {"words": ["workers=2", "slow={1: 3}"]},
                {"words": ["workers=5"], "workers": 2, "slow": {1: 3}},
            ]
        )
    ]
    assert len({run.summary["weights_sha256"] for run in runs}) == 1
    assert runs[0].summary["wall_s"] > 13


def test_a_run_is_calibrated_from_and_simulated_again(tmp_path: Path) -> None:
    known = mpi_dcasgd.simulate(
        JOB, workers=2, run_dir=tmp_path / "known", algorithm="asgd", slow={1: 2}
    )
    found = mpi_dcasgd.calibrate(known)
    assert str(known.path) in found.source
    again = mpi_dcasgd.calibrate([known.path, str(known.path)])
    assert again.source == f"{known.path}, {known.path}"
    assert again.cluster["network"] == found.cluster["network"]
    found.write(tmp_path / "cluster.yaml")
    timing = mpi_dcasgd.simulate_timing(JOB, cluster=tmp_path / "cluster.yaml", algorithm="asgd")
    assert timing.time_s == pytest.approx(known.summary["wall_s"], rel=0.1)
    with pytest.raises(mpi_dcasgd.ConfigError, match="changes are for a job that is measured"):
        mpi_dcasgd.calibrate(known, lr=0.2)


def test_no_number_of_updates_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"updates: got -5 \(a whole number\); allowed"):
        mpi_dcasgd.simulate_timing(JOB, algorithm="asgd", updates=-5)


def test_what_cannot_be_simulated_is_refused_and_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(mpi_dcasgd.ConfigError, match="workers: missing"):
        mpi_dcasgd.simulate(JOB, run_dir=tmp_path / "run", algorithm="asgd")
    with pytest.raises(mpi_dcasgd.ConfigError, match=r"sync\.backup: got 1 .* no effect"):
        mpi_dcasgd.simulate(JOB, workers=2, run_dir=tmp_path / "run", algorithm="asgd", backup=1)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "name",
    ["mpi_dcasgd", "mpi_dcasgd.errors"]
    + [f"mpi_dcasgd.{name}" for name in ("runs.jobs", "runs.process", "runs.simulate")]
    + [f"mpi_dcasgd.{name}" for name in ("runs.stability", "cli.arguments")],
)
def test_examples_in_docstrings_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried
    assert not failed


@pytest.mark.parametrize(
    ("error", "traced"),
    [
        (mpi_dcasgd.ConfigError("job", ["lr: too large"]), False),
        (NonFiniteError("training diverged"), False),
        (KeyError("a bug"), True),
    ],
)
def test_only_what_may_be_a_bug_ends_a_world_with_a_traceback(
    capsys: pytest.CaptureFixture[str], error: Exception, traced: bool
) -> None:
    comm = SimpleNamespace(rank=1, Abort=lambda status: None)
    with pytest.raises(type(error)):
        abort(comm, error, None)  # type: ignore[arg-type]
    told = capsys.readouterr().err
    assert f": {type(error).__name__}: {error}" in told
    assert (f"{type(error).__name__}: {error}" in told.partition("rank 1 on ")[0]) == traced


@pytest.mark.gpu
def test_a_gpus_generator_is_given_back(tmp_path: Path) -> None:
    torch.cuda.manual_seed_all(7)
    before = [state.tolist() for state in torch.cuda.get_rng_state_all()]
    mpi_dcasgd.train(JOB, run_dir=tmp_path / "run", device="cuda", **{"model.dropout": 0.1})
    assert [state.tolist() for state in torch.cuda.get_rng_state_all()] == before

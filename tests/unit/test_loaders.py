"""Processes that load samples: the same batches, whatever happens to a process, and none left."""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import loaded_tasks
import numpy as np
import psutil
import pytest
import torch

import mpi_dcasgd
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.errors import ConfigError, DataError
from mpi_dcasgd.learning.data.dataset import ResidentSplit
from mpi_dcasgd.learning.loaders import pool, start
from mpi_dcasgd.learning.loaders.lookahead import Lookahead
from mpi_dcasgd.learning.loaders.messages import Request
from mpi_dcasgd.learning.loaders.pool import Loaders
from mpi_dcasgd.learning.loaders.wire import receive, send
from mpi_dcasgd.learning.nest import tensors_of
from mpi_dcasgd.learning.prefetch import Pipeline
from mpi_dcasgd.runs.build import Workshop, start_loaders
from mpi_dcasgd.stop_signals import SIGNALS

pytestmark = pytest.mark.slow  # most start processes with PyTorch

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_left(janitor_at_work: None) -> Iterator[None]:
    """No process that a test starts outlives it, nor any descriptor."""
    before = len(os.listdir("/proc/self/fd")), psutil.Process().children(recursive=True)
    yield
    assert (len(os.listdir("/proc/self/fd")), psutil.Process().children(recursive=True)) == before


def job_of(loaders: int, task: str = "Line", **settings: Any) -> Job:
    job = {
        "algorithm": settings.pop("algorithm", "sgd"),
        "epochs": 2,
        "batch_size": 4,
        "lr": 0.01,
        "task": {"name": f"loaded_tasks:{task}", **settings},
        "data": {"loaders": loaders},
    }
    return mpi_dcasgd.load_job(job)


class Wired(NamedTuple):
    x: Any
    y: Any


def through(message: Any) -> Any:
    mine, theirs = socket.socketpair()
    with mine, theirs:
        send(mine, message)
        return receive(theirs)


def test_nests_are_the_same_on_the_other_side() -> None:
    images = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    nest = {
        "images": images,
        "some": [Wired(torch.tensor(1.5), torch.tensor([True, False])), torch.empty(0, 3)],
        "half": torch.rand(3).bfloat16(),
        "complex": torch.rand(3, dtype=torch.complex64).conj(),
        "part": torch.arange(12).reshape(3, 4)[:, 1:3].T,
        "trained": torch.ones(2, requires_grad=True),
        "sparse": torch.eye(3).to_sparse(),
        "words": ("a", None, 3, np.arange(2)),
    }
    found = through(nest)
    assert found.keys() == nest.keys()
    assert isinstance(found["some"][0], Wired)
    assert found["words"][:3] == ("a", None, 3)
    for mine, theirs in zip(tensors_of(nest), tensors_of(found), strict=True):
        assert theirs.dtype is mine.dtype
        assert theirs.shape == mine.shape
        assert torch.equal(theirs.to_dense(), mine.to_dense())
    assert found["images"].stride() == images.stride(), "the layout decides how kernels round"
    assert not found["trained"].requires_grad
    assert found["images"].data_ptr() % 64 == 0
    assert found["half"].data_ptr() % 64 == 0


def test_what_ends_within_a_message_is_noticed() -> None:
    mine, theirs = socket.socketpair()
    with theirs:
        with mine:
            mine.sendall(b"only a part")
        with pytest.raises(EOFError):
            receive(theirs)


def test_what_cannot_be_pickled_sends_nothing() -> None:
    mine, theirs = socket.socketpair()
    with mine, theirs:
        with pytest.raises(Exception, match="pickle"):
            send(mine, {"x": torch.ones(3), "y": lambda: 0})
        send(mine, "all is well")
        assert receive(theirs) == "all is well"


def test_a_lookahead_begins_what_is_due_next_and_no_more_than_it_may() -> None:
    begun: list[int] = []

    def begin(ticket: int) -> Callable[[], int]:
        begun.append(ticket)
        return lambda: -ticket

    ahead = Lookahead(begin, at_once=1)
    ahead.expect(range(100, 140))
    assert begun == list(range(100, 116))
    assert ahead.take(101) == -101
    assert begun[16:] == [116], "there is room for one more"
    assert ahead.take(139) == -139, "not begun yet: it is its turn now"
    ahead.expect([100, 139])
    assert begun[17:] == [139], "100 has begun already, and there is no room for 139"


def send_all(loaders: Loaders) -> None:
    for pid in loaders.pids:
        for signum in SIGNALS:
            os.kill(pid, signum)


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Workshop, Loaders]]:
    """Two loaders, and the run that they load for."""
    job = mpi_dcasgd.load_job(job_of(2, fault="print"), **{"data.validation": 0.25})
    with start_loaders(job) as loaders:
        send_all(loaders)  # before they have come to ignore them
        yield Workshop.open(job, CPU, loaders=loaders), loaders


def states() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def values(nest: Any) -> Any:
    return {key: v.tolist() if isinstance(v, torch.Tensor) else v for key, v in nest.items()}


def test_batches_are_the_same_whoever_loads_them(shared: tuple[Workshop, Loaders]) -> None:
    theirs = shared[0]
    mine = Workshop.open(mpi_dcasgd.load_job(theirs.job, **{"data.loaders": 0}), CPU)
    flat = mine.flat_model(CPU)
    here, there = mine.learner(flat), theirs.learner(flat)
    for ticket in range(mine.plan.num_tickets):
        expected = values(here.load(ticket).nest)
        before = states()
        assert values(there.load(ticket).nest) == expected
        assert states() == before, "the rank's generators are left alone"
    indices = np.array([0, 4, 2])
    for split in ("test", "validation"):
        expected = getattr(mine.subject, split).batch(indices, None)
        assert values(getattr(theirs.subject, split).batch(indices, None)) == values(expected)
    assert not here.loads_in_background, "a thread would share the generators"


def test_parts_of_a_batch_draw_from_one_generator(shared: tuple[Workshop, Loaders]) -> None:
    changes = {"compute.accumulate": 3, "data.loaders": 0}
    job = mpi_dcasgd.load_job(shared[0].job, **changes)
    mine = Workshop.open(job, CPU)
    flat = mine.flat_model(CPU)
    there = Workshop(job, shared[0].subject, CPU).learner(flat)
    expected = [(n, values(nest)) for n, nest in mine.learner(flat).load(1).nest]
    assert [(n, values(nest)) for n, nest in there.load(1).nest] == expected
    assert [n for n, _ in expected] == [2, 1, 1]


def test_loaders_ignore_signals_that_are_meant_for_the_rank(
    shared: tuple[Workshop, Loaders],
) -> None:
    workshop, loaders = shared
    for _ in range(2):  # the fixture has sent the first ones
        for number in range(4):
            workshop.subject.train.batch(np.array([number]), np.random.default_rng(0))
        assert len(list(map(psutil.Process, loaders.pids))) == 2
        send_all(loaders)


def test_loaders_share_what_pytorchs_import_has_made(
    shared: tuple[Workshop, Loaders],
) -> None:
    processes = [psutil.Process(pid) for pid in shared[1].pids]
    assert len({each.ppid() for each in processes}) == 1
    for each in processes:
        found = each.memory_full_info()
        assert found.uss < found.rss / 4, "most of it is memory that others have, too"


def opened(job: Job) -> Any:
    """Loaders that are closed by the test, and what they load."""
    loaders = start_loaders(job)
    try:
        return loaders, Workshop.open(job, CPU, loaders=loaders).subject
    except BaseException:
        loaders.close()
        raise


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)  # the kernel has no event for this


def test_batches_are_loaded_before_they_are_waited_for(tmp_path: Path) -> None:
    """The wait for data falls: what was granted is there when its turn comes."""
    seen = tmp_path / "seen"
    seen.mkdir()
    job = job_of(2, place=str(seen))
    with start_loaders(job) as loaders:
        workshop = Workshop.open(job, CPU, loaders=loaders)
        learner = workshop.learner(workshop.flat_model(CPU))
        for file in seen.iterdir():
            file.unlink()
        with Pipeline(learner, background=True) as pipeline:
            pipeline.grant([1, 2, 3])
            asked = {int(i) for ticket in (1, 2, 3) for i in workshop.plan.indices(ticket)}
            until(lambda: {f"loaded-{i}" for i in asked} == set(os.listdir(seen)))
            assert [pipeline.next().ticket for _ in range(3)] == [1, 2, 3]


def test_a_samples_error_is_told_as_without_loaders() -> None:
    told = []
    for loaders in (0, 1):
        job = job_of(loaders, fault="raise")
        processes, subject = opened(job)
        with processes, pytest.raises(DataError) as raised:
            subject.train.batch(np.array([1, 5]), None)
        told.append(str(raised.value))
    assert told[0] == told[1]
    assert told[1].startswith("train sample 5: Points.__getitem__ raised ValueError: a point is")
    assert "loaded_tasks.py, line" in told[1]


def test_a_loader_that_ends_is_told_with_the_samples(tmp_path: Path) -> None:
    job = job_of(1, fault="exit")
    processes, subject = opened(job)
    with processes, pytest.raises(DataError, match=r"ended with status 3 while it was loading 2 t"):
        subject.train.batch(np.array([1, 5]), None)

    job = job_of(2, fault="hang", place=str(tmp_path))
    processes, subject = opened(job)
    with processes:
        wait = subject.train.begin([np.array([5, 6])], None)
        until((tmp_path / "blocked").exists)
        for pid in processes.pids:
            os.kill(pid, signal.SIGKILL)
        expected = (
            r"was killed by SIGKILL \(out of memory\?\) while it was loading 2 train samples, 5"
        )
        with pytest.raises(DataError, match=expected):
            wait()
        with pytest.raises(DataError, match="was killed by SIGKILL"):
            subject.test.batch(np.array([0]), None)


def test_a_parent_that_is_killed_is_told_with_what_its_loader_was_doing(tmp_path: Path) -> None:
    processes, subject = opened(job_of(1, fault="hang", place=str(tmp_path)))
    with processes:
        wait = subject.train.begin([np.array([5])], None)
        until((tmp_path / "blocked").exists)
        (pid,) = processes.pids
        parent = psutil.Process(pid).parent()
        parent.kill()
        expected = (
            rf"the loader process {pid} ended with its parent, process {parent.pid}, which was "
            r"killed by SIGKILL \(out of memory\?\) while it was loading train sample 5"
        )
        with pytest.raises(DataError, match=expected):
            wait()


def test_a_loader_that_cannot_be_forked_is_told_as_one_that_cannot_be_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os\ndef fork():\n    raise BlockingIOError(11, 'no more')\nos.fork = fork\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    expected = "data.loaders: a process cannot be started: Resource temporarily unavailable$"
    with pytest.raises(DataError, match=expected):
        opened(job_of(2))


def test_a_parent_that_fails_before_it_forks_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(
        DataError, match=r"the loaders' parent, process \d+, ended with status 1 before"
    ):
        opened(job_of(1))


def test_loaders_end_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    with start_loaders(job_of(2)) as loaders:
        Workshop.open(job_of(2), CPU, loaders=loaders)
    assert capfd.readouterr() == ("", "")


def test_loaders_that_nobody_wants_end_before_they_have_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(start, "_END_S", 60.0)
    with Loaders(2) as processes:
        parent = processes._parent
        assert parent
    # 1: it was still importing; 0: the loaders were there already, and ended by themselves.
    assert parent._process.returncode in (0, 1), "it was told, and not killed"


def test_training_goes_before_an_evaluation() -> None:
    with Loaders(0) as loaders:
        for split in ("test", "train", "validation", "train"):
            loaders.submit(Request(split, [np.array([0])], None))
        order = [loaders._todo.get()[2] for _ in range(4)]
    assert [each.split for each in order if each] == ["train", "train", "test", "validation"]


def test_a_loader_that_hangs_in_a_sample_ends_with_the_run(tmp_path: Path) -> None:
    job = job_of(1, fault="hang", place=str(tmp_path))
    processes, subject = opened(job)
    with processes:
        wait = subject.train.begin([np.array([5])], None)
        behind = subject.train.begin([np.array([6])], None)
        until((tmp_path / "blocked").exists)
        hanging = psutil.Process(processes.pids[0])
    assert not hanging.is_running()
    for each in (wait, behind):
        with pytest.raises(BaseException, match=r"^$"):
            each()


def test_a_loader_that_does_not_run_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "_END_S", 0.1)
    with Loaders(1) as processes:
        stopped = psutil.Process(processes.pids[0])
        stopped.suspend()
    assert not stopped.is_running()


def test_a_loader_that_hangs_at_its_start_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pool, "START_S", 0.0)
    job = job_of(1, fault="hang at start", place=str(tmp_path))
    with pytest.raises(DataError, match="has not made the task's data within 0 s after its rank"):
        opened(job)


def test_data_that_differ_from_process_to_process_are_refused() -> None:
    with pytest.raises(DataError, match=r"train data: 24 samples .* but 25 .* in a loader process"):
        opened(job_of(1, fault="more"))


def test_what_only_a_loader_cannot_do_is_told_as_such() -> None:
    expected = (
        r"could not make what its rank could; task: 1 problem\n .*the disk is not mounted here"
    )
    with pytest.raises(DataError, match=expected):
        opened(job_of(1, fault="raise at start"))


def test_what_lies_in_memory_needs_no_loaders(caplog: pytest.LogCaptureFixture) -> None:
    job = job_of(1, "Resident")
    processes, subject = opened(job)
    assert isinstance(subject.train, ResidentSplit)
    assert not processes
    assert "1 process had nothing to load" in caplog.text


def test_a_task_of_the_main_program_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "Line", loaded_tasks.Line, raising=False)
    job = mpi_dcasgd.load_job(job_of(1), task={"name": "__main__:Line"})
    with pytest.raises(ConfigError, match=r"__main__:Line is defined in the program .* loaders: 0"):
        opened(job)


def test_processes_that_cannot_be_started_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptors: list[int]) -> NoReturn:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(start, "_start", refuse)
    with pytest.raises(DataError, match=r"data.loaders: a process cannot be started: .*Resource"):
        opened(job_of(1))


def test_loaders_are_started_before_mpi(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def start(job: Job) -> Loaders:
        order.append("loaders")
        return Loaders(0)

    def world(synchronous: bool) -> NoReturn:
        order.append("MPI")
        raise ConfigError("world", ["enough"])

    monkeypatch.setattr("mpi_dcasgd.runs.train.start_loaders", start)
    monkeypatch.setattr("mpi_dcasgd.runs.train._whole_world", world)
    with pytest.raises(ConfigError, match="enough"):
        mpi_dcasgd.train(job_of(1, algorithm="asgd"))
    assert order == ["loaders", "MPI"]


KILLED = """
import threading

import mpi_dcasgd

def train():
    mpi_dcasgd.train({job!r}, run_dir={place!r})

if {threaded}:
    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
else:
    train()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "threaded"), [("hang", False), ("hang", True), ("hang alone", False)]
)
def test_loaders_end_with_a_rank_that_is_killed(
    processes: Any, tmp_path: Path, fault: str, threaded: bool
) -> None:
    job = {
        "name": "killed",
        "algorithm": "sgd",
        "epochs": 2,
        "batch_size": 4,
        "lr": 0.01,
        "task": {"name": "loaded_tasks:Line", "fault": fault, "place": str(tmp_path)},
        "data": {"loaders": 2},
    }
    source = KILLED.format(threaded=threaded, job=job, place=str(tmp_path / "run"))
    path = os.pathsep.join(sys.path)
    process = processes.start([sys.executable, "-c", source], env={"PYTHONPATH": path})
    processes.wait_until(process, (tmp_path / "blocked").exists)
    assert "a sample prints\n" in processes.output(process), "at once"
    everyone = processes.alive()
    assert len(everyone) == 4, "the rank, and two loaders with their parent"
    process.kill()
    process.wait()
    _, left = psutil.wait_procs([each for each in everyone if each.pid != process.pid], timeout=30)
    assert not left


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "changes"),
    [("asgd", {"workers": 3}), ("ssgd", {"workers": 2}), ("sgd", {})],
)
def test_runs_come_out_the_same(tmp_path: Path, algorithm: str, changes: dict[str, Any]) -> None:
    shas = set()
    for loaders in (0, 2):
        job = mpi_dcasgd.load_job(job_of(loaders, algorithm=algorithm), ahead=2)
        run = mpi_dcasgd.simulate if changes else mpi_dcasgd.train
        found = run(job, run_dir=tmp_path / f"run-{loaders}", **changes)
        assert found.status == "completed"
        shas.add((found.summary["weights_sha256"], found.summary["test_loss"]))
    assert len(shas) == 1

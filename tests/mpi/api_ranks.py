"""What the ranks of tests/mpi/test_api.py do: ``function(comm, folder)``.

As a program, ``api_ranks.py NAME FOLDER`` calls one of them with the whole world.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from mpi4py import MPI

import mpi_dcasgd

JOB: dict[str, Any] = {
    "name": "tiny",
    "epochs": 2,
    "batch_size": 16,
    "lr": 0.1,
    "model": {"name": "mlp", "hidden": [8]},
    "data": {"name": "synthetic", "num_train": 400, "num_test": 40, "num_classes": 3},
}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def held() -> tuple[Any, ...]:
    """What a run could leave behind in this process."""
    gc.collect()
    descriptors = len(os.listdir("/proc/self/fd"))
    threads = sorted(thread.name for thread in threading.enumerate())
    return descriptors, threads, [signal.getsignal(number) for number in SIGNALS]


def again_and_again(world: MPI.Intracomm, folder: str) -> None:
    """Train often in one world, asynchronously and synchronously, with this and that group."""
    half = world.Split(0 if world.rank < 2 else 1, world.rank)
    rounds = []
    for number in range(4):
        for name, algorithm, comm in (
            ("all", "asgd", world),
            ("all", "ssgd", world),
            ("half", ("asgd", "ssgd")[world.rank >= 2], half),
            ("half", ("ssgd", "dcasgd-a")[world.rank >= 2], half),
            ("none", "asgd", None),
        ):
            place = Path(folder) / f"{name}-{algorithm}-{comm.size if comm else 0}-{number}"
            run = mpi_dcasgd.train(JOB, comm, place, algorithm=algorithm)
            assert run.status == "completed", run.summary  # on every rank, at once
            workers = run.summary["world_size"] - run.summary["num_workers"]
            assert workers == (0 if algorithm == "ssgd" else 1)
        rounds.append(held())
    assert rounds[1] == rounds[-1], rounds[1:]
    half.Free()


def beside_messages(world: MPI.Intracomm, folder: str) -> None:
    """A caller's own messages on the communicator, under the tags that the run uses, too."""
    peer = (world.rank + 1) % world.size
    requests = [world.irecv(source=MPI.ANY_SOURCE, tag=MPI.ANY_TAG) for _ in range(8)]
    run = mpi_dcasgd.train(JOB, world, Path(folder) / "run", algorithm="asgd")
    assert run.status == "completed"
    for tag in range(8):
        world.send(("mine", tag), peer, tag)
    assert sorted(request.wait()[1] for request in requests) == list(range(8))


def raised(world: MPI.Intracomm, folder: str) -> None:
    """One rank's exception, raised where the caller wants to look after the others himself."""
    from mpi_dcasgd.learning.learner import Learner

    counted, gradient = iter(range(10**6)), Learner.gradient

    def failing(self: Learner, batch: Any) -> Any:
        if next(counted) < 5:
            return gradient(self, batch)
        raise OSError("a lightning struck")

    before = held()[1:]
    if world.rank == 1:
        Learner.gradient = failing  # type: ignore[method-assign]
        try:
            mpi_dcasgd.train(JOB, world, Path(folder) / "run", algorithm="asgd", on_error="raise")
        except OSError as error:
            print("raised:", error, flush=True)
        assert held()[1:] == before
        world.Abort(7)
    mpi_dcasgd.train(JOB, world, Path(folder) / "run", algorithm="asgd", on_error="raise")


def mistakes(world: MPI.Intracomm, folder: str) -> None:
    """Mistakes are raised on all ranks, and the world goes on."""
    told = []
    for comm, changes in (
        (world, {"lr": -1}),
        (world, {"algorithm": "sgd"}),
        (MPI.COMM_SELF, {"algorithm": "asgd"}),
        (world, {"lr": -1 if world.rank == 1 else 0.1}),
        (world, {"inject": {"slow": {9: 2}}}),
    ):
        try:
            mpi_dcasgd.train(JOB, comm, Path(folder) / f"run-{world.rank}", **changes)
        except mpi_dcasgd.UserError as error:
            told.append(str(error))
    everyone = world.allgather(told)
    assert all(len(each) == 5 for each in everyone), everyone
    if world.rank == 0:
        print("\n".join(told), flush=True)
    # A process of its own in a world of several.
    alone = mpi_dcasgd.train(
        JOB, MPI.COMM_SELF, Path(folder) / f"alone-{world.rank}", algorithm="sgd"
    )
    shas = world.allgather(alone.summary["weights_sha256"])
    assert len(set(shas)) == 1
    run = mpi_dcasgd.train(JOB, world, Path(folder) / "good", algorithm="asgd")
    assert run.status == "completed"


def loading(world: MPI.Intracomm, folder: str) -> None:
    """Train with loaders beside MPI that is running already; nothing of them is left."""
    import psutil

    left = []
    for number, algorithm in enumerate(("asgd", "ssgd", "asgd")):
        job = {
            **JOB,
            "algorithm": algorithm,
            "batch_size": 4,
            "lr": 0.01,
            "task": {"name": "loaded_tasks:Line", "fault": "look", "place": folder},
            "data": {"loaders": 1},
        }
        del job["model"]
        run = mpi_dcasgd.train(job, world, Path(folder) / f"run-{number}")
        assert run.status == "completed"
        assert psutil.Process().children() == []
        left.append(held())
    assert left[1] == left[2]
    if world.rank == 0:
        for loaders in (None, 0):
            run = mpi_dcasgd.Run(Path(folder) / "run-0")
            if loaders is not None:
                file = run.path / "job.yaml"
                file.write_text(file.read_text().replace("loaders: 1", "loaders: 0"))
            found = mpi_dcasgd.replay(run)
            assert found.identical, str(found)


if __name__ == "__main__":
    globals()[sys.argv[1]](MPI.COMM_WORLD, sys.argv[2])

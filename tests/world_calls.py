"""What tests call in the shared world: training as the API and as the command line do it."""

from __future__ import annotations

import runpy
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import in_process
from mpi4py import MPI


def command(comm: MPI.Intracomm, *words: str) -> int:
    """The exit status of a command, given by all ranks of the world as mpirun would start it."""
    assert comm.size == MPI.COMM_WORLD.size
    return in_process.command(*words)


def bench(comm: MPI.Intracomm, spec: dict[str, Any]) -> None:
    """What every rank of ``bench mpi`` does."""
    from mpi_dcasgd.tools.bench import mpi_rank

    assert comm.size == MPI.COMM_WORLD.size
    mpi_rank.main(spec)


def idle(comm: MPI.Intracomm, messages: int) -> list[float]:
    """Its share of the processor, and how late each message was; nothing on the sender."""
    from mpi_dcasgd.tools.bench.idle import measure

    found = measure(comm, messages, (0.0, 0.01))
    return [] if found is None else [found.share, *found.late_s]


def script(comm: MPI.Intracomm, path: str, *words: str) -> None:
    """Execute a program as ``python PATH WORDS`` does, on all ranks of the world."""
    assert comm.size == MPI.COMM_WORLD.size
    before = sys.argv
    sys.argv = [path, *words]
    try:
        runpy.run_path(path, run_name="__main__")
    finally:
        sys.argv = before


def command_without_data(comm: MPI.Intracomm, *words: str) -> int:
    """The exit status of a command, where rank 1 cannot load the data."""
    from mpi_dcasgd.errors import DataError
    from mpi_dcasgd.learning.subject import Subject

    def lacking(*args: Any) -> NoReturn:
        raise DataError("the disk of this node is not mounted")

    genuine = vars(Subject)["open"]
    if comm.rank == 1:
        Subject.open = staticmethod(lacking)  # type: ignore[method-assign]
    try:
        return command(comm, *words)
    finally:
        Subject.open = genuine  # type: ignore[method-assign]


def train(comm: MPI.Intracomm, job: str, runs: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """Train a job once for each run folder, with the overrides that belong to it.

    Returns:
        How each of them ended.
    """
    import mpi_dcasgd

    return [mpi_dcasgd.train(job, comm, path, words=words).status for path, words in runs]


def refused(comm: MPI.Intracomm, job: str, path: str, words: Sequence[str]) -> str:
    """What is said to a user whose job cannot be trained."""
    import mpi_dcasgd
    from mpi_dcasgd.errors import UserError

    try:
        mpi_dcasgd.train(job, comm, path, words=words)
    except UserError as error:
        return str(error)
    return "trained"


def refused_odd(comm: MPI.Intracomm, job: str, path: str, odd: str, words: Sequence[str]) -> str:
    """What is said to a user whose rank 1 is not like the others.

    Args:
        comm: The ranks.
        job: Of all ranks.
        path: The run folder.
        odd: What is odd about rank 1: ``job`` (it has the words), ``version``, ``source`` or
            ``data``.
        words: Changes of the job, of rank 1 alone if that is what is odd.
    """
    import mpi_dcasgd
    from mpi_dcasgd.drivers import handshake
    from mpi_dcasgd.runs import rank as runs_rank

    before = mpi_dcasgd.__version__, handshake.source_digest, runs_rank.facts_of_data
    if comm.rank == 1 and odd == "version":
        mpi_dcasgd.__version__ = "9.9"
    if comm.rank == 1 and odd == "source":
        handshake.source_digest = lambda: "feedbead"  # type: ignore[assignment]
    if comm.rank == 1 and odd == "data":
        runs_rank.facts_of_data = lambda job, workshop: {"training samples": "1436"}  # type: ignore[assignment]
    mine = words if odd != "job" or comm.rank == 1 else []
    try:
        return refused(comm, job, path, mine)
    finally:
        mpi_dcasgd.__version__, handshake.source_digest, runs_rank.facts_of_data = before  # type: ignore[assignment]


def interrupt(
    comm: MPI.Intracomm, job: str, path: str, words: Sequence[str], evaluations: int = 1
) -> tuple[str, int | None]:
    """Train until so many evaluations are recorded; then a signal comes to the rank that records.

    Returns:
        How the run ended, and the signal by which, as this rank has it.
    """
    import mpi_dcasgd
    from mpi_dcasgd.drivers.observer import Evaluation
    from mpi_dcasgd.record.recorder import Recorder

    genuine, seen = Recorder.evaluation, iter(range(1, sys.maxsize))

    def evaluation(self: Any, found: Evaluation) -> None:
        genuine(self, found)
        if next(seen) == evaluations:
            signal.raise_signal(signal.SIGUSR1)

    Recorder.evaluation = evaluation  # type: ignore[method-assign]
    try:
        run = mpi_dcasgd.train(job, comm, path, words=words)
    finally:
        Recorder.evaluation = genuine  # type: ignore[method-assign]
    return run.status, run.stopped_by


def left_after_error(comm: MPI.Intracomm, job: str, path: str) -> tuple[int, int]:
    """Train until the server fails, which the worker takes for a server that hangs.

    Returns:
        The persistent requests of this rank, and how many of them were not given back.
    """
    from mpi4py.MPI import REQUEST_NULL, Intracomm

    import mpi_dcasgd
    from mpi_dcasgd.server.server import ParameterServer

    made: list[Any] = []

    class Noting(Intracomm):
        """A communicator, its duplicates likewise, that notes its persistent requests."""

        def Recv_init(self, *args: Any, **options: Any) -> Any:  # noqa: N802
            made.append(super().Recv_init(*args, **options))
            return made[-1]

        def Send_init(self, *args: Any, **options: Any) -> Any:  # noqa: N802
            made.append(super().Send_init(*args, **options))
            return made[-1]

    genuine, pushes = ParameterServer.push, iter(range(1, sys.maxsize))

    def push(self: ParameterServer, *args: Any) -> Any:
        if next(pushes) == 5:
            raise OSError("a fault of the test")
        return genuine(self, *args)

    ParameterServer.push = push  # type: ignore[method-assign]
    words = ["algorithm=asgd", "faults.patience=0.1"]
    try:
        mpi_dcasgd.train(job, Noting(comm), path, words=words, on_error="raise")
    except (OSError, mpi_dcasgd.DcasgdError):
        return len(made), sum(request != REQUEST_NULL for request in made)
    finally:
        ParameterServer.push = genuine  # type: ignore[method-assign]
    raise AssertionError("the run was to fail")


def walk(comm: MPI.Intracomm, path: str) -> tuple[int, int, int, float] | str:
    """Load a folder of images that one rank walks for all.

    Returns:
        The folders walked by this rank, the images to train and to test with, and the mean pixel
        of a minibatch; or what was wrong.
    """
    import numpy as np

    from mpi_dcasgd.drivers.meeting import Meeting
    from mpi_dcasgd.drivers.startup import share_files
    from mpi_dcasgd.errors import UserError
    from mpi_dcasgd.learning.data import describe, folder, load_dataset

    settings = folder.ImageFolder(path=path, image_size=8, loaders=1)
    walked: list[Path] = []
    genuine = folder.list_images

    def list_images(path: Path) -> folder.Listing:
        walked.append(path)
        return genuine(path)

    folder.list_images = list_images  # type: ignore[assignment]
    try:
        share_files(Meeting(comm), settings)
        num_test = describe(settings).num_test
        train = load_dataset(settings, 0).train
        pixels, _ = train.batch(np.array([3, 0]), None)
        return len(walked), len(train), num_test, float(pixels.mean())
    except UserError as error:
        return str(error)
    finally:
        folder.list_images = genuine  # type: ignore[assignment]


def train_apart(comm: MPI.Intracomm, job: str, path: str, words: Sequence[str]) -> str:
    """How a run ended, or what was wrong with it, whose rank 2 takes itself for a container's."""
    import mpi_dcasgd
    from mpi_dcasgd.drivers.transport.place import Place
    from mpi_dcasgd.errors import UserError

    here = Place.here
    if comm.rank == 2:
        Place.here = classmethod(lambda cls: here()._replace(processes="pid:[1]"))  # type: ignore[method-assign,assignment]
    try:
        return mpi_dcasgd.train(job, comm, path, words=words).status
    except UserError as error:
        return str(error)
    finally:
        Place.here = here  # type: ignore[method-assign]

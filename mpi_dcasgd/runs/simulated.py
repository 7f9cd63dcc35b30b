"""A simulation with gradients on its way into a run folder, and on from a checkpoint."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from mpi_dcasgd.config.load import job_as_yaml, with_defaults
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.config.yaml12 import dump_yaml
from mpi_dcasgd.drivers.conductor import Conductor
from mpi_dcasgd.drivers.evaluator import Evaluator
from mpi_dcasgd.drivers.observer import Evaluation, Fanout, NullObserver, Observer
from mpi_dcasgd.drivers.signals import StopFlag
from mpi_dcasgd.drivers.simulation.asynchronous import Simulator
from mpi_dcasgd.drivers.simulation.synchronous import SynchronousSimulator
from mpi_dcasgd.drivers.world import pick_device
from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.checkpoints import LAYOUT, read_checkpoint
from mpi_dcasgd.record.environment import RankPlace, git_state
from mpi_dcasgd.record.job_changes import changed_keys
from mpi_dcasgd.record.logs import close_logger, rank_logger
from mpi_dcasgd.record.run_folder import RunFolder, atomic_file, write_atomic
from mpi_dcasgd.record.settings import RecordSettings
from mpi_dcasgd.rules.algorithms import ALGORITHMS
from mpi_dcasgd.runs.build import Workshop
from mpi_dcasgd.runs.recording import Recording
from mpi_dcasgd.runs.simulation import Simulation
from mpi_dcasgd.server.records import UpdateRecord, record_of

CHECKPOINT = "simulator.pt"
_EVENTS, _LINES = 200, 20  # progress events and progress lines of a run, about
_SLICE = 32  # pushes between two looks at signals and checkpoints


class SimulatedRun:
    """One simulation.

    Args:
        job: What is trained.
        simulation: Workers and cluster.
        checkpoint_every: Epochs from one checkpoint to the next, or None for none.
    """

    def __init__(self, job: Job, simulation: Simulation, checkpoint_every: int | None) -> None:
        self._job = job
        self._simulation = simulation
        self._every = checkpoint_every
        self._synchronous = ALGORITHMS[job.algorithm].mode == "synchronous"
        self._stop = StopFlag()
        self._history = _History()
        device = pick_device(job.device, 0)
        group = simulation.workers * job.sync.accumulate if self._synchronous else 1
        self._workshop = Workshop.open(job, device, group)
        slots = 1 if self._synchronous else simulation.workers
        self._server = self._workshop.server(slots, device)
        self._made = self._make_simulator(device)

    def go(
        self,
        run_dir: Path | None,
        argv: Sequence[str],
        started: float,
        *,
        overwrite: bool = False,
        resume: bool = False,
    ) -> int:
        """Run to the end, or until a signal asks for a stop.

        Args:
            run_dir: The run folder, or None to have one named after the job.
            argv: The command line, for the record.
            started: ``time.monotonic()`` when the program began.
            overwrite: Replace a finished run.
            resume: Go on from the folder's checkpoint, if it has one.

        Returns:
            The exit status.

        Raises:
            RunFolderError: The checkpoint is another simulation's.
        """
        self._stop.listen()
        saved = self._read(run_dir) if resume and run_dir is not None else None
        recording = Recording(self._job, run_dir, argv, git_state(), overwrite=overwrite)
        logger = rank_logger(recording.folder, 0)
        try:
            settings = {"workers": self._simulation.workers, **self._simulation.settings}
            write_atomic(recording.folder.cluster_yaml, dump_yaml(settings).encode())
            observer = self._observer(recording, logger)
            self._train(recording, observer, saved, started)
        finally:
            close_logger(logger)
        return 128 + self._stop.signum if self._stop.signum else 0

    def _train(self, recording: Recording, observer: Observer, saved: Any, started: float) -> None:
        made, server, workshop = self._made, self._server, self._workshop
        both = Fanout([observer, self._history])
        evaluator = Evaluator(
            workshop.flat_model(workshop.device), workshop.dataset, background=False
        )
        conductor = Conductor(
            server, both, evaluator, self._job.evaluate_every, clock=lambda: made.time_s
        )
        made.told = conductor.after
        conductor.begin(time.monotonic() - started)
        if saved is not None:
            made.load_state_dict(saved["run"])
            conductor.load_state_dict(saved["conductor"])
            self._history.tell_again(saved["history"], both)
            observer.message(f"resumed at {server.samples / server.plan.num_samples:.4g} epochs")
        began = time.monotonic()
        try:
            self._run(recording.folder, conductor)
        except BaseException as error:
            observer.ended("failed", made.time_s, reason=f"{type(error).__name__}: {error}")
            raise
        observer.message(
            f"simulated {made.time_s:.6g} s of {self._simulation.workers} workers in "
            f"{time.monotonic() - began:.1f} s"
        )
        conductor.finish(
            made.accounts(),
            reason="" if made.done else f"stopped by signal {self._stop.signum}",
            closing=lambda: recording.write_weights(workshop, server),
        )

    def _run(self, folder: RunFolder, conductor: Conductor) -> None:
        stride = (self._every or 0) * self._server.plan.num_samples
        written = self._server.samples // stride if stride else 0
        while not self._made.done:
            self._made.run(_SLICE)
            # Nobody has to be told to stop: virtual workers can be left as they are.
            stopped = bool(self._stop) and not self._made.done
            if stride and (stopped or self._server.samples // stride > written):
                written = self._server.samples // stride
                self._write(folder, conductor)
            if stopped:
                return

    def _make_simulator(self, device: torch.device) -> Simulator | SynchronousSimulator:
        simulation, seed = self._simulation, self._simulation.delay_seed
        seed = self._job.seed if seed is None else seed
        task = self._workshop.task(self._workshop.flat_model(device))
        if not self._synchronous:
            return Simulator(self._server, task, simulation.cluster, seed)
        return SynchronousSimulator(
            self._server,
            task,
            simulation.cluster,
            simulation.workers,
            self._job.sync.backup,
            seed,
            accumulate=self._job.sync.accumulate,
        )

    def _observer(self, recording: Recording, logger: Any) -> Observer:
        workers = self._simulation.workers
        device = str(self._workshop.device)
        place = RankPlace(rank=0, role="trainer", host=socket.gethostname(), device=device)
        run_s = expected_s(self._job, self._simulation, self._server.plan.total_samples)
        return recording.recorder(
            "simulator",
            workers,
            [place],
            self._server,
            logger,
            settings=_paced(self._job.record, run_s),
            world_size=workers + (not self._synchronous),
        )

    def _identity(self) -> dict[str, Any]:
        """What must be equal for a checkpoint to be this simulation's."""
        simulation = asdict(self._simulation)
        del simulation["cluster"]
        return {"job": job_as_yaml(self._job), "simulation": str(simulation)}

    def _differs(self, identity: dict[str, Any]) -> str:
        mine = self._identity()
        keys = changed_keys(with_defaults(identity["job"]), mine["job"])
        others = ("workers or cluster",) if identity["simulation"] != mine["simulation"] else ()
        return ", ".join(keys + others)

    def _write(self, folder: RunFolder, conductor: Conductor) -> None:
        folder.checkpoints.mkdir(exist_ok=True)
        content = {
            "layout": LAYOUT,
            "identity": self._identity(),
            "run": self._made.state_dict(),
            "conductor": conductor.state_dict(),
            "history": self._history.state_dict(),
        }
        with atomic_file(folder.checkpoints / CHECKPOINT) as file:
            torch.save(content, file)

    def _read(self, run_dir: Path) -> Any:
        path = RunFolder(run_dir).checkpoints / CHECKPOINT
        if not path.is_file():
            return None
        try:
            saved = read_checkpoint(path)
        except RunFolderError as error:
            raise RunFolderError(f"{error}; or remove it to begin anew") from error
        if differs := self._differs(saved["identity"]):
            raise RunFolderError(
                f"{path}: is of another simulation than this ({differs} differ); give the words "
                "that it was started with, or name another folder"
            )
        return saved


class _History(NullObserver):
    """All that was told so far, so that a resumed run's records are those of the whole run."""

    def __init__(self) -> None:
        self._updates: list[tuple[float, ...]] = []
        self._evaluations: list[tuple[int, dict[str, float]]] = []

    def update(self, record: UpdateRecord, time_s: float) -> None:
        self._updates.append((*record, time_s))

    def evaluation(self, evaluation: Evaluation) -> None:
        self._evaluations.append((len(self._updates), asdict(evaluation)))

    def state_dict(self) -> dict[str, Any]:
        # float64 holds every count below 2^53.
        return {
            "updates": torch.tensor(self._updates, dtype=torch.float64),
            "evaluations": [[place, values] for place, values in self._evaluations],
        }

    def tell_again(self, saved: dict[str, Any], observer: Observer) -> None:
        """Tell an observer, in order, what ``state_dict`` remembered."""
        evaluations = list(saved["evaluations"])
        for number, row in enumerate(saved["updates"].tolist(), start=1):
            *numbers, time_s = row
            observer.update(record_of(numbers), time_s)
            while evaluations and evaluations[0][0] == number:
                observer.evaluation(Evaluation(**evaluations.pop(0)[1]))


def expected_s(job: Job, simulation: Simulation, total_samples: int) -> float:
    """About how many virtual seconds a run will take, from means alone."""
    cluster, workers = simulation.cluster, simulation.workers
    step_s = float(cluster.delays.mean_s) + 2 * cluster.network.latency_s
    each_s = max(step_s / workers, cluster.server.service_s)
    return total_samples / job.batch_size * each_s


def _paced(record: RecordSettings, run_s: float) -> RecordSettings:
    """Records as often as virtual time asks for: it has no relation to a person's patience."""
    least = 1e-9
    return replace(
        record,
        progress="lines" if record.progress == "auto" else record.progress,
        line_every_s=max(run_s / _LINES, least),
        log_every_s=max(run_s / _EVENTS, least),
        trace_flush_s=max(run_s / _EVENTS, least),
    )

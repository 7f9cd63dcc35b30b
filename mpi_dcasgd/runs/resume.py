"""Checkpoints of a run that resumes: their content, and the search for the right one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpi_dcasgd.config.load import job_as_yaml, with_defaults
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.drivers.checkpointing import Checkpointer
from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.checkpoints import CheckpointFiles, checkpoints_in, read_checkpoint
from mpi_dcasgd.record.job_changes import changed_keys
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.runs.old_simulation import is_old, old_checkpoint_in, upgraded
from mpi_dcasgd.wording import counted

if TYPE_CHECKING:
    from mpi_dcasgd.runs.build import Workshop
    from mpi_dcasgd.server.server import ParameterServer

AUTO, NEVER = "auto", "never"

_ELSEWHERE = (
    *("device", "threads", "fuse", "capture", "transport", "servers", "chunk_mb"),
    *("inject", "evaluate_every", "name"),
)
"""Keys that may differ: where and how fast a run takes place, and what it is called."""


@dataclass(frozen=True)
class Checkpoint:
    """State that a run resumes from.

    Attributes:
        path: The file.
        content: Plain values; ``server``, ``conductor`` and ``recorder`` among them.
        passed_over: What is wrong with newer ones that cannot be read.
    """

    path: Path
    content: dict[str, Any]
    passed_over: tuple[str, ...] = ()

    @property
    def folder(self) -> RunFolder:
        """Folder of the run that wrote it."""
        return RunFolder(self.path.parent.parent)

    @property
    def has_records(self) -> bool:
        """True if the run's records are continued, not written once more from the start."""
        return "recorder" in self.content


def make_checkpointer(
    job: Job,
    folder: RunFolder,
    server: ParameterServer,
    workshop: Workshop,
    parts: Mapping[str, Callable[[], Any]],
    asked: Mapping[str, Any],
    virtual: Mapping[str, Any] | None,
) -> Checkpointer:
    """Return what saves the state of a run as its job says.

    Args:
        job: The job as it is run.
        folder: Of the run.
        server: Of the run.
        workshop: Has the task and its data.
        parts: The parts of the state, each by what returns it in plain values.
        asked: The job as the user has it, in plain values.
        virtual: For a virtual run, what decides its order and times.
    """
    settings = job.checkpoint
    return Checkpointer(
        server,
        parts,
        CheckpointFiles(folder.checkpoints, settings.keep, settings.patience_s),
        settings.every and settings.every * server.plan.num_samples,
        settings.every_s,
        {
            "job": asked,
            "kernel": server.chain.kernel,
            "group": workshop.group,
            "start": server.plan.start,
            "virtual": virtual and dict(virtual),
            "data": workshop.identity.as_plain(),
        },
    )


def find_checkpoint(
    job: Job,
    run_dir: Path | None,
    resume: str,
    virtual: Mapping[str, Any] | None = None,
) -> Checkpoint | None:
    """The checkpoint that ``--resume`` means.

    Args:
        job: The job that is to be resumed.
        run_dir: The run folder, if the user named one.
        resume: ``auto`` for the newest in ``run_dir``, ``never``, a checkpoint's file, or a run
            folder for the newest in it.
        virtual: Where the run's seconds come from (``VirtualRun``); None for a clock.

    Raises:
        RunFolderError: There is none where one was named, it cannot be read, or it is of another
            job or of another simulation.
    """
    if resume == NEVER or (resume == AUTO and run_dir is None):
        return None
    where = run_dir if resume == AUTO else Path(resume)
    assert where is not None
    if resume == AUTO and where.is_file():
        raise RunFolderError(f"--run-dir {where}: is a file; name a folder for the run")
    found = _read(where, virtual)
    if found is not None:
        _check(found, job, virtual)
    elif resume != AUTO:
        raise RunFolderError(
            f"--resume {resume}: no checkpoint there; allowed: auto, never, a checkpoint's file, "
            "or a run folder that has checkpoints"
        )
    return found


def with_kernel(job: Job, checkpoint: Checkpoint | None) -> Job:
    """The job with updates computed as before: a compiled one and one in blocks round apart."""
    kernel = checkpoint.content["kernel"] if checkpoint and job.fuse == "auto" else None
    return replace(job, fuse=kernel) if kernel in ("compiled", "blocks") else job


@dataclass
class Standing:
    """Starting point of a run, as far as every rank has to know it.

    Attributes:
        server: For ``ParameterServer.take_over``; None at the start of a run.
        start: Samples before the first ticket (``TicketPlan.start``).
        same_tickets: Whether tickets are numbered as they were when the state was taken.
    """

    server: dict[str, Any] | None = None
    start: int = 0
    same_tickets: bool = True

    @classmethod
    def of(cls, checkpoint: Checkpoint | None, group: int) -> Standing:
        """Return the starting point of a run whose updates are of ``group`` minibatches.

        Raises:
            RunFolderError: Another group cannot resume from just there.
        """
        if checkpoint is None:
            return cls()
        content = checkpoint.content
        server = content.pop("server")  # it is large, and needed once
        if content["group"] == group:
            return cls(server, content["start"])
        ledger = server["ledger"]
        todo = sorted(ledger["returned"])
        if todo != list(range(ledger["next"] - len(todo), ledger["next"])):
            raise RunFolderError(
                f"{checkpoint.path}: was taken while a minibatch that had failed was to be "
                f"repeated; only updates of {counted(content['group'], 'minibatch')} can "
                f"resume from there, not of {group}: start as many ranks as before, "
                "or take another checkpoint"
            )
        server["attempts"] = {}  # they are of tickets of other numbers
        return cls(server, server["samples"], same_tickets=False)


def _read(where: Path, virtual: Mapping[str, Any] | None) -> Checkpoint | None:
    """The checkpoint in a file, or the newest in a run folder that can be read."""
    paths = [where] if where.is_file() else checkpoints_in(RunFolder(where).checkpoints)
    if virtual is not None and not paths:
        paths = old_checkpoint_in(RunFolder(where))
    passed_over: list[str] = []
    for path in paths:
        try:
            return Checkpoint(path, _content(path), tuple(passed_over))
        except RunFolderError as error:
            if path == paths[-1]:
                raise RunFolderError(f"{error}; or start over with --resume never") from error
            passed_over.append(f"{error}; trying the one before")
    return None


def _content(path: Path) -> dict[str, Any]:
    content = read_checkpoint(path)
    return upgraded(content) if is_old(content) else content


def _check(checkpoint: Checkpoint, job: Job, virtual: Mapping[str, Any] | None) -> None:
    """Refuse a checkpoint of another job, of another simulation, or of another kind of run."""
    content, where = checkpoint.content, checkpoint.path
    changes = changed_keys(with_defaults(content["job"]), job_as_yaml(job), _ELSEWHERE)
    kind = "job"
    if not changes:
        kind, stored = "simulation", content.get("virtual")
        if (stored is None) != (virtual is None):
            was = "real" if stored is None else "simulated"
            raise RunFolderError(
                f"{where}: is of a {was} run, which this is not; name another --run-dir, or begin "
                "anew with --resume never"
            )
        changes = changed_keys(stored or {}, virtual or {})
    if changes:
        more = f" and {len(changes) - 5} more" if len(changes) > 5 else ""
        raise RunFolderError(
            f"{where}: is of another {kind} ({', '.join(changes[:5])}{more} differ); resume "
            f"with the {kind} that it was started with, name another --run-dir, or start afresh "
            "with --resume never"
        )

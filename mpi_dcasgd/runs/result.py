"""Result of a run, for Python: everything is read from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.errors import ConfigError, did_you_mean
from mpi_dcasgd.record.metrics import EVENTS
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.runs.arguments import check_arguments
from mpi_dcasgd.runs.jobs import load_job

if TYPE_CHECKING:
    from torch import Tensor

    from mpi_dcasgd.record.closeup import Closeup
    from mpi_dcasgd.record.trace import Trace

RunStatus = Literal["completed", "interrupted", "failed", "unfinished"]


class Run:
    """A run that has ended, was interrupted, or is still at work.

    Nothing is kept in memory: a run that is still at work may be asked again.

    Args:
        path: Its folder.
        stopped_by: The signal that stopped it, if one did.

    Attributes:
        path: Its folder.
        stopped_by: The signal that stopped this process's part of it, or None.

    Raises:
        ConfigError: ``path`` is no path.
        RunFolderError: There is no run in the folder.

    Example:
        How far a run has come, and its weights in a model::

            run = Run("runs/digits-asgd-20240506-070809")
            errors = [row["test_error"] for row in run.metrics("evaluation")]
            model.load_state_dict(run.weights())
    """

    def __init__(self, path: Path | str, *, stopped_by: int | None = None) -> None:
        check_arguments(Run.__init__, locals())
        self._folder = RunFolder.open(path)
        self.path = self._folder.path
        self.stopped_by = stopped_by

    @classmethod
    def after(cls, path: Path, signum: int | None) -> Run:
        """Return a run that this process has just left.

        Args:
            path: Its folder.
            signum: The signal that asked this process to stop it, if one did. One that came too
                late, so that the run completed, has stopped nothing.
        """
        run = cls(path)
        if not run._folder.is_finished():
            run.stopped_by = signum
        return run

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def status(self) -> RunStatus:
        """Status of the run; ``unfinished`` while it is running, and for one that was killed."""
        status: RunStatus = self.summary.get("status", "unfinished")
        return status

    @property
    def summary(self) -> dict[str, Any]:
        """The content of summary.json (docs/run-folder.md); empty while it is unfinished.

        Raises:
            RunFolderError: The file is damaged.
        """
        return self._folder.summary()

    @property
    def job(self) -> Job:
        """The job, with everything filled in.

        Raises:
            ConfigError: An incompatible version of the package wrote it.
        """
        return load_job(self._folder.job_yaml)

    def metrics(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return the rows of metrics.jsonl (docs/run-folder.md), oldest first.

        Args:
            event: Only rows of this kind, such as ``evaluation``, ``progress`` or ``worker``.

        Raises:
            ConfigError: There is no such kind.
            RunFolderError: There are none, or the file is damaged.
        """
        check_arguments(Run.metrics, locals())
        if event is not None and event not in EVENTS:
            allowed = f"allowed: {', '.join(EVENTS)}{did_you_mean(event, EVENTS)}"
            raise ConfigError("metrics", [f"event: got {event!r}; {allowed}"])
        rows = self._folder.metrics()
        return rows if event is None else [row for row in rows if row["event"] == event]

    def weights(self, *, best: bool = False) -> dict[str, Tensor]:
        """Return the weights, a ``state_dict`` of tensors on the CPU.

        Args:
            best: Those of the best evaluation (``checkpoint.best`` of the job), in place of the
                final ones.

        Raises:
            RunFolderError: There are none, for the run has not ended; or the file is damaged.
        """
        check_arguments(Run.weights, locals())
        return self._folder.weights(best=best)

    def trace(self) -> Trace:
        """Return the record of every push.

        Raises:
            RunFolderError: There is none (``record.trace`` of the job), or it was changed.
        """
        return self._folder.trace()

    def closeup(self) -> Closeup:
        """Return gaps, norms of compensations and of steps, as ``closeup`` has found them.

        Raises:
            RunFolderError: Nobody has looked closer, the file is damaged, or the run has changed
                since.
        """
        return self._folder.closeup()

"""State of a run between its starts: what a checkpoint holds, and going on from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from mpi_dcasgd.drivers.best_weights import BestWeights
from mpi_dcasgd.drivers.conductor import Conductor
from mpi_dcasgd.drivers.simulation.virtual_run import VirtualRun
from mpi_dcasgd.record.hangs import working_on
from mpi_dcasgd.record.recorder import Recorder
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.weights_file import save_weights
from mpi_dcasgd.runs.old_simulation import tell_again
from mpi_dcasgd.runs.resume import Checkpoint
from mpi_dcasgd.server.server import ParameterServer


def _save_best(path: Path, model: nn.Module, version: int) -> None:
    """Write the best weights, which a run can go on without."""
    with working_on(path, ends=False):
        save_weights(path, model, version)


class RunState:
    """The parts of a run that its checkpoints hold.

    Args:
        folder: Of the run.
        server: Of the run.
        recorder: Of the run.
        conductor: Of the run.
        virtual: The run, if it is virtual: it has state of its own, the server's in it.
        keep_best: Whether the weights of the best evaluation are kept.

    Attributes:
        best: Keeper of the best weights, or None.
    """

    def __init__(
        self,
        folder: RunFolder,
        server: ParameterServer,
        recorder: Recorder,
        conductor: Conductor,
        virtual: VirtualRun | None,
        *,
        keep_best: bool,
    ) -> None:
        self._folder = folder
        self._server = server
        self._recorder = recorder
        self._conductor = conductor
        self._virtual = virtual
        write = partial(_save_best, folder.best_pt)
        self.best = BestWeights(recorder.measures, write) if keep_best else None

    def parts(self) -> dict[str, Callable[[], Any]]:
        """Return what a checkpoint has to save, by its name in the file."""
        parts: dict[str, Callable[[], Any]] = {
            "conductor": self._conductor.state_dict,
            "recorder": self._recorder.state_dict,
        }
        if self._virtual is not None:
            parts["virtual_run"] = self._virtual.state_dict
        else:
            parts["server"] = self._server.lasting_state
        if self.best is not None:
            parts["best"] = self.best.state_dict
        return parts

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint; the server and the recorder have their state already.

        Args:
            checkpoint: Of the run; its large parts are dropped from it.
        """
        content = checkpoint.content
        if self._virtual is not None:
            self._virtual.load_state_dict(content.pop("virtual_run"))  # it is large
        if not checkpoint.has_records:
            tell_again(content.pop("history"), self._recorder)
        self._resume_best(content.pop("best", None))
        self._conductor.resume(content["conductor"])

    def _resume_best(self, saved: Mapping[str, Any] | None) -> None:
        """Go on with the best weights; those of the folder may have come after the checkpoint."""
        if saved is None or saved["weights"] is None or self.best is None:
            self._folder.best_pt.unlink(missing_ok=True)
        if self.best is None:
            return
        # A run that did not keep them until now cannot have those of earlier evaluations again.
        earlier = {"value": self._recorder.best_value, "version": -1, "weights": None}
        self.best.load_state_dict(earlier if saved is None else saved)

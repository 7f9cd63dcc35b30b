"""End of a run: its reason and its weights, as they are left in its folder."""

from __future__ import annotations

from contextlib import suppress

import torch

from mpi_dcasgd.drivers.signals import StopFlag
from mpi_dcasgd.errors import NonFiniteError, RunFolderError
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.weights_file import save_weights
from mpi_dcasgd.runs.build import Workshop
from mpi_dcasgd.server.server import ParameterServer


def record_failure(folder: RunFolder, error: BaseException, where: str = "") -> None:
    """Leave the reason of a failure in a run folder, unless this start has left its end there.

    Args:
        folder: Of the run; an earlier start's summary has been removed.
        error: What ended the run.
        where: Goes before it.
    """
    if not folder.summary_json.exists():
        with suppress(OSError, RunFolderError):
            reason = f"{where}{type(error).__name__}: {error}"
            folder.write_summary({"status": "failed", "reason": reason})


def reason_of(stop: StopFlag) -> str:
    """Return why a run ended early, or an empty string."""
    if not stop:
        return ""
    return f"stopped by signal {stop.signum}" if stop.signum else "stopped on request"


def refuse_nothing_learnt(nonfinite: int) -> None:
    """Refuse a run that has come to its end without an update, where gradients were refused.

    Args:
        nonfinite: How many gradients were not finite.

    Raises:
        NonFiniteError: There were some.
    """
    if nonfinite:
        raise NonFiniteError(
            f"no update was made: all {nonfinite} gradients were refused, "
            "for they were NaN or infinite; look at the data and the model, or lower lr"
        )


def write_weights(folder: RunFolder, workshop: Workshop, server: ParameterServer) -> None:
    """Write the final weights as an ordinary ``state_dict`` that needs nothing of ours."""
    flat = workshop.flat_model(torch.device("cpu"))
    flat.weights.copy_(server.weights)
    save_weights(folder.weights_pt, flat.model, server.version)

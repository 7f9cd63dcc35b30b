"""End of a run: its reason and its weights, as they are left in its folder."""

from __future__ import annotations

from contextlib import suppress
from logging import Logger

import torch

from mpi_dcasgd.config.load import job_as_text
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.drivers.observer import Status
from mpi_dcasgd.drivers.signals import StopFlag, first_signal
from mpi_dcasgd.errors import NonFiniteError, RunFolderError
from mpi_dcasgd.record.atomic import write_atomic
from mpi_dcasgd.record.recorder import Recorder
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.weights_file import save_weights
from mpi_dcasgd.runs.build import Workshop
from mpi_dcasgd.server.server import ParameterServer
from mpi_dcasgd.stop_signals import signal_name
from mpi_dcasgd.wording import counted


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
    if not stop.signum:
        return "stopped on request"
    return f"stopped by {signal_name(first_signal(stop.signum))}"


def refuse_nothing_learnt(nonfinite: int) -> None:
    """Refuse a run that has come to its end without an update, where gradients were refused.

    Args:
        nonfinite: How many gradients were not finite.

    Raises:
        NonFiniteError: There were some.
    """
    if nonfinite:
        all_of_them = f"all {counted(nonfinite, 'gradient')} were"
        refused = "the only gradient was" if nonfinite == 1 else all_of_them
        raise NonFiniteError(
            f"no update was made: {refused} refused, for being NaN or infinite at the weights "
            "that the run began with; look for NaN or infinite values in the samples, and for "
            "logarithms, roots and divisions of zero in the model and the loss"
        )


def record_end(
    recorder: Recorder, status: Status, time_s: float, reason: str, logger: Logger
) -> None:
    """End the records of a run as far as they can be written.

    Args:
        recorder: Of the run.
        status: What has become of the run.
        time_s: Time of its end.
        reason: Why it ended so.
        logger: Where it is told that the records cannot be ended; the reason is the first error.
    """
    try:
        recorder.ended(status, time_s, reason=reason)
    except (OSError, RunFolderError) as error:
        logger.error("the end cannot be recorded: %s", error)


def how_to_resume(stopped: str, folder: RunFolder) -> str:
    """Return a line on a run that was stopped.

    Args:
        stopped: What stopped it.
        folder: Of the run.
    """
    return f"{stopped}; to resume, rerun the same command with --run-dir {folder.path}"


def write_result(folder: RunFolder, job: Job, workshop: Workshop, server: ParameterServer) -> None:
    """Write the final weights as an ordinary ``state_dict`` that needs nothing of ours.

    Args:
        folder: Of the run; it is made again where somebody has removed it.
        job: What was run.
        workshop: Makes the model.
        server: At the end of the run.
    """
    if not folder.is_run():
        write_atomic(folder.job_yaml, job_as_text(job).encode())
    flat = workshop.flat_model(torch.device("cpu"))
    flat.weights.copy_(server.weights)
    save_weights(folder.weights_pt, flat.model, server.version)

"""The whole way of a job under SLURM: a time limit that is too short, requeues, resumes, a report.

ResNet-50 on a small folder of made-up images, where there is a SLURM. Steps are slept out, so that
the job outlives its time limit on any hardware.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import mpi_dcasgd
from mpi_dcasgd.errors import DcasgdError
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.slurm_folder import SlurmFolder
from mpi_dcasgd.shipped import shipped
from mpi_dcasgd.tools.bench.spread import table
from mpi_dcasgd.tools.made_images import write_images
from mpi_dcasgd.tools.results.kept import Kept
from mpi_dcasgd.tools.results.runs import printed
from mpi_dcasgd.tools.results.studies import Row
from mpi_dcasgd.tools.slurm.states import JobState, job_states, max_array_size

_JOB = "jobs/imagenet_resnet50.yaml"
_SIZE = ("-n", "3", "--nodes", "2", "--time", "00:05:00", "--signal-lead", "150")
_SETTINGS = (
    "data.image_size=64",
    "batch_size=8",
    "epochs=12",
    "lr=0.02",
    "checkpoint.every=1",
    "schedule={name: step, milestones: [8], factor: 0.1}",
    "inject={delays: {model: gamma, mean_s: 4}}",
)
_LOOK_S = 3.0


def way(kept: Kept, *, short: bool) -> list[Row]:
    """Send the job its way, or say why not.

    Args:
        kept: Where the images, the run and its row are.
        short: Leave it out: it takes as long as all other short forms together.

    Returns:
        One row, or none where there is no SLURM.

    Raises:
        DcasgdError: The job ended without having trained to the end.
    """
    reason = "it is not part of the short form" if short else _absent()
    if reason:
        if kept.show is not None:
            print(f"  the way under SLURM is left out: {reason}", file=kept.show, flush=True)
        return []
    return [kept.row({"part": "way"}, lambda: _go(kept))]


def _absent() -> str:
    if shutil.which("sbatch") is None:
        return "found no sbatch on PATH"
    return "" if max_array_size() is not None else "SLURM does not answer (`scontrol show config`)"


def _go(kept: Kept) -> Row:
    folder = kept.folder / "imagenet"
    images = kept.folder / "images"
    if not images.exists():
        made = kept.folder / "images-unfinished"
        shutil.rmtree(made, ignore_errors=True)
        write_images(made, classes=4, train=16, val=4, size=96)
        made.rename(images)
    run = RunFolder(folder)
    if not run.is_finished():
        before = SlurmFolder(folder).submissions()
        states = job_states(each.job_id for each in before).states
        if not any(state.active for state in states.values()):
            settings = (f"data.path={images.absolute()}", *_SETTINGS)
            printed("submit", str(shipped(_JOB)), *_SIZE, "--run-dir", str(folder), *settings)
    last = _wait(folder, kept)
    if not run.is_finished():
        raise DcasgdError(
            f"{folder}: SLURM's job has ended ({last.state}) and the run is not finished; its logs "
            f"are in {SlurmFolder(folder).path}, and the same command submits it again"
        )
    report = mpi_dcasgd.report(folder, kept.folder / "report")
    return {**told(run), "requeues": last.restarts, "reported": report.html.is_file()}


def _wait(folder: Path, kept: Kept) -> JobState:
    """Wait until a folder's newest job has left the queue, and return what SLURM said last."""
    job_id = SlurmFolder(folder).submissions()[-1].job_id
    last, shown, gone = JobState("UNKNOWN"), "", 0
    while gone < 2:  # once may be in the middle of a requeue
        answer = job_states([job_id])
        state = answer.states.get(job_id)
        if state is not None:
            last = state
            words = f"{state.state}{f' ({state.reason})' if state.reason else ''}"
        else:
            words = answer.silence or "has left the queue"
        gone = gone + 1 if not answer.silence and not (state and state.active) else 0
        if words != shown and kept.show is not None:
            print(f"  SLURM's job {job_id}: {words}", file=kept.show, flush=True)
        shown = words
        time.sleep(_LOOK_S)  # SLURM has no call that waits for a job's end through requeues
    return last


def told(run: RunFolder) -> Row:
    """Sum up a finished run and its starts.

    Args:
        run: Its folder.
    """
    trace, summary = run.trace(strict=True), run.summary()
    ends = [*(restart.records for restart in trace.restarts), len(trace)]
    begins = [e["startup_s"] for e in run.metrics() if e["event"] in ("start", "resume")]
    starts = [
        {"from": since, "until": until, "startup_s": round(startup_s, 1)}
        for since, until, startup_s in zip([0, *ends], ends, begins, strict=False)
    ]
    return {
        "starts": starts,
        "epochs": summary["epochs"],
        "images": summary["num_samples"],
        "batch_size": summary["batch_size"],
        "samples": summary["samples"],
        "tickets": len(set(trace.ticket.tolist())),
        "error": summary["test_error"],
    }


def way_table(rows: Sequence[Row]) -> str:
    """Show where each start began and ended.

    Args:
        rows: What `way` returned.

    Example:
        >>> way_table([])
        'Not run: there was no SLURM.'
    """
    if not rows:
        return "Not run: there was no SLURM."
    (row,) = rows
    epoch = row["images"] / row["batch_size"]
    lines = [
        [
            str(number),
            f"{start['startup_s']:.0f} s",
            _place(start["from"], epoch) if start["from"] else "the beginning",
            _place(start["until"], epoch),
            "back into the queue" if number < len(row["starts"]) else "the end",
        ]
        for number, start in enumerate(row["starts"], start=1)
    ]
    return table(["start", "start-up", "from", "until", "then"], lines, words=5)


def _place(updates: int, epoch: float) -> str:
    return f"epoch {updates / epoch:g}, {updates} updates"

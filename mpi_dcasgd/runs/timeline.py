"""Make the timeline of a recorded run, for Perfetto or as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mpi_dcasgd.errors import ConfigError, RunFolderError
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.reporting.timeline import Timeline, timeline_of, usual_span
from mpi_dcasgd.runs.arguments import check_arguments
from mpi_dcasgd.runs.result import Run
from mpi_dcasgd.wording import counted

PICTURES = (".png", ".svg", ".pdf")
DATA = (".json", ".gz")


@dataclass(frozen=True)
class WrittenTimeline:
    """A timeline in a file.

    Attributes:
        path: The file.
        timeline: What is in it.
    """

    path: Path
    timeline: Timeline


def timeline(
    run: Path | str | Run,
    out: Path | str | None = None,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
) -> WrittenTimeline:
    """Write down what each rank of a run did when: computed, waited, sent, applied.

    Args:
        run: A run, or its folder; it may still be running.
        out: A file; its ending says what it is: ``.json`` or ``.json.gz`` for Perfetto, ``.png``,
            ``.svg`` or ``.pdf`` for a picture. None for ``timeline.json`` in the run folder.
        start_s: Leave out what ends before; seconds since training began.
        end_s: Leave out what begins after. A picture without either shows eight steps of a usual
            worker, from the middle of the run.

    Raises:
        ConfigError: The seconds or the file's ending are wrong.
        RunFolderError: The folder holds no run with a trace, or nothing happened in this time.
        PlotsUnavailableError: A picture is wanted, and matplotlib is missing.

    Example:
        A picture of two seconds::

            timeline("runs/digits-asgd", "two.png", start_s=3, end_s=5)
    """
    check_arguments(timeline, locals())
    folder = RunFolder.open(run.path if isinstance(run, Run) else run)
    path = Path(out) if out is not None else folder.path / "timeline.json"
    problems = []
    if path.suffix not in (*PICTURES, *DATA):
        allowed = ", ".join((*DATA[:1], ".json.gz", *PICTURES))
        problems.append(f"-o {path}: its ending says what is written; allowed: {allowed}")
    begin, end = start_s or 0.0, float("inf") if end_s is None else end_s
    if not 0 <= begin < end:
        problems.append(f"--from {begin:g} --to {end:g}: give 0 <= from < to, in seconds")
    if problems:
        raise ConfigError("timeline", problems)
    if not folder.trace_bin.is_file():
        raise RunFolderError(
            f"{folder.path}: has no {folder.trace_bin.name}; a timeline is made of asynchronous "
            "runs, recorded with record.trace: true"
        )
    trace = folder.trace()
    steps = folder.steps(len(trace))
    if path.suffix in PICTURES and start_s is None and end_s is None:
        begin, end = usual_span(trace)
    found = timeline_of(folder.path.name, trace, steps, begin, end)
    if not found.slices:
        latest = trace.time_us[-1] / 1e6 if len(trace) else 0.0
        raise RunFolderError(
            f"{folder.path}: nothing happened between {begin:g} and {end:g} s; the trace has "
            f"{counted(len(trace), 'push', ',')}, the last at {latest:.6g} s"
        )
    if path.suffix in PICTURES:
        from mpi_dcasgd.reporting.timeline_picture import draw

        draw(found, path)
    else:
        from mpi_dcasgd.reporting.timeline_json import write_json

        write_json(found, path)
    return WrittenTimeline(path, found)

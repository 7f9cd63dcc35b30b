"""Waits of the ranks in each run: a few steps of steady state, of every rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.atomic import write_atomic
from mpi_dcasgd.record.run_folder import RunFolder, plain_name
from mpi_dcasgd.reporting.collect import RunResult
from mpi_dcasgd.reporting.document import Block, Drawing, Paragraph
from mpi_dcasgd.reporting.groups import Group
from mpi_dcasgd.reporting.strips import Bar, Strips
from mpi_dcasgd.reporting.timeline import SERVER, Timeline, shares, timeline_of, usual_span
from mpi_dcasgd.wording import counted

NOTE = (
    "Eight steps of a usual worker, from the middle of each run, and in synchronous runs the mean"
    " step of each worker, for no single ones are recorded. For other seconds, and for more"
    " detail: mpi-dcasgd timeline RUN --from S --to S -o FILE.png"
)
_MOST_RUNS = 36
_MOST_ROWS = 16
_ALIKE = 0.05
_LITTLE = 0.01


@dataclass(frozen=True, slots=True)
class Waits:
    """Picture of one run.

    Attributes:
        name: Of the run.
        text: What there is to see.
        strips: The picture.
    """

    name: str
    text: str
    strips: Strips


def who_waits(groups: Sequence[Group], out: Path, prefix: str = "") -> list[Block]:
    """Draw each run with several workers, in a file beside the report and for the page.

    Of very many runs it is one a row of the report. A run without the records that it takes has
    none, and one whose records are damaged likewise: they are no reason to have no report.

    Args:
        groups: Of one task.
        out: The folder for the files.
        prefix: Beginning of their names.

    Returns:
        Blocks for a section of the report; none without a picture.
    """
    pictures, note = _pictures(groups)
    if not pictures:
        return []
    blocks: list[Block] = [Paragraph(note)]
    taken: set[Path] = set()
    for each in pictures:
        path, number = out / f"{prefix}timeline-{plain_name(each.name)}.svg", 1
        while path in taken:  # studies may have runs of one name
            number += 1
            path = out / f"{prefix}timeline-{plain_name(each.name)}-{number}.svg"
        taken.add(path)
        write_atomic(path, each.strips.to_svg(f"{each.name}: {each.text}").encode())
        blocks.append(Paragraph(f"{each.name}. {each.text}"))
        blocks.append(
            Drawing(path, f"What each rank of {each.name} did", each.strips.to_html(each.text))
        )
    return blocks


def _pictures(groups: Sequence[Group]) -> tuple[list[Waits], str]:
    runs = [run for group in groups if not group.sequential for run in group.runs]
    note = NOTE
    if len(runs) > _MOST_RUNS:
        runs = [group.runs[0] for group in groups if not group.sequential]
        note = f"The first run of each row. {NOTE}"
    return [found for run in runs if (found := _of_run(run)) is not None], note


def _of_run(run: RunResult) -> Waits | None:
    if run.num_workers < 2:
        return None
    folder = RunFolder(run.path)
    if run.staleness and folder.trace_bin.is_file():
        try:
            trace = folder.trace()
            steps = folder.steps(len(trace))
        except RunFolderError:
            return None
        begin, end = usual_span(trace)
        found = timeline_of(run.path.name, trace, steps, begin, end)
        return _of_timeline(found) if end > begin and found.slices else None
    return _mean_step(run)


def _of_timeline(found: Timeline) -> Waits:
    begin, end = found.span
    bars: dict[int, list[Bar]] = {worker: [] for worker in (SERVER, *range(found.num_workers))}
    for one in found.slices:
        bars[one.worker].append(Bar(one.kind, one.start_s, one.end_s))
    busy = {worker: _covered(of, begin, end) for worker, of in bars.items()}
    # From the quickest to the slowest, if there is no room for all.
    workers = sorted(range(found.num_workers), key=lambda worker: (-busy[worker][1], worker))
    shown = _spread(workers)
    rows = [("server", bars[SERVER])] if bars[SERVER] else []
    rows += [(f"worker {worker}", bars[worker]) for worker in sorted(shown)]
    text = _told(found, busy[SERVER][0])
    if len(shown) < found.num_workers:
        text += f" {len(shown)} of {counted(found.num_workers, 'worker')} are drawn."
    return Waits(found.name, text, Strips(rows, found.span, "s"))


def _covered(bars: Sequence[Bar], begin: float, end: float) -> tuple[float, int]:
    """Share of a span that is covered, and the number of steps in it."""
    inside = sum(max(0.0, min(bar.end, end) - max(bar.start, begin)) for bar in bars)
    steps = sum(bar.kind in ("compute", "step") for bar in bars)
    return inside / (end - begin), steps


def _spread(workers: Sequence[int]) -> list[int]:
    """As many workers as there is room for, the first and the last among them."""
    if len(workers) <= _MOST_ROWS:
        return list(workers)
    last = len(workers) - 1
    return [workers[round(place * last / (_MOST_ROWS - 1))] for place in range(_MOST_ROWS)]


def _told(found: Timeline, server: float) -> str:
    known = [(one.waited, one.worker) for one in shares(found) if one.waited is not None]
    if not known:
        return "Only the ends of its steps are known."
    waiting = _range(known, "waits", "of its time")
    return f"{waiting} The server is busy for {_percent(server)}."


def _range(known: Sequence[tuple[float, int]], verb: str, of: str) -> str:
    (least, least_of), (most, most_of) = min(known), max(known)
    if most - least < _ALIKE:
        mean = sum(share for share, _ in known) / len(known)
        about = "about " if mean >= _LITTLE else ""
        return f"Each worker {verb} for {about}{_percent(mean)} {of}."
    return (
        f"Worker {most_of} {verb} for {_percent(most)} {of}, worker {least_of} for"
        f" {_percent(least)}."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= _LITTLE else "less than 1 %"


def _mean_step(run: RunResult) -> Waits | None:
    """Draw one step of each worker from its totals; None if nothing is known of them."""
    steps = {int(totals["worker"]): _parts(totals) for totals in run.workers if totals["updates"]}
    if len(steps) < 2 or not all(map(sum, steps.values())):
        return None
    longest = max(map(sum, steps.values()))
    factor, unit = (1e3, "ms") if longest < 0.5 else (1.0, "s")
    rows = []
    order = sorted(steps, key=lambda worker: (sum(steps[worker][:2]), worker))
    for worker in sorted(_spread(order)):
        data_s, compute_s, wait_s = (factor * part for part in steps[worker])
        bars = [
            Bar("data", 0.0, data_s),
            Bar("compute", data_s, data_s + compute_s),
            Bar("wait", data_s + compute_s, data_s + compute_s + wait_s),
        ]
        rows.append((f"worker {worker}", [bar for bar in bars if bar.end > bar.start]))
    known = [(parts[2] / sum(parts), worker) for worker, parts in steps.items()]
    text = _range(known, "waits for the others and sums gradients", "of a step")
    words = (("wait", "waits for the others, sums gradients"),)
    return Waits(run.path.name, text, Strips(rows, (0.0, factor * longest), unit, words))


def _parts(totals: Mapping[str, Any]) -> tuple[float, float, float]:
    """Seconds of data, computing, and waiting in a mean step."""

    def mean(*kinds: str) -> float:
        return sum(float(totals.get(kind) or 0.0) for kind in kinds) / int(totals["updates"])

    return mean("data_s"), mean("compute_s"), mean("wait_s", "comm_s")

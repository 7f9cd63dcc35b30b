"""A report of any runs: report.md, report.html, the pictures, and the table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mpi_dcasgd.errors import ConfigError, RunFolderError
from mpi_dcasgd.record.atomic import write_atomic
from mpi_dcasgd.reporting.collect import FindIdle, ReadStored, UnfinishedRun, collect
from mpi_dcasgd.reporting.content import Content, setting_of
from mpi_dcasgd.reporting.document import to_html, to_markdown
from mpi_dcasgd.reporting.groups import Group
from mpi_dcasgd.reporting.plots import PlotsUnavailableError, draw_all
from mpi_dcasgd.reporting.tasks import Target, by_task
from mpi_dcasgd.reporting.who_waits import who_waits


@dataclass(frozen=True, slots=True)
class Report:
    """Files of a report, and its table as text.

    Attributes:
        markdown, html: The report, twice.
        plots: Its pictures.
        table: The result for a terminal, with the remarks that it needs.
        groups: The rows that were compared.
        unfinished: Runs that could not be.
    """

    markdown: Path
    html: Path
    plots: tuple[Path, ...]
    table: str
    groups: tuple[Group, ...]
    unfinished: tuple[UnfinishedRun, ...]


class ReportWithoutPlotsError(PlotsUnavailableError):
    """The report was written, but there is no matplotlib to draw with.

    Args:
        cause: Why not.
        report: The report that was written all the same; its table is still worth showing.
    """

    def __init__(self, cause: PlotsUnavailableError, report: Report) -> None:
        self.report = report
        super().__init__(f"{cause}; the tables are in {report.markdown}")


def write_report(
    runs: Sequence[Path],
    out: Path,
    target_error: float | None = None,
    *,
    target: float | None = None,
    title: str = "",
    read_stored: ReadStored = dict,
    find_idle: FindIdle | None = None,
    strict: bool = False,
) -> Report:
    """Compare runs.

    Args:
        runs: Run folders, or folders of run folders.
        out: The folder to write into; made if need be.
        target_error: Also report how soon this test error, in [0, 1], was reached; of runs with
            another primary metric nothing.
        target: Also report how soon this value of the primary metric, or a better one, was
            reached.
        title: Title of the report; by default the name of the runs' job.
        read_stored: Brings a stored job to the keys of today.
        find_idle: Tells which settings of a stored job have no effect; they are not listed.
        strict: Refuse a target that the primary metric cannot be at. The report at the end of a
            comparison is written all the same.

    Raises:
        ConfigError: See ``strict``.
        RunFolderError: A path is no run, or ``out`` cannot be written.
        ReportWithoutPlotsError: matplotlib is missing; everything else was written.
    """
    found = collect(runs, read_stored, *([find_idle] if find_idle else []))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{out}: cannot be made: {error.strerror}") from error
    targets = []
    if target is not None:
        targets.append(Target(target))
    if target_error is not None:
        targets.append(Target(target_error, "error"))
    parts = by_task(found.runs)
    if strict and len(parts) == 1:  # of several tasks it may be another's
        problems = parts[0].measures.beyond(target)
        if problems:
            raise ConfigError("report", problems)
    content = Content(found, parts, targets)
    pictures: list[list[tuple[Path, str]]] = []
    missing: PlotsUnavailableError | None = None
    several = len(content.parts) > 1
    prefixes = [f"task-{n}-" if several else "" for n in range(1, len(content.parts) + 1)]
    waits = [
        who_waits(p.groups, out, prefix) for p, prefix in zip(content.parts, prefixes, strict=True)
    ]
    try:
        for prefix, part in zip(prefixes, content.parts, strict=True):
            screen = content.first_screen(part)
            pictures.append(
                draw_all(
                    part.groups,
                    setting_of(part.runs),
                    out,
                    prefix,
                    rivals=screen.rivals,
                    target=screen.named_target,
                )
            )
    except PlotsUnavailableError as error:
        missing = error
    blocks = content.document(title, pictures, missing, waits)
    report = Report(
        markdown=out / "report.md",
        html=out / "report.html",
        plots=tuple(path for drawn in pictures for path, _ in drawn),
        table=content.terminal(),
        groups=tuple(group for part in content.parts for group in part.groups),
        unfinished=found.unfinished,
    )
    write_atomic(report.markdown, to_markdown(blocks).encode())
    write_atomic(report.html, to_html(blocks).encode())
    if missing is not None:
        raise ReportWithoutPlotsError(missing, report)
    return report

"""A report of any runs: report.md, report.html, the pictures, and the table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.run_folder import write_atomic
from mpi_dcasgd.reporting.collect import (
    Collection,
    ReadStored,
    RunResult,
    UnfinishedRun,
    collect,
)
from mpi_dcasgd.reporting.document import (
    Block,
    Bullets,
    Heading,
    Image,
    Paragraph,
    Table,
    to_html,
    to_markdown,
)
from mpi_dcasgd.reporting.groups import (
    Group,
    common_settings,
    differing_settings,
    group_runs,
)
from mpi_dcasgd.reporting.plots import PlotsUnavailableError, draw_all
from mpi_dcasgd.reporting.prediction import NOTE as PREDICTION_NOTE
from mpi_dcasgd.reporting.prediction import prediction_table
from mpi_dcasgd.reporting.references import cited
from mpi_dcasgd.reporting.remarks import remarks
from mpi_dcasgd.reporting.table import Matching, result_table, seconds, target_table, time_table
from mpi_dcasgd.reporting.time_to_error import NOTE as SOONER_NOTE
from mpi_dcasgd.reporting.time_to_error import sooner_table
from mpi_dcasgd.reporting.workers import NOTE as UNEQUAL_NOTE
from mpi_dcasgd.reporting.workers import worker_table


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
    title: str = "",
    read_stored: ReadStored = dict,
) -> Report:
    """Compare runs.

    Args:
        runs: Run folders, or folders of run folders.
        out: The folder to write into; made if need be.
        target_error: Also report how soon this test error, in [0, 1], was reached.
        title: Title of the report; by default the name of the runs' job.
        read_stored: Brings a stored job to the keys of today.

    Raises:
        RunFolderError: A path is no run, or ``out`` cannot be written.
        ReportWithoutPlotsError: matplotlib is missing; everything else was written.
    """
    found = collect(runs, read_stored)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{out}: cannot be made: {error.strerror}") from error
    groups = group_runs(found.runs)
    pictures: list[tuple[Path, str]] = []
    missing: PlotsUnavailableError | None = None
    try:
        if groups:
            pictures = draw_all(groups, _setting(found.runs), out)
    except PlotsUnavailableError as error:
        missing = error
    blocks = _document(title, found, groups, pictures, missing, target_error)
    report = Report(
        markdown=out / "report.md",
        html=out / "report.html",
        plots=tuple(path for path, _ in pictures),
        table=_terminal(found, groups, target_error),
        groups=tuple(groups),
        unfinished=found.unfinished,
    )
    write_atomic(report.markdown, to_markdown(blocks).encode())
    write_atomic(report.html, to_html(blocks).encode())
    if missing is not None:
        raise ReportWithoutPlotsError(missing, report)
    return report


def _document(
    title: str,
    found: Collection,
    groups: Sequence[Group],
    pictures: Sequence[tuple[Path, str]],
    missing: PlotsUnavailableError | None,
    target_error: float | None,
) -> list[Block]:
    blocks: list[Block] = [Heading(1, title or _title(found))]
    if groups:
        blocks.append(Paragraph(_overview(groups, found)))
        blocks += [Heading(2, "Result"), result_table(groups, Matching.of(groups, target_error))]
        blocks.append(Paragraph(_table_note(groups, target_error)))
        blocks.append(Bullets(tuple(remarks(groups, found.runs))))
        foretold = prediction_table(groups)
        if foretold is not None:
            blocks += [Heading(2, "Predicted and measured"), foretold, Paragraph(PREDICTION_NOTE)]
        if target_error is not None:
            blocks.append(Heading(2, f"Until {100 * target_error:g} % test error"))
            blocks.append(target_table(groups, target_error))
            blocks.append(Paragraph(_TARGET_NOTE))
        sooner = sooner_table(groups)
        if sooner is not None:
            blocks += [Heading(2, "Why sooner or later"), sooner, Paragraph(SOONER_NOTE)]
        if missing is not None:
            blocks += [Heading(2, "Plots"), Paragraph(f"{missing}.")]
        elif pictures:
            blocks.append(Heading(2, "Plots"))
            blocks += [Image(path, text) for path, text in pictures]
        times = time_table(groups)
        if times is not None:
            blocks += [Heading(2, "Where the workers' time went"), times]
        unequal = worker_table(groups)
        if unequal is not None:
            blocks += [Heading(2, "How unequal the workers were"), unequal, Paragraph(UNEQUAL_NOTE)]
        blocks += _settings(groups, found.runs)
        blocks += _environment(found.runs)
    if found.unfinished:
        blocks += [Heading(2, "Runs that are not in the comparison"), _unfinished(found)]
    if found.runs:
        blocks += [Heading(2, "Runs"), _run_list(found.runs)]
    if references := cited(found.runs):
        blocks += [Heading(2, "References"), Bullets(tuple(map(str, references)))]
    return blocks


_TARGET_NOTE = (
    "Means are over the runs that reached it, at their first evaluation at or below it; the"
    " resolution is that of the evaluations. A row in which not all runs reached it looks better"
    " than it is."
)


def _terminal(found: Collection, groups: Sequence[Group], target_error: float | None) -> str:
    parts = []
    if groups:
        parts.append(result_table(groups, Matching.of(groups, target_error)).to_text())
        if target_error is not None:
            parts.append(f"until {100 * target_error:g} % test error:")
            parts.append(target_table(groups, target_error).to_text())
        parts += [f"- {remark}" for remark in remarks(groups, found.runs)[:3]]
    parts += [f"not compared: {u.path} ({u.status}): {u.reason}" for u in found.unfinished]
    return "\n".join(parts)


def _title(found: Collection) -> str:
    names = {str(run.summary.get("name")) for run in found.runs}
    return f"Comparison: {names.pop()}" if len(names) == 1 else "Comparison of runs"


def _overview(groups: Sequence[Group], found: Collection) -> str:
    algorithms = list(dict.fromkeys(group.algorithm for group in groups))
    seeds = sorted({run.seed for run in found.runs})
    text = (
        f"{len(found.runs)} runs of {', '.join(algorithms)} on {_setting(found.runs)};"
        f" seed{'' if len(seeds) == 1 else 's'} {', '.join(map(str, seeds))}."
    )
    if found.unfinished:
        text += f" {len(found.unfinished)} more did not finish and are listed below."
    return text


def _setting(runs: Sequence[RunResult]) -> str:
    def one(key: str) -> str | None:
        values = {run.summary.get(key) for run in runs}
        return str(values.pop()) if len(values) == 1 else None

    parts = [part for part in (one("data"), one("model")) if part]
    if batch := one("batch_size"):
        parts.append(f"batch {batch} a worker")
    return ", ".join(parts) or "several settings"


def _table_note(groups: Sequence[Group], target_error: float | None) -> str:
    matching = Matching.of(groups, target_error)
    parts = []
    if matching.epoch is not None:
        parts.append(
            f"Epoch {matching.epoch} is the last that every run was evaluated at: equal samples."
        )
    if matching.time_s is not None:
        parts.append(
            f"{seconds(matching.time_s)} s is when the quickest row was done: equal time, by the"
            " last evaluation of a snapshot taken before (a dash: none yet in one of its runs)."
        )
    if any(group.sequential for group in groups):
        parts.append("Speed-up is samples/s over those of the sequential run.")
    if any(group.histogram for group in groups if not group.sequential):
        parts.append(
            "Staleness counts the updates applied between a worker's pull and its push; W equal"
            " workers settle at W - 1."
        )
    return " ".join(parts)


def _settings(groups: Sequence[Group], runs: Sequence[RunResult]) -> list[Block]:
    common = tuple((key, _value(value)) for key, value in common_settings(runs).items())
    blocks: list[Block] = [Heading(2, "Settings of all runs")]
    blocks.append(Table(("key", "value"), common, frozenset({0, 1})))
    rows: list[tuple[str, str, str]] = []
    for key, values in differing_settings(groups).items():
        rows += [(key, _value(value), "; ".join(labels)) for value, labels in values]
    if rows:
        blocks.append(Heading(2, "Settings that differ"))
        blocks.append(Table(("key", "value", "of"), tuple(rows), frozenset({0, 1, 2})))
    return blocks


def _environment(runs: Sequence[RunResult]) -> list[Block]:
    rows: list[tuple[str, str]] = []
    environments = [run.environment for run in runs if run.environment]

    def add(name: str, values: Sequence[Any]) -> None:
        distinct = list(dict.fromkeys(str(value) for value in values if value))
        if distinct:
            rows.append((name, "; ".join(distinct)))

    add("processor", [f"{e.get('cpu')} ({e.get('cpus')} logical)" for e in environments])
    places = [rank for e in environments for rank in e.get("ranks", ())]
    add("hosts", [", ".join(sorted({str(rank.get("host")) for rank in places}))])
    add("devices", [rank.get("device_name") or rank.get("device") for rank in places])
    add("MPI", [e.get("mpi_library") for e in environments])
    add("Python", [e.get("python") for e in environments])
    for package in dict.fromkeys(name for e in environments for name in e.get("packages", ())):
        add(package, [e.get("packages", {}).get(package) for e in environments])
    add("mpi_dcasgd", [e.get("mpi_dcasgd") for e in environments])
    add("commit", [_commit(e.get("git")) for e in environments])
    add("system", [e.get("system") for e in environments])
    if not rows:
        return []
    table = Table(("what", "which"), tuple(rows), frozenset({0, 1}))
    return [Heading(2, "Hardware and software"), table]


def _commit(git: Any) -> str:
    if not git:
        return ""
    return str(git.get("commit")) + (" and changes not committed" if git.get("dirty") else "")


def _unfinished(found: Collection) -> Table:
    rows = tuple((str(u.path), u.label, u.status, u.reason) for u in found.unfinished)
    return Table(("folder", "run", "status", "reason"), rows, frozenset({0, 1, 2, 3}))


def _run_list(runs: Sequence[RunResult]) -> Table:
    rows = tuple(
        (
            run.path.as_posix(),
            run.algorithm,
            str(run.num_workers),
            str(run.seed),
            f"{100 * error:.2f}" if (error := run.number("test_error")) is not None else "-",
            str(run.summary.get("weights_sha256", ""))[:12],
        )
        for run in sorted(runs, key=lambda run: (run.algorithm, run.num_workers, run.seed))
    )
    header = ("folder", "algorithm", "workers", "seed", "test error %", "weights")
    return Table(header, rows, frozenset({0, 1, 5}))


def _value(value: Any) -> str:
    return "yes" if value is True else "no" if value is False else str(value)

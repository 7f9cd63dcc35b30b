"""Facts about runs that a report ends with: settings, hardware and software, and the runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mpi_dcasgd.reporting.collect import RunResult
from mpi_dcasgd.reporting.document import Block, Heading, Table
from mpi_dcasgd.reporting.groups import Group, common_settings, differing_settings


def settings_blocks(
    groups: Sequence[Group], runs: Sequence[RunResult], heading: str = ""
) -> list[Block]:
    """The settings of all runs, and those in which rows differ, as far as they have an effect.

    Args:
        groups: The rows.
        runs: All of them.
        heading: Beginning of the headings.
    """
    used = {key for run in runs for key in run.job if run.uses(key)}
    common = tuple((k, _value(value)) for k, value in common_settings(runs).items() if k in used)
    blocks: list[Block] = [Heading(2, f"{heading}Settings of all runs")]
    blocks.append(Table(("key", "value"), common, frozenset({0, 1})))
    rows: list[tuple[str, str, str]] = []
    for key, values in differing_settings(groups).items():
        if key not in used:
            continue
        rows += [(key, _value(value), "; ".join(labels)) for value, labels in values]
    if rows:
        blocks.append(Heading(2, f"{heading}Settings that differ"))
        blocks.append(Table(("key", "value", "of"), tuple(rows), frozenset({0, 1, 2})))
    return blocks


def environment_blocks(runs: Sequence[RunResult]) -> list[Block]:
    """The hardware and software of the runs, with every value that any of them had."""
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


def run_table(runs: Sequence[RunResult]) -> Table:
    """One row for each run, to be found again by its weights."""
    primary = {(run.measures.primary, run.measures.title(run.measures.primary)) for run in runs}
    name = f"test {primary.pop()[1]}" if len(primary) == 1 else "result"
    shown = _result if name == "result" else _value_alone
    rows = tuple(
        (
            run.path.as_posix(),
            run.algorithm,
            str(run.num_workers),
            str(run.seed),
            shown(run),
            str(run.summary.get("weights_sha256", ""))[:12],
        )
        for run in sorted(runs, key=lambda run: (run.algorithm, run.num_workers, run.seed))
    )
    header = ("folder", "algorithm", "workers", "seed", name, "weights")
    return Table(header, rows, frozenset({0, 1, 5}))


def _value(value: Any) -> str:
    return "yes" if value is True else "no" if value is False else str(value)


def _result(run: RunResult) -> str:
    """The result of a run beside runs of other tasks: with the metric's name and unit."""
    primary = run.measures.primary
    return f"test {primary} {run.measures.shown(primary, run.number(f'test_{primary}'))}"


def _value_alone(run: RunResult) -> str:
    primary = run.measures.primary
    text = run.measures.shown(primary, run.number(f"test_{primary}"))
    return text.removesuffix(f" {run.measures.units.get(primary, '')}")

"""Checking of the plain mapping of a job file: a checked job, or all that is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from mpi_dcasgd.config.own_code import code_folder, with_code
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.config.sections import (
    brought,
    check_fit,
    find_kind,
    is_named,
    own_settings,
)
from mpi_dcasgd.config.servers import check_servers
from mpi_dcasgd.config.unknown_keys import unknown_keys
from mpi_dcasgd.errors import ConfigError, UserError, did_you_mean
from mpi_dcasgd.learning.groups import ParameterGroup, check_groups
from mpi_dcasgd.learning.schedules import ScheduleSettings
from mpi_dcasgd.learning.settings import Named
from mpi_dcasgd.learning.tasks import TaskSource
from mpi_dcasgd.learning.tasks.table import DEFAULT
from mpi_dcasgd.messages import allowed, is_section, problems_of, seen, settings_of
from mpi_dcasgd.modules import searching
from mpi_dcasgd.record.settings import RecordSettings
from mpi_dcasgd.record.sinks import check_sinks
from mpi_dcasgd.rules.algorithms import ALGORITHMS, PARTS, describe_rule, resolve_rule
from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.server.precision import Precision, WireSettings

T = TypeVar("T")


def try_job(
    mapping: Mapping[str, Any], *, name: str, folder: Path | None = None
) -> tuple[Job | None, list[str]]:
    """Check everything that can be checked without the data.

    Args:
        mapping: A job file's content; not changed.
        name: The job's, if it does not say.
        folder: The folder of the job's file, in which modules are looked for; None if it has none.

    Returns:
        The job, or None and every problem found: a line each, beginning with the dotted key.
    """
    code = code_folder(mapping, folder)
    with searching(code, folder, fresh=True):
        job, problems = _try_job(mapping, name)
        return (None if job is None else with_code(job, code, folder)), problems


def _try_job(mapping: Mapping[str, Any], name: str) -> tuple[Job | None, list[str]]:
    settings = settings_of(Job)
    problems = unknown_keys(mapping, "", settings)
    values: dict[str, Any] = {"name": name}
    failed: list[str] = []
    for key, info in settings.items():
        if is_section(info.annotation):
            if key in ("model", "data") and "task" in failed and _of_task(mapping.get(key)):
                failed.append(key)  # the task that was meant may bring its own
                continue
            values[key] = _section(
                info.annotation, mapping.get(key), key, problems, values.get("task")
            )
            failed += [key] if values[key] is None else []
        elif key == "groups":
            values[key] = _groups(mapping.get(key) or (), problems)
            failed += [key] if values[key] is None else []
        elif key in mapping:
            values[key] = mapping[key]
    if not {"task", "model", "data"} & set(failed):
        accumulate = values["compute"].accumulate if values["compute"] else 1
        problems += check_fit(values["model"], values["data"], values.get("batch_size"), accumulate)
    values["rule"] = _rule(values.get("algorithm", "asgd"), mapping.get("rule"), problems)
    given = {key: value for key, value in values.items() if key not in failed}
    job = build(Job, given, "", problems, reported=failed)
    problems += check_servers(job) if job else []
    order = list(settings)
    problems.sort(key=lambda line: _place(line, order))
    return (None if problems else job), problems


def _of_task(section: Any) -> bool:
    """Return whether a job leaves a section to its task."""
    return section is None or (isinstance(section, Mapping) and section.get("name") == "task")


def build(
    kind: type[T],
    values: Mapping[str, Any],
    prefix: str,
    problems: list[str],
    reported: Sequence[object] = (),
) -> T | None:
    """Make a settings dataclass, or note why it cannot be made.

    Args:
        kind: The dataclass.
        values: By field; every key is a field.
        prefix: What stands before the keys in messages.
        problems: Lines are added.
        reported: Fields whose absence has been explained already.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        problems += problems_of(kind, values, prefix, error, reported)
        return None


def known(
    mapping: Mapping[str, Any], prefix: str, kind: type, problems: list[str]
) -> dict[str, Any]:
    """The entries that are fields of a settings dataclass; the others are noted as unknown."""
    settings = settings_of(kind)
    problems += unknown_keys(mapping, prefix, settings)
    return {key: value for key, value in mapping.items() if key in settings}


def known_beside_jobs(
    mapping: Mapping[str, Any], kind: type, problems: list[str]
) -> dict[str, Any]:
    """Like ``known``, for a file that names a job: its keys have a place there."""
    settings = settings_of(kind)
    for key in mapping:
        if key in settings:
            continue
        if near := did_you_mean(str(key), settings):
            problems.append(f"{key}: unknown{near}")
        elif key in settings_of(Job):
            problems.append(f"{key}: unknown; it belongs in the job file, or under set:")
        else:
            problems.append(f"{key}: unknown (allowed: {', '.join(settings)})")
    return {key: value for key, value in mapping.items() if key in settings}


def part_names(algorithm: str) -> dict[str, str]:
    """Return the name of the part that a named algorithm has for each role."""
    return {role: part["name"] for role, part in describe_rule(resolve_rule(algorithm)).items()}


def unknown_algorithm(name: str) -> str:
    """Return the message about an algorithm that does not exist."""
    hint = did_you_mean(name, ALGORITHMS)
    if "=" in name:
        hint = "; put key=value words before the option that takes names"
    return f"unknown algorithm {name!r}{hint} (allowed: {', '.join(ALGORITHMS)})"


def _section(
    kind: Any, value: Any, key: str, problems: list[str], task: TaskSource | None = None
) -> Any:
    """A section's settings, or None if there is something wrong with them."""
    value = {} if value is None else value  # a section whose keys are all commented out
    value = kind.in_short(value) if kind is WireSettings else value
    if not isinstance(value, Mapping):
        hint = f"; to choose one, set {key}.name" if "name" in settings_of(kind) else ""
        what = "a mapping of name and its settings" if is_named(kind) else allowed(kind)
        if kind is WireSettings:
            what = f"{allowed(Precision)}, or {what}"
        problems.append(f"{key}: got {seen(value)}; allowed: {what}{hint}")
        return None
    mine: list[str] = []
    if key == "task":
        value = {"name": DEFAULT, **value}
    if key in ("model", "data") and task is not None and not task.takes(key):
        kind, value = brought(key, value, task.name, mine)
    elif is_named(kind):
        found = find_kind(kind, key, value, mine)
        if found is None:
            problems += mine
            return None
        kind, value = found, own_settings(kind, found, key, value, mine)
    section = build(kind, known(value, f"{key}.", kind, mine), f"{key}.", mine)
    if section is not None:
        mine += [f"{key}.{line}" for line in _look_up(section)]
    problems += mine
    return None if mine else section


def _groups(value: Any, problems: list[str]) -> tuple[ParameterGroup, ...] | None:
    """The parameter groups, or None if there is something wrong with them."""
    if not isinstance(value, list | tuple):
        problems.append(f"groups: got {seen(value)}; allowed: a list of {allowed(ParameterGroup)}")
        return None
    mine: list[str] = []
    found = [_section(ParameterGroup, one, f"groups[{n}]", mine) for n, one in enumerate(value)]
    mine = mine or check_groups(found)
    problems += mine
    return None if mine else tuple(found)


def _look_up(section: Any) -> list[str]:
    """Return what types and ranges cannot say, a line each beginning with the key."""
    try:
        if isinstance(section, Named):
            return section.check()
    except UserError as error:  # of a model or data set of the user's own
        return [f"name: {error}"]
    if isinstance(section, RecordSettings):
        return [f"sinks: {line}" for line in check_sinks(section.sinks)]
    if isinstance(section, ScheduleSettings):
        return _check_schedule(section)
    return []


def _check_schedule(schedule: ScheduleSettings) -> list[str]:
    steps = schedule.milestones
    if schedule.name == "step" and not steps:
        return ["milestones: missing; the schedule step drops lr after these epochs"]
    if list(steps) != sorted(set(steps)):
        return [f"milestones: got {seen(list(steps))}; allowed: epochs in ascending order"]
    return []


def _rule(algorithm: Any, changes: Any, problems: list[str]) -> Rule:
    """The resolved rule; a plain one if it has problems, which are noted."""
    changes = {} if changes is None else changes
    if not isinstance(changes, Mapping):
        problems.append(f"rule: got {seen(changes)}; allowed: a mapping of {', '.join(PARTS)}")
        return Rule()
    if not isinstance(algorithm, str):
        return Rule()  # reported as a value of the wrong type
    if algorithm not in ALGORITHMS:
        problems.append(f"algorithm: {unknown_algorithm(algorithm)}")
        return Rule()
    try:
        return resolve_rule(algorithm, changes)
    except ConfigError as error:
        problems += [f"rule.{line}" for line in error.problems]
        return Rule()


def _place(line: str, order: list[str]) -> int:
    key = re.split(r"[.:\[]", line, maxsplit=1)[0]
    return order.index(key) if key in order else -1

"""Job files: YAML and ``key=value`` overrides in, a checked job out; and back again."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from mpi_dcasgd.config.check import part_names, try_job
from mpi_dcasgd.config.effects import idle_settings, without_effect
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.config.yaml12 import YamlError, dump_yaml, load_yaml
from mpi_dcasgd.errors import ConfigError, did_you_mean
from mpi_dcasgd.learning.hints import as_written
from mpi_dcasgd.messages import seen
from mpi_dcasgd.rules.algorithms import ALGORITHMS, describe_rule
from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.server.precision import WireSettings

_KEY = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*\Z")

Override = tuple[str, Any]
"""A dotted key and its value."""


def load_job(path: Path | str, overrides: Sequence[str] = ()) -> Job:
    """Read and check a job file.

    Args:
        path: The file.
        overrides: ``key=value``, keys with dots, values in YAML; a later one wins.

    Raises:
        ConfigError: With every problem of the file and the overrides.
    """
    path = Path(path)
    return make_job(read_mapping(path), path, overrides)


def make_job(mapping: Mapping[str, Any], path: Path, overrides: Sequence[str] = ()) -> Job:
    """Check the job that a file holds.

    Args:
        mapping: The content of the file.
        path: The file, for its name and for messages.
        overrides: As in `load_job`.

    Raises:
        ConfigError: With every problem of the file and the overrides.
    """
    if "job" in mapping and "algorithms" in mapping:
        raise ConfigError(str(path), ["this is a study, not a job; compare runs it"])
    pairs, problems = parse_overrides(overrides)
    merged, more = with_overrides(mapping, pairs)
    problems += more
    where = f"{path} with overrides" if overrides else str(path)
    job, found = try_job(merged, name=path.stem, folder=path.parent)
    if job is not None:
        found = idle_settings(job, mapping, [key for key, _ in pairs])
    if job is None or problems or found:
        raise ConfigError(where, problems + found)
    return job


def read_mapping(path: Path, what: str = "job") -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        ConfigError: There is no such file, or it is not YAML, empty, or not a mapping.
    """
    where = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(where, [f"no such file{_other_file(path)}"]) from error
    except IsADirectoryError as error:
        raise ConfigError(where, [f"a folder; name the {what} file in it"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError(where, [f"not text in UTF-8: {error.reason} at {error.start}"]) from error
    except OSError as error:
        raise ConfigError(where, [f"cannot be read: {error.strerror}"]) from error
    try:
        value = load_yaml(text)
    except YamlError as error:
        raise ConfigError(where, error.problems) from error
    if value is None:
        raise ConfigError(where, [f"empty; a {what} file is a mapping of keys to values"])
    if not isinstance(value, dict):
        raise ConfigError(where, [f"got {seen(value)}; a {what} file is a mapping of keys"])
    return value


def parse_overrides(overrides: Sequence[str]) -> tuple[list[Override], list[str]]:
    """The keys and values of ``key=value`` words, and what is wrong with the others."""
    pairs: list[Override] = []
    problems: list[str] = []
    for word in overrides:
        key, equals, text = word.partition("=")
        if not equals or not _KEY.match(key):
            problems.append(f"{word!r}: not an override; allowed: key=value, keys with dots")
            continue
        try:
            pairs.append((key, load_yaml(text)))
        except YamlError as error:
            problems += [f"{key}: not YAML: {line}" for line in error.problems]
    return pairs, problems


def with_overrides(
    mapping: Mapping[str, Any], pairs: Sequence[Override]
) -> tuple[dict[str, Any], list[str]]:
    """A changed copy of a job file's content, and the changes that could not be made."""
    merged = copy.deepcopy(dict(mapping))
    problems: list[str] = []
    for key, value in pairs:
        if key == "algorithm":
            _leave_algorithm(merged, value)
    for key, value in pairs:
        *sections, last = key.split(".")
        place: Any = merged
        for depth, section in enumerate(sections):
            inner = place.get(section)
            if inner is None:
                inner = {}
            elif section == "wire" and depth == 0:
                inner = WireSettings.in_short(inner)
            elif isinstance(inner, str) and sections[0] == "rule" and depth == 1:
                inner = {"name": inner}  # a part that is called by its name alone
            place[section] = inner
            if not isinstance(inner, dict):
                at = ".".join(sections[: depth + 1])
                problems.append(f"{key}: cannot be set, for {at} is {seen(inner)}")
                break
            place = inner
        else:
            place[last] = copy.deepcopy(value)
    return merged, problems


def job_as_yaml(job: Job) -> dict[str, Any]:
    """The job as plain values: a mapping that loads again as an equal job."""
    plain = _plain(job)
    assert isinstance(plain, dict)
    return plain


def with_defaults(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """A plain job that an earlier version wrote, with the keys that have come since then.

    Their defaults are what that version did. A job that cannot be read any more stays as it is.
    """
    job, problems = try_job(stored, name=str(stored.get("name", "")))
    return stored if job is None or problems else job_as_yaml(job)


def idle_in(stored: Mapping[str, Any]) -> frozenset[str]:
    """The settings of a stored job that have no effect; empty if it cannot be read any more."""
    job, problems = try_job(stored, name=str(stored.get("name", "")))
    return frozenset() if job is None or problems else without_effect(job)


def job_as_text(job: Job) -> str:
    """The job as a YAML file."""
    return dump_yaml(job_as_yaml(job))


def _leave_algorithm(merged: dict[str, Any], algorithm: Any) -> None:
    """Forget the settings of parts that only the file's own algorithm has.

    ``rule: {compensation: {dc_lambda: 1.0}}`` in a file of dcasgd-a is about its part for this
    role; with ``algorithm=asgd`` there is no such part, and dcasgd-c's needs another value.
    """
    rule, before = merged.get("rule"), merged.get("algorithm", "asgd")
    if not isinstance(rule, dict) or before not in ALGORITHMS or algorithm not in ALGORITHMS:
        return
    old, new = part_names(before), part_names(algorithm)
    for role in old.keys() & rule.keys():
        entry = rule[role]
        name = entry.get("name", old[role]) if isinstance(entry, dict) else entry
        if old[role] != new[role] and name in (old[role], None):
            del rule[role]


def _other_file(path: Path) -> str:
    try:
        names = [file.name for file in path.parent.iterdir() if file.suffix in (".yaml", ".yml")]
    except OSError:
        return ""
    if not path.suffix and f"{path.name}.yaml" in names:
        return f"; did you mean {path}.yaml?"
    near = did_you_mean(path.name, names).removeprefix("; did you mean ").removesuffix("?")
    return f"; did you mean {path.with_name(near)}?" if near else ""


def _plain(value: Any) -> Any:
    if isinstance(value, Rule):
        return _plain(describe_rule(value))
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(inner) for inner in value]
    return as_written(value)

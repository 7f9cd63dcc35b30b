"""The cluster that a simulation runs on: from a file, from a run, and from ``key=value`` words."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from mpi_dcasgd.config.load import Override, parse_overrides, read_mapping
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.config.simulated import with_injected
from mpi_dcasgd.counts import is_whole, no_whole
from mpi_dcasgd.drivers.simulation.cluster import Cluster, parse_cluster
from mpi_dcasgd.drivers.simulation.delays import named_delays
from mpi_dcasgd.errors import ConfigError, UserError
from mpi_dcasgd.messages import seen
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.runs.jobs import plain

_CLUSTER_KEYS = tuple(field.name for field in fields(Cluster))
_OWN_KEYS = ("cluster", "workers", "delay_seed")
KEYS = (*_OWN_KEYS, *_CLUSTER_KEYS)
"""First words of the keys that say what is simulated; all others are the job's."""


@dataclass(frozen=True)
class Simulation:
    """Settings of a simulation, beside the job.

    Attributes:
        workers: Without the server; for ssgd, those whose gradients make a step.
        delay_seed: Of the delays, or None for the job's seed.
        cluster: Decides how long everything takes.
        settings: The cluster as plain values, to be written down.
    """

    workers: int
    delay_seed: int | None
    cluster: Cluster
    settings: dict[str, Any]

    def with_injected(self, job: Job) -> Simulation:
        """Return the simulation of a job that slows its real runs: as slow as those.

        Args:
            job: Its ``inject``; what the cluster itself says, holds.

        Raises:
            ConfigError: They do not go together.
        """
        settings = with_injected(self.settings, job)
        return replace(self, settings=settings, cluster=parse_cluster("inject", settings))


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words about the simulation, and words about the job (``backup=1`` is ``sync.backup=1``)."""
    mine = [word for word in words if _is_mine(word.partition("=")[0])]
    theirs = [word for word in words if word not in mine]
    return mine, [f"sync.{word}" if word.startswith("backup=") else word for word in theirs]


def split_keywords(given: Mapping[str, Any]) -> tuple[list[Override], list[Override]]:
    """Keys and values about the simulation, and those about the job, as ``split_overrides``."""
    mine = [(key, value) for key, value in given.items() if _is_mine(key)]
    theirs = [(key, value) for key, value in given.items() if not _is_mine(key)]
    return mine, [("sync.backup" if key == "backup" else key, value) for key, value in theirs]


def _is_mine(key: str) -> bool:
    return key.partition(".")[0] in KEYS


def resolve_simulation(words: Sequence[str], more: Sequence[Override] = ()) -> Simulation:
    """The simulation that the words describe.

    ``cluster=FILE`` is the ground on which the others build, wherever it stands. ``delays`` is a
    model's name, a mapping, or the folder of a run whose step times are to be drawn from.

    Args:
        words: ``key=value``, values in YAML.
        more: Keys and values, which go before the words. ``cluster`` may also be a mapping.

    Raises:
        ConfigError: With every problem found.
        RunFolderError: ``delays`` names a folder that holds no run with a trace.
    """
    pairs, problems = parse_overrides(words)
    pairs += [(key, plain(value)) for key, value in more]
    given = {key: value for key, value in pairs if key in _OWN_KEYS}
    settings: dict[str, Any] = {}
    file = "cluster" in given and not isinstance(given["cluster"], Mapping)
    if file:
        place = given["cluster"]  # on the command line a number may be a file's name
        given["cluster"] = os.fspath(place) if isinstance(place, os.PathLike) else str(place)
        settings = read_mapping(Path(given["cluster"]), "cluster")
    elif "cluster" in given:
        settings = dict(given["cluster"])
    if "workers" in settings:
        given.setdefault("workers", settings.pop("workers"))
    for key, value in pairs:
        if key not in _OWN_KEYS:
            problems += _place(settings, key.split("."), value)
    if isinstance(settings.get("delays"), str):
        settings["delays"] = _named_delays(settings["delays"])
    counts = {
        "workers": _whole(given, "workers", 1, problems),
        "delay_seed": _whole(given, "delay_seed", 0, problems),
    }
    if "workers" not in given:
        problems.append("workers: missing; set the number of simulated workers, e.g. workers=8")
    where = f"cluster {given['cluster']}" if file else "command line" if words else "cluster"
    try:
        cluster = parse_cluster(where, settings)
    except ConfigError as error:
        raise ConfigError(where, problems + error.problems) from None
    if problems:
        raise ConfigError(where, problems)
    return Simulation(
        workers=counts["workers"] or 1,
        delay_seed=counts["delay_seed"],
        cluster=cluster,
        settings=settings,
    )


def _place(settings: dict[str, Any], path: Sequence[str], value: Any) -> list[str]:
    """Put an override in its place; what is wrong with it, if anything."""
    *sections, last = path
    place: Any = settings
    for depth, section in enumerate(sections):
        inner = place.get(section, {})
        if depth == 0 and isinstance(inner, str) and section == "delays":
            inner = _named_delays(inner)
        if not isinstance(inner, Mapping):
            key = ".".join(path)
            return [f"{key}: cannot be set, for {section} is {seen(inner)}"]
        place[section] = dict(inner)
        place = place[section]
    place[last] = copy.deepcopy(value)
    return []


def _named_delays(name: str) -> Any:
    with suppress(UserError):
        return named_delays(name)
    path = Path(name).expanduser()
    if path.is_dir():
        from mpi_dcasgd.tools.calibration import delays_of_run

        return delays_of_run(RunFolder.open(path))
    return name  # whatever it is, parse_cluster has the words for it


def _whole(given: Mapping[str, Any], key: str, least: int, problems: list[str]) -> int | None:
    value = given.get(key)
    if value is None or is_whole(value, least):
        return None if value is None else int(value)
    problems.append(no_whole(key, seen(value), least))
    return None

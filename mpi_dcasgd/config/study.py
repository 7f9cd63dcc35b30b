"""Study files: one job, and the grid of algorithms, workers, seeds and drivers to run it with."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as default_field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic import dataclasses as pydantic

from mpi_dcasgd.config.check import build, known_beside_jobs, try_job, unknown_algorithm
from mpi_dcasgd.config.load import Override, read_mapping, with_overrides
from mpi_dcasgd.config.messages import seen
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.config.simulated import (
    Driver,
    backup_workers,
    check_injected,
    check_simulated,
    cluster_settings,
    same_steps,
    with_injected,
)
from mpi_dcasgd.errors import STRICT, ConfigError
from mpi_dcasgd.learning.settings import Count
from mpi_dcasgd.rules.algorithms import ALGORITHMS, mode_of

_GRID = {"algorithm": "algorithms", "seed": "seeds"}


@pydantic.dataclass(frozen=True, kw_only=True, config=STRICT)
class StudySettings:
    """What a study file may say."""

    name: Annotated[
        str, Field(min_length=1, description="what its folder is called; else the file's name")
    ]
    job: Annotated[str, Field(min_length=1, description="the job file, relative to the study file")]
    algorithms: Annotated[
        tuple[Any, ...],
        Field(
            strict=False,
            min_length=1,
            description="names, or mappings of algorithm and of dotted keys that go with it",
        ),
    ]
    workers: Annotated[
        tuple[Count, ...],
        Field(strict=False, description="numbers of workers; sgd, which has one, runs once a seed"),
    ] = ()
    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...],
        Field(strict=False, min_length=1, description="a run each"),
    ] = (0,)
    drivers: Annotated[
        tuple[Driver, ...],
        Field(
            strict=False,
            min_length=1,
            description="real runs, their simulated twins, or both; sgd, which has no delays to "
            "simulate, is run as it is, and ssgd with sync.backup is only simulated",
        ),
    ] = ("real",)
    cluster: Annotated[
        dict[str, Any] | str | None,
        Field(
            description="of the simulated runs: the keys of a cluster, its file relative to the "
            "study file, or calibrated: as the real runs beside them measured it; null: "
            "calibrated if there are any"
        ),
    ] = None
    set: Annotated[
        dict[str, Any], Field(description="dotted keys and their values, for all runs")
    ] = default_field(default_factory=dict)
    target_error: Annotated[
        float | None,
        Field(gt=0, lt=1, description="also report how soon this test error was reached"),
    ] = None


@dataclass(frozen=True)
class Element:
    """One run of a study.

    Attributes:
        name: Unique within the study; its folder's name.
        job: Checked.
        num_workers: Without the server; 1 for a sequential run.
        overrides: What makes its job from the study's job file.
        simulated: Whether it takes place in virtual time, as one process.
        cluster: What is simulated, as plain settings; None if a real run is to tell.
        calibrated_from: The name of that real run.
    """

    name: str
    job: Job
    num_workers: int
    overrides: tuple[Override, ...]
    simulated: bool = False
    cluster: Mapping[str, Any] | None = None
    calibrated_from: str | None = None

    @property
    def sequential(self) -> bool:
        return self.job.mode == "sequential"

    @property
    def ranks(self) -> int:
        """Processes that it is made of, a server included."""
        if self.simulated:
            return 1
        return self.job.world(self.num_workers).world_size


@dataclass(frozen=True)
class Study:
    """All runs of a study, in the order in which they are to be run.

    Attributes:
        name: The study's name, which its folder has by default.
        file: The study file.
        job_file: The job file that it names.
        elements: The runs.
        target_error: Also report how soon this test error was reached.
        mapping: The content of the study file.
    """

    name: str
    file: Path
    job_file: Path
    elements: tuple[Element, ...]
    target_error: float | None
    mapping: Mapping[str, Any] = default_field(compare=False, repr=False)


def load_study(path: Path | str) -> Study:
    """Read a study file and check the job of every run.

    Raises:
        ConfigError: With every problem of the file and of all its runs.
    """
    path = Path(path)
    return make_study(read_mapping(path, "study"), path)


def make_study(mapping: Mapping[str, Any], path: Path) -> Study:
    """Check the study that a file holds, and the job of every run.

    Args:
        mapping: The content of the file.
        path: The file; the job that it names lies relative to it.

    Raises:
        ConfigError: With every problem of the file and of all its runs.
    """
    if "algorithms" not in mapping and ("model" in mapping or "data" in mapping):
        raise ConfigError(
            str(path),
            [
                "this is a job, not a study; train or run starts it, and a study names it (job:) "
                "and what to compare (algorithms:)"
            ],
        )
    problems: list[str] = []
    values = known_beside_jobs(mapping, StudySettings, problems)
    settings = build(StudySettings, {"name": path.stem, **values}, "", problems)
    if settings is None:
        raise ConfigError(str(path), problems)
    variants = _variants(settings, problems)
    job_file = path.parent / settings.job
    try:
        base = read_mapping(job_file)
    except ConfigError as error:
        problems += [f"job: {job_file}: {line}" for line in error.problems]
        raise ConfigError(str(path), problems) from error
    cluster = cluster_settings(settings.cluster, settings.drivers, path.parent, problems)
    elements, found = _elements(settings, variants, base, job_file.stem)
    problems += found
    if "simulated" in settings.drivers:
        twins, found = _simulated(elements, cluster)
        problems += found
        real = [e for e in elements if "real" in settings.drivers or e.sequential]
        real = [e for e in real if not backup_workers(e.job)]
        elements = sorted([*real, *twins], key=lambda e: settings.seeds.index(e.job.seed))
    elif any(backup_workers(element.job) for element in elements):
        problems.append(
            "sync.backup: an allreduce waits for every rank, so only simulated runs have backup "
            "workers; say drivers: [real, simulated]"
        )
    if problems:
        raise ConfigError(str(path), problems)
    return Study(settings.name, path, job_file, tuple(elements), settings.target_error, mapping)


@dataclass(frozen=True)
class _Variant:
    """One entry of ``algorithms``: what it is called, and what it sets."""

    label: str
    algorithm: str
    overrides: tuple[Override, ...]


def _variants(settings: StudySettings, problems: list[str]) -> list[_Variant]:
    entries: list[tuple[str, dict[str, Any]]] = []
    places: list[int] = []
    for index, entry in enumerate(settings.algorithms):
        changes = dict(entry) if isinstance(entry, Mapping) else {"algorithm": entry}
        algorithm = changes.pop("algorithm", None)
        if not isinstance(algorithm, str):
            problems.append(
                f"algorithms[{index}]: got {seen(entry)}; allowed: an algorithm's name, or a "
                "mapping with the key algorithm"
            )
        elif algorithm not in ALGORITHMS:
            problems.append(f"algorithms[{index}]: {unknown_algorithm(algorithm)}")
        elif "seed" in changes:
            problems.append(f"algorithms[{index}]: seed is what seeds are for")
        elif (algorithm, changes) in entries:
            first = places[entries.index((algorithm, changes))]
            problems.append(f"algorithms[{index}]: the same as algorithms[{first}]")
        else:
            entries.append((algorithm, changes))
            places.append(index)
    parallel = [name for name, _ in entries if mode_of(name) != "sequential"]
    if parallel and not settings.workers:
        problems.append(f"workers: missing; {parallel[0]} needs a list of whole numbers >= 1")
    problems += [f"set.{key}: is what {_GRID[key]} are for" for key in settings.set if key in _GRID]
    for key in ("workers", "seeds", "drivers"):
        values = getattr(settings, key)
        if len(set(values)) < len(values):
            what = "word" if key == "drivers" else "number"
            problems.append(f"{key}: got {seen(list(values))}; allowed: each {what} once")
    labels = _labels(entries)
    return [
        _Variant(label, algorithm, tuple(changes.items()))
        for label, (algorithm, changes) in zip(labels, entries, strict=True)
    ]


def _labels(entries: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """A short name each, all different: the algorithm, and where need be what sets it apart."""
    labels: list[str] = []
    for algorithm, changes in entries:
        others = [c for name, c in entries if name == algorithm and c is not changes]
        apart = {
            key: value
            for key, value in changes.items()
            if any(key not in other or other[key] != value for other in others)
        }
        words = [f"{key.rpartition('.')[2]}{value}" for key, value in apart.items()]
        label = re.sub(r"[^\w.+-]+", "_", "-".join([algorithm, *words])).strip("_")
        number = next(n for n in itertools.count(1) if _numbered(label, n) not in labels)
        labels.append(_numbered(label, number))
    return labels


def _numbered(label: str, number: int) -> str:
    return label if number == 1 else f"{label}-{number}"


def _elements(
    settings: StudySettings, variants: Sequence[_Variant], base: Mapping[str, Any], name: str
) -> tuple[list[Element], list[str]]:
    elements: list[Element] = []
    told: dict[str, list[str]] = {}
    for variant in variants:
        sequential = mode_of(variant.algorithm) == "sequential"
        for seed in settings.seeds:
            pairs = (
                *settings.set.items(),
                *variant.overrides,
                ("algorithm", variant.algorithm),
                ("seed", seed),
            )
            merged, problems = with_overrides(base, pairs)
            job, found = try_job(merged, name=name)
            sizes = (1,) if sequential else settings.workers
            if job is not None and not sequential:
                found = [line for size in sizes for line in check_injected(job, size)]
            for line in dict.fromkeys(problems + found):
                labels = told.setdefault(line, [])
                labels += [variant.label] if variant.label not in labels else []
            if job is None:
                continue
            for workers in sizes:
                size = "" if sequential else f"-w{workers}"
                elements.append(Element(f"{variant.label}{size}-s{seed}", job, workers, pairs))
    everywhere = [variant.label for variant in variants]
    # All algorithms with one seed, then with the next: what stops early can be compared already,
    # and a machine that is slow for a while is so for all of them.
    elements.sort(key=lambda element: settings.seeds.index(element.job.seed))
    return elements, [_with_labels(line, told[line], everywhere) for line in told]


def _simulated(
    elements: Sequence[Element], cluster: Mapping[str, Any] | None
) -> tuple[list[Element], list[str]]:
    """The simulated twins of real runs, and what keeps some from having one."""
    twins: list[Element] = []
    problems: dict[str, None] = {}
    for element in elements:
        if element.sequential:
            continue
        twin = replace(element, name=f"{element.name}-simulated", simulated=True)
        if cluster is None:
            source = _source(element, elements)
            if source is None:
                problems[f"cluster: {_NO_SOURCE.format(element.job.algorithm)}"] = None
                continue
            twins.append(replace(twin, calibrated_from=source.name))
            problems |= dict.fromkeys(check_simulated({}, element.job, element.num_workers))
        else:
            settings = with_injected(cluster, element.job)
            twins.append(replace(twin, cluster=settings))
            found = check_simulated(settings, element.job, element.num_workers)
            problems |= dict.fromkeys(found)
    return twins, list(problems)


_NO_SOURCE = (
    "{} has no asynchronous run beside it to be calibrated from, with as large steps (model, data, "
    "batch_size, device, threads, capture, inject); add asgd to algorithms, or give a mapping or "
    "the file of a cluster"
)


def _source(element: Element, elements: Sequence[Element]) -> Element | None:
    """The run whose delays a simulated one takes: the first, so that all have the same."""
    for other in elements:
        alike = (other.num_workers, other.job.seed) == (element.num_workers, element.job.seed)
        asynchronous = other.job.mode == "asynchronous"
        if alike and asynchronous and same_steps(element.job, other.job):
            return other
    return None


def _with_labels(line: str, labels: list[str], everywhere: Iterable[str]) -> str:
    return line if labels == list(everywhere) else f"{', '.join(labels)}: {line}"

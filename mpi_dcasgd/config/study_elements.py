"""The runs of a study: the grid of its algorithms, workers and seeds, and their simulated twins."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mpi_dcasgd.config.check import try_job, unknown_algorithm
from mpi_dcasgd.config.effects import idle_settings
from mpi_dcasgd.config.load import Override, with_overrides
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.config.simulated import (
    check_injected,
    check_simulated,
    same_steps,
    with_injected,
)
from mpi_dcasgd.config.study_settings import StudySettings
from mpi_dcasgd.extension import is_path
from mpi_dcasgd.messages import seen
from mpi_dcasgd.modules import folder_of
from mpi_dcasgd.rules.algorithms import ALGORITHMS, mode_of

_GRID = {"algorithm": "algorithms", "seed": "seeds"}


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
        label: Of the study's entry that it is of.
    """

    name: str
    job: Job
    num_workers: int
    overrides: tuple[Override, ...]
    simulated: bool = False
    cluster: Mapping[str, Any] | None = None
    calibrated_from: str | None = None
    label: str = ""

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
class Variant:
    """One entry of a study's ``algorithms``.

    Attributes:
        label: Unique within the study; the names of its runs begin with it.
        algorithm: A named one.
        overrides: Keys that go with it, and their values.
    """

    label: str
    algorithm: str
    overrides: tuple[Override, ...]


def choose_variants(settings: StudySettings, problems: list[str]) -> list[Variant]:
    """Return the entries of ``algorithms``, and check them and the grid that they span.

    Args:
        settings: Of the study file.
        problems: Lines are added; an entry that has any is left out.
    """
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
        Variant(label, algorithm, tuple(changes.items()))
        for label, (algorithm, changes) in zip(labels, entries, strict=True)
    ]


def _labels(entries: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """Return a short name each, all different: the algorithm, and what sets it apart if needed."""
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


def lay_out(
    settings: StudySettings, variants: Sequence[Variant], base: Mapping[str, Any], job_file: Path
) -> tuple[list[Element], list[str]]:
    """Return a real run for every variant, number of workers and seed, and what is wrong.

    Args:
        settings: Of the study file.
        variants: From `choose_variants`.
        base: The content of the job file.
        job_file: The file; the job is called by its name, if it does not say.

    Returns:
        The runs in order, and every problem once, with the variants that have it.
    """
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
            job, found = try_job(merged, name=job_file.stem, folder=job_file.parent)
            if job is not None:
                mine = [key for key, _ in variant.overrides]
                found = idle_settings(job, base, mine, [*settings.set, "algorithm"])
            sizes = (1,) if sequential else settings.workers
            if job is not None and not sequential:
                found += [line for size in sizes for line in check_injected(job, size)]
            for line in dict.fromkeys(problems + found):
                labels = told.setdefault(line, [])
                labels += [variant.label] if variant.label not in labels else []
            if job is None:
                continue
            for workers in sizes:
                size = "" if sequential else f"-w{workers}"
                name = f"{variant.label}{size}-s{seed}"
                elements.append(Element(name, job, workers, pairs, label=variant.label))
    everywhere = [variant.label for variant in variants]
    # All algorithms with one seed, then with the next: what stops early can be compared already,
    # and a machine that is slow for a while is so for all of them.
    elements.sort(key=lambda element: settings.seeds.index(element.job.seed))
    return elements, [_with_labels(line, told[line], everywhere) for line in told]


def simulated_twins(
    elements: Sequence[Element], cluster: Mapping[str, Any] | None, *, complete: bool
) -> tuple[list[Element], list[str]]:
    """Return the simulated twins of real runs, and what keeps some from having one.

    Args:
        elements: Real runs of a study; sequential ones have no twin.
        cluster: What is simulated, as plain settings; None to calibrate it from a real run.
        complete: No run is missing because its job is wrong, which might be that real run.
    """
    twins: list[Element] = []
    problems: dict[str, None] = {}
    for element in elements:
        if element.sequential:
            continue
        twin = replace(element, name=f"{element.name}-simulated", simulated=True)
        if cluster is None:
            source = _source(element, elements)
            if source is None:
                if complete:
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


def with_code_of_delays(element: Element) -> Element:
    """Return a run whose job says where the delays come from, if they alone are the user's own."""
    delays = (element.cluster or {}).get("delays")
    model = delays.get("model") if isinstance(delays, Mapping) else None
    if element.job.code is not None or not isinstance(model, str) or not is_path(model):
        return element
    folder = folder_of(model.partition(":")[0])
    code = None if folder is None else str(folder)
    return replace(element, job=replace(element.job, code=code))


_NO_SOURCE = (
    "{} has no asynchronous run beside it to be calibrated from, with as large steps (model, data, "
    "batch_size, device, threads, capture, inject); add asgd to algorithms, or give a mapping or "
    "the file of a cluster"
)


def _source(element: Element, elements: Sequence[Element]) -> Element | None:
    """Return the run whose delays a simulated one takes: the first, so that all have the same."""
    for other in elements:
        alike = (other.num_workers, other.job.seed) == (element.num_workers, element.job.seed)
        asynchronous = other.job.mode == "asynchronous"
        if alike and asynchronous and same_steps(element.job, other.job):
            return other
    return None


def _with_labels(line: str, labels: list[str], everywhere: Iterable[str]) -> str:
    return line if labels == list(everywhere) else f"{', '.join(labels)}: {line}"

"""Jobs from files, mappings and other jobs, with changes given as keywords or as words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mpi_dcasgd.config.check import try_job
from mpi_dcasgd.config.effects import idle_settings
from mpi_dcasgd.config.load import (
    Override,
    job_as_yaml,
    parse_overrides,
    read_mapping,
    with_overrides,
)
from mpi_dcasgd.config.own_code import code_folder
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.runs.arguments import check_arguments, several
from mpi_dcasgd.runs.given import (
    SECTIONS,
    GivenTask,
    brought_by,
    is_task,
    section_of,
    sections_with,
)

JobSource = Job | Path | str | Mapping[str, Any]
"""A job, its file, or its content."""


def load_job(
    job: JobSource,
    *,
    task: GivenTask | None = None,
    words: str | Sequence[str] = (),
    **overrides: Any,
) -> Job:
    """Read and check a job.

    Args:
        job: A file, the content of one as a mapping, or a job that is to be changed.
        task: A task of one's own in place of the job's: made with its settings, a class, or a
            mapping of name and settings. What it brings itself, model and data, the job then need
            not have.
        words: Changes as on the command line, ``key=value`` with values in YAML.
        **overrides: Changes by key, which go before ``words``. Keys with dots are given as
            ``**{"rule.compensation.dc_lambda": 1.0}``; a value may also be a mapping. ``model`` and
            ``data`` may be a function or a class, or a mapping whose ``name`` is one.

    Returns:
        The job, with everything filled in.

    Raises:
        ConfigError: With every problem of the job and its changes.

    Example:
        >>> job = load_job("jobs/digits.yaml", algorithm="dcasgd-c", epochs=2)
        >>> load_job(job, **{"rule.compensation.dc_lambda": 2.0}).epochs
        2
    """
    check_arguments(load_job, locals())
    pairs, problems = parse_overrides(several(words))
    return resolve_job(job, [*pairs, *with_task(overrides, task).items()], problems)


def with_task(overrides: Mapping[str, Any], task: GivenTask | None) -> dict[str, Any]:
    """Return changes by key, the task among them if one was given."""
    return {**overrides} if task is None else {**overrides, "task": task}


def resolve_job(job: JobSource, pairs: Sequence[Override], problems: Sequence[str] = ()) -> Job:
    """Read and check a job with changes whose keys may have dots.

    Args:
        job: As for ``load_job``.
        pairs: Keys and values; a later one wins.
        problems: Those that have been found with the changes so far.

    Raises:
        ConfigError: With every problem.
    """
    folder: Path | None = None
    if isinstance(job, Job):
        if not pairs and not problems:
            return job
        name, where, mapping = job.name, f"job {job.name}", job_as_yaml(job)
    elif isinstance(job, Mapping):
        name, where, mapping = "job", "job", plain(_named(job))
    else:
        path = Path(job)
        folder = path.parent
        name, where, mapping = path.stem, str(path), read_mapping(path)
    if "job" in mapping and "algorithms" in mapping:
        raise ConfigError(where, ["this is a study, not a job; compare runs it"])
    mapping, pairs = _with_given(mapping, pairs)
    merged, more = with_overrides(mapping, [(key, plain(value)) for key, value in pairs])
    if pairs or problems:
        where += " with overrides"
    found, others = try_job(merged, name=name, folder=folder)
    if found is not None:
        others = idle_settings(found, mapping, [key for key, _ in pairs])
    if found is None or problems or more or others:
        raise ConfigError(where, [*problems, *more, *others])
    return found


def _named(job: Mapping[str, Any]) -> dict[str, Any]:
    """A job's content with the sections that a program gave as objects."""
    task = job.get("task")
    sections = {**sections_with(task), **job}
    return {
        key: section_of(key, value) if key in SECTIONS else value for key, value in sections.items()
    }


def _with_given(
    mapping: Mapping[str, Any], pairs: Sequence[Override]
) -> tuple[dict[str, Any], list[Override]]:
    """A job's content and its changes, where a change may be a task, a class or a function.

    A task that is given as an object leaves out the sections of the job that were for another:
    the model and the data that it brings itself.
    """
    changed = {key for key, _ in pairs}
    found: list[Override] = []
    for key, value in pairs:
        if key == "task" and is_task(value):
            gone = [section for section in brought_by(value) if section not in changed]
            mapping = {name: inner for name, inner in mapping.items() if name not in gone}
            sections = sections_with(value)
            found += [(name, sections[name]) for name in sections if name not in changed]
        found.append((key, value))
    return dict(mapping), [
        (key, section_of(key, value) if key in SECTIONS else value) for key, value in found
    ]


def folders_of(job: JobSource) -> list[Path]:
    """List the folders in which the modules that a job names are looked for first.

    Args:
        job: As for ``load_job``; a file that cannot be read counts for nothing.
    """
    if isinstance(job, Job):
        return [] if job.code is None else [Path(job.code)]
    folder: Path | None = None
    if isinstance(job, Mapping):
        mapping = job
    else:
        folder = Path(job).parent
        try:
            mapping = read_mapping(Path(job))
        except ConfigError:
            mapping = {}
    code = code_folder(mapping, folder)
    return [place for place in (code, folder) if place is not None]


def plain(value: Any) -> Any:
    """Return a value as YAML would have given it: NumPy's numbers, tuples and paths become plain.

    Example:
        >>> plain({"hidden": (16, 8), "path": Path("data")})
        {'hidden': [16, 8], 'path': 'data'}
    """
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, Path):
        return str(value)
    for kind in (int, float, str):  # NumPy's float64 is a float, but nothing else takes it for one
        if isinstance(value, kind) and not isinstance(value, bool):
            return kind(value)
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", None) == 0 else value

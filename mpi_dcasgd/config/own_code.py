"""Code of a user's own that a job names: which, and the folder that it is in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.extension import is_path
from mpi_dcasgd.modules import folder_of, taken_elsewhere
from mpi_dcasgd.places import is_installed
from mpi_dcasgd.rules.algorithms import describe_rule
from mpi_dcasgd.sources import Source, changes, sources_of, text_of

_LARGEST = 1 << 20
"""Bytes from which on a source is not copied into the run folder."""


def own_names(job: Job) -> list[str]:
    """List what a job names by ``package.module:Name``, each once."""
    delays = job.inject.delays
    names = [
        job.task.name,
        job.model.name,
        job.data.name,
        *(part["name"] for part in describe_rule(job.rule).values()),
        *([] if delays is None else [delays.model]),
        *job.record.sinks,
    ]
    return [name for name in dict.fromkeys(names) if is_path(name)]


@dataclass(frozen=True)
class OwnCode:
    """Sources of a job's own code.

    Attributes:
        names: What is the user's own.
        sources: The modules, and those beside them that they imported.
    """

    names: tuple[str, ...]
    sources: tuple[Source, ...]

    @classmethod
    def of(cls, job: Job, virtual: Mapping[str, Any] | None = None) -> OwnCode:
        """Find the sources of a job, and of the delays that it is simulated with.

        Args:
            job: Its modules are loaded.
            virtual: As for ``runs.recording.Recording``.
        """
        delays = ((virtual or {}).get("cluster") or {}).get("delays")
        model = delays.get("model") if isinstance(delays, Mapping) else None
        names = [*own_names(job), *([model] if isinstance(model, str) and is_path(model) else [])]
        return cls(tuple(names), tuple(sources_of(names)))

    def copies(self) -> dict[Path, bytes]:
        """Read what is worth a copy: small files, and none that was installed."""
        texts = {
            source.place: text_of(source, self.names)
            for source in self.sources
            if not is_installed(Path(source.file))
        }
        return {place: text for place, text in texts.items() if text and len(text) < _LARGEST}

    def changes(self, then: Sequence[Mapping[str, Any]]) -> list[str]:
        """Say what has changed since it was recorded, one line each."""
        return changes(then, self.sources)


def own_modules(job: Job) -> list[str]:
    """List the modules that a job names, each once."""
    return list(dict.fromkeys(name.partition(":")[0] for name in own_names(job)))


def code_folder(mapping: Mapping[str, Any], folder: Path | None) -> Path | None:
    """Return the folder that a job's ``code`` names, or None if it names none.

    Args:
        mapping: The job's content; not checked yet.
        folder: The folder of the job's file, which a relative path goes by; None if it has none.
    """
    code = mapping.get("code")
    if not isinstance(code, str) or not code:
        return None
    return Path(folder or "", code).expanduser().absolute()


def with_code(job: Job, code: Path | None, folder: Path | None) -> Job:
    """Return the job with the folder that its modules came from, so that they are found again.

    Args:
        job: Checked just now, so that its modules are loaded.
        code: From `code_folder`.
        folder: The folder of the job's file.
    """
    modules = own_modules(job)
    origins = [origin for module in modules if (origin := folder_of(module)) is not None]
    if origins and code not in origins:
        code = origins[0]
    elif modules and code is None and folder is not None:
        code = folder.absolute()
    return job if code is None else replace(job, code=str(code))


def warnings(job: Job) -> list[str]:
    """List the modules that are not those beside the job, though there are such, a line each."""
    with job.importing():
        return [line for module in own_modules(job) if (line := taken_elsewhere(module))]

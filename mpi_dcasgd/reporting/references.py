"""References of a report: the papers whose rules its runs used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from pydantic import ValidationError

from mpi_dcasgd.reporting.collect import RunResult
from mpi_dcasgd.rules.algorithms import ALGORITHMS, PARTS
from mpi_dcasgd.rules.part import Part
from mpi_dcasgd.rules.references import Reference


def cited(runs: Sequence[RunResult]) -> tuple[Reference, ...]:
    """Return the papers that the rules of runs come from, each once, by first author."""
    found = {reference for run in runs for reference in job_references(run.job)}
    return tuple(sorted(found, key=lambda each: (each.authors[0].split()[-1], each.year)))


def job_references(job: Mapping[str, Any]) -> tuple[Reference, ...]:
    """Return the papers that a job's rule comes from.

    A part of the user's own has none here: a report needs the run folder alone, and imports no
    module of somebody else's.

    Args:
        job: Resolved, flat: dotted key to value.
    """
    named = ALGORITHMS.get(str(job.get("algorithm")))
    found: list[Reference] = []
    for role, kinds in PARTS.items():
        default = named.parts.get(role) if named else None
        name = job.get(f"rule.{role}.name", default or next(iter(kinds)))
        kind = kinds.get(name)
        if kind is not None:
            found += _part(kind, f"rule.{role}.", job).references()
    return tuple(dict.fromkeys(found))


def _part(kind: type[Part], prefix: str, job: Mapping[str, Any]) -> Part:
    settings = {f.name: job[prefix + f.name] for f in fields(kind) if prefix + f.name in job}
    try:
        return kind(**settings)
    except ValidationError:  # settings of another version: those of today name the paper as well
        return kind()

"""Keys that a job does not have: what was probably meant, or where in the job it belongs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import cache
from typing import Any

from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.config.sections import keys_of
from mpi_dcasgd.errors import did_you_mean
from mpi_dcasgd.messages import is_section, settings_of
from mpi_dcasgd.rules.algorithms import PARTS

_OTHER_WORDS = {
    "learning_rate": "lr",
    "dataset": "data.name",
    "root": "data.path",
    "arch": "model.name",
    "architecture": "model.name",
    "optimizer": "algorithm",
    "lambda": "rule.compensation.dc_lambda",
    "l2": "rule.weight_decay.rate",
}
_WORKERS = ("workers", "num_workers", "world_size", "ranks", "num_tasks")


def unknown_keys(mapping: Mapping[str, Any], prefix: str, siblings: Iterable[str]) -> list[str]:
    """Return a line for each key that is not one of a section's.

    Args:
        mapping: The section as it is in the file.
        prefix: What stands before its keys in messages.
        siblings: Keys that the section may have.
    """
    return [
        f"{prefix}{key}: {_unknown(str(key), prefix, list(siblings))}"
        for key in mapping
        if key not in siblings
    ]


def _unknown(key: str, prefix: str, siblings: list[str]) -> str:
    places = _places()
    if not prefix and key in _WORKERS:
        return "unknown; the number of workers is no key of a job, set it at the start (-n)"
    if key in _OTHER_WORDS:
        return f"unknown; did you mean {_OTHER_WORDS[key]}?"
    if "." in key and key.partition(".")[0] in settings_of(Job):
        section, _, rest = key.partition(".")
        return f"unknown; dots are for overrides, in a file write {section}: {{{rest}: ...}}"
    if key in places:
        return f"unknown; did you mean {' or '.join(places[key][:3])}?"
    if near := did_you_mean(key, siblings):
        return "unknown" + near.replace("did you mean ", f"did you mean {prefix}")
    meant = {**_OTHER_WORDS, **{word: found[0] for word, found in places.items()}}
    if near := did_you_mean(key, meant):
        close = near.removeprefix("; did you mean ").removesuffix("?")
        return f"unknown; did you mean {meant[close]}?"
    return f"unknown (allowed: {', '.join(siblings)})"


@cache
def _places() -> dict[str, list[str]]:
    """Every key of a job by its last word, outer ones first."""
    found: dict[str, list[str]] = {}
    for key, info in settings_of(Job).items():
        found.setdefault(key, []).append(key)
        if is_section(info.annotation):
            for inner in keys_of(info.annotation):
                found.setdefault(inner, []).append(f"{key}.{inner}")
    for role in PARTS:
        found.setdefault(role, []).append(f"rule.{role}")
    for role, kinds in PARTS.items():
        for kind in kinds.values():
            for setting in fields(kind):
                path = f"rule.{role}.{setting.name}"
                places = found.setdefault(setting.name, [])
                # A role that is called as its own setting (momentum) is found by the role.
                if path not in places and setting.name != role:
                    places.append(path)
    return found

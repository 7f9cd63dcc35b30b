"""Differences between two jobs that make them different runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"rule": {"momentum": {"name": "none"}}}`` as ``{"rule.momentum.name": "none"}``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def changed_keys(
    stored: Mapping[str, Any], wanted: Mapping[str, Any], beside: Sequence[str] = ()
) -> tuple[str, ...]:
    """The dotted keys that differ.

    What is shown and written down makes no other run, nor does the folder that code is in, who
    loads samples or how long is waited for a worker: ``record``, ``checkpoint``, ``faults``,
    ``code`` and ``data.loaders`` are left out.

    Args:
        stored: A plain job.
        wanted: Another.
        beside: Further keys of the top level to leave out.
    """
    old, new = flatten(stored), flatten(wanted)
    missing = object()
    out = {"record", "checkpoint", "faults", "code", *beside}
    return tuple(
        key
        for key in sorted(old.keys() | new.keys())
        if key.partition(".")[0] not in out
        and key != "data.loaders"
        and old.get(key, missing) != new.get(key, missing)
    )

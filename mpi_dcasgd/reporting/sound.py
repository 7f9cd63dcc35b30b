"""Checks that a record has the form a report relies on: files can be cut off, or edited."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

_COUNTS = ("world_size", "num_workers")
_PLAIN = ("name", "model", "data", "batch_size", "epochs", "num_samples")


def check_summary(summary: Mapping[str, Any]) -> None:
    """Check what is read of a summary without further ado.

    Raises:
        ValueError: A value has another form; the text names its key.
    """
    for key in _COUNTS:
        if _number(summary, key, "summary") < 1:
            raise ValueError(f"summary: {key}: got {summary[key]}; allowed: 1 or more")
    for key in _PLAIN:
        if isinstance(summary.get(key), (list, dict)):
            raise ValueError(f"summary: {key}: got {summary[key]!r}, which is no single value")


def check_events(events: Iterable[Mapping[str, Any]]) -> None:
    """Check evaluations and the accounts of workers of a run that has completed.

    Raises:
        ValueError: A value is missing or no finite number, and the text names its key; or the
            record ends before the run did.
    """
    ended = False
    for event in events:
        kind = event["event"]
        ended |= kind == "end" and event.get("status") == "completed"
        if kind == "evaluation":
            for key in ("time_s", "epoch", "samples"):
                _number(event, key, kind)
        elif kind == "worker":
            keys = [key for key in event if key.endswith("_s")]
            for key in ("worker", "updates", *keys):
                _number(event, key, kind)
    if not ended:
        raise ValueError("its events have no end, though the run completed: the file was cut off")


def _number(values: Mapping[str, Any], key: str, where: str) -> float:
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{where}: {key}: got {value!r}; allowed: a number")
    return value

"""Measurements of update rules as JSON and as a table."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from typing import Any

import torch

from mpi_dcasgd.record.environment import cpu_model, package_versions
from mpi_dcasgd.tools.bench.spread import Spread
from mpi_dcasgd.tools.bench.update import Measured

TARGET = 0.9
"""``update_over_triad`` that every elementwise rule is meant to reach at 25.6 M parameters."""


def machine(repeats: int) -> dict[str, Any]:
    """Description of this machine and of its load."""
    return {
        "cpu": cpu_model(),
        "cpus": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "packages": package_versions(),
        "threads": torch.get_num_threads(),
        "repeats": repeats,
    }


def as_json(where: dict[str, Any], measured: Sequence[Measured]) -> str:
    """One object a rule and size; times in seconds, bandwidths in bytes a second.

    Of each time the median over the repeats; of ``update_over_triad`` also the extremes.
    """
    results = [entry for one in measured for entry in _entries(one)]
    return json.dumps({"machine": where, "target": TARGET, "results": results}, indent=2)


def _entries(one: Measured) -> list[dict[str, Any]]:
    return [
        {
            "rule": rule,
            "num_params": one.num_params,
            "kernel": one.kernel,
            "vectors_moved": one.vectors_moved,
            "update_over_triad": one.update_over_triad.median,
            "update_over_triad_min": one.update_over_triad.least,
            "update_over_triad_max": one.update_over_triad.most,
            "update_s": one.update_s.median,
            "blocks_s": one.blocks_s.median,
            "plain_s": one.plain_s.median,
            "triad_s": one.triad_s.median,
            "update_bytes_per_s": one.update_bytes_per_s,
            "triad_bytes_per_s": one.triad_bytes_per_s,
            "prepare_s": one.prepare_s,
            **_grouped_entry(one),
        }
        for rule in one.rules
    ]


def _grouped_entry(one: Measured) -> dict[str, Any]:
    if one.grouped_s is None or one.grouped_over_one is None:
        return {}
    ratio = one.grouped_over_one
    return {
        "groups": one.groups,
        "grouped_s": one.grouped_s.median,
        "grouped_over_one": ratio.median,
        "grouped_over_one_min": ratio.least,
        "grouped_over_one_max": ratio.most,
    }


def as_table(where: dict[str, Any], measured: Sequence[Measured]) -> str:
    """A Markdown table, rules that come to the same chain in one row."""
    lines = [
        f"{where['cpu']}, {where['cpus']} CPUs, load {where['load'][0]} when done; "
        f"torch {torch.__version__}, {where['threads']} thread(s), "
        f"medians of {where['repeats']} (plain: {min(3, where['repeats'])})",
        "",
        "| rules | parameters | vectors | fused ms | blocks ms | plain ms | GB/s | triad GB/s "
        "| over triad (min to max) |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    if measured and measured[0].grouped_s is not None:
        lines[-2] += f" {measured[0].groups} groups ms | over one group (min to max) |"
        lines[-1] += "---:|---:|"
    return "\n".join([*lines, *map(_row, measured)])


def _row(one: Measured) -> str:
    ratio = one.update_over_triad
    cells: tuple[str, ...] = (
        ", ".join(one.rules),
        f"{one.num_params / 1e6:.2f} M",
        str(one.vectors_moved),
        _milliseconds(one.update_s) + (" (blocks)" if one.kernel == "blocks" else ""),
        _milliseconds(one.blocks_s),
        _milliseconds(one.plain_s),
        f"{one.update_bytes_per_s / 1e9:.1f}",
        f"{one.triad_bytes_per_s / 1e9:.1f}",
        str(ratio),
    )
    if one.grouped_s is not None and one.grouped_over_one is not None:
        cells = (*cells, _milliseconds(one.grouped_s), str(one.grouped_over_one))
    return f"| {' | '.join(cells)} |"


def _milliseconds(spread: Spread) -> str:
    return f"{spread.median * 1e3:.3g}"

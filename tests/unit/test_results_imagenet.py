"""The study of what ResNet-50 on ImageNet needs: its tables from made-up rows."""

from __future__ import annotations

from typing import Any

from mpi_dcasgd.tools.results.imagenet_path import page


def test_tables_tell_memory_and_time() -> None:
    timing = {"images_per_s": 1214.0, "hours": 35.2, "workers_busy": 0.92, "staleness_mean": 15.0}
    plan = {"part": "plan", "step_s": 0.4, "workers": 16, "server_busy": 0.44, **timing}
    rows: list[dict[str, Any]] = [
        {"part": "memory", "needs": {"server": {"the weights": 2**20, "more": 3 * 2**20}}},
        {**plan, "algorithm": "ssgd"},
        {**plan, "algorithm": "dcasgd-a"},
    ]
    tables = page(rows).tables
    assert "| server | in all | 4 MiB |" in tables["memory"]
    sync, asynchronous = tables["plan"].splitlines()[2:]
    assert "| 35 h |  | 92 % |" in sync
    assert "| 0.4 s (80 images/s) | `dcasgd-a` | 16 | 1,214 | 35 h | 44 % |" in asynchronous

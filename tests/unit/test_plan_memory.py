from __future__ import annotations

from pathlib import Path

import pytest

from mpi_dcasgd.config.check import try_job
from mpi_dcasgd.config.needs import available_bytes
from mpi_dcasgd.config.plan import check_memory, plan_job
from mpi_dcasgd.errors import ConfigError

JOB = {
    "epochs": 1,
    "batch_size": 8,
    "lr": 0.1,
    "algorithm": "dana",
    "model": {"name": "mlp", "hidden": [4096, 4096]},
    "data": {"name": "digits"},
}


def test_a_rule_that_needs_more_than_the_server_has_is_refused_with_the_numbers() -> None:
    job, problems = try_job(JOB, name="job")
    assert job is not None, problems
    plan = plan_job(job, world_size=65)
    need = plan.needs[0].total_bytes
    check_memory(plan, need, "job.yaml")
    check_memory(plan, None, "job.yaml")
    with pytest.raises(ConfigError) as caught:
        check_memory(plan, need - 1, "job.yaml")
    text = str(caught.value)
    # dana keeps a velocity for each of 64 workers and their sum.
    assert f"{65 * plan.num_params * 4 / 2**30:.1f} GiB for the rule's state, 65 vectors" in text
    assert f"needs {need / 2**30:.1f} GiB" in text
    assert "fewer workers" in text


def test_available_memory_is_read_where_the_system_tells_it(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       24000000 kB\nMemAvailable:   1000 kB\n")
    assert available_bytes(meminfo) == 1_024_000
    assert available_bytes(tmp_path / "missing") is None

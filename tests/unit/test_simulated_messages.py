"""A simulated run has the messages of its job: to so many servers, in 16 bits, in chunks."""

from __future__ import annotations

from typing import Any

import pytest

import mpi_dcasgd
from mpi_dcasgd.config.simulated import with_injected
from mpi_dcasgd.shipped import shipped

JOB = shipped("jobs/digits.yaml")


@pytest.mark.parametrize(
    ("changes", "exchange"),
    [
        ({}, None),
        ({"wire": "bf16"}, {"element_bytes": 2}),
        ({"wire": {"push": "fp16"}}, None),
        ({"servers": 3}, {"servers": 3}),
        ({"chunk_mb": 0.5}, {"chunk_bytes": 500_000}),
        ({"chunk_mb": 0}, None),
        ({"algorithm": "ssgd"}, None),
    ],
)
def test_messages_are_those_of_the_job(
    changes: dict[str, Any], exchange: dict[str, int] | None
) -> None:
    job = mpi_dcasgd.load_job(JOB, **changes)
    assert with_injected({}, job).get("exchange") == exchange
    assert with_injected({"exchange": {"servers": 9}}, job)["exchange"] == {"servers": 9}


def test_half_the_bytes_take_half_the_time_of_a_narrow_link() -> None:
    took = [
        mpi_dcasgd.simulate_timing(
            JOB, workers=4, updates=200, network={"server_bytes_per_s": 1e4}, wire=wire
        ).time_s
        for wire in ("float32", "bf16")
    ]
    assert took[0] / took[1] == pytest.approx(2, rel=0.1)

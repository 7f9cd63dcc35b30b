"""Whole numbers that a program hands to a function of the Python API."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mpi_dcasgd
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.runs.counts import check_counts, check_several_counts

NO_COUNTS = [0, -1, 2.5, 2.0, True, math.nan, "3", [3]]


def test_whole_numbers_pass_those_of_numpy_too_and_what_is_left_out() -> None:
    check_counts("f", a=1, b=np.int64(7), c=None)
    check_several_counts("f", a=[1, 2], b=(3,), c=np.array([4, 8]), d=range(1, 3), e=None)


@pytest.mark.parametrize("value", NO_COUNTS, ids=repr)
def test_anything_else_is_told_with_all_that_is_wrong(value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        check_counts("f", every=value, samples=3, updates=-5)
    told = [f"every: got {value!r}; allowed: a whole number > 0"]
    assert caught.value.problems == [*told, "updates: got -5; allowed: a whole number > 0"]


@pytest.mark.parametrize("value", [4, "48", [4, 0], [2.5], [True]], ids=repr)
def test_a_list_holds_nothing_else(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"workers: got .*; allowed: a list of whole numbers > 0"):
        check_several_counts("f", workers=value)


JOB = {"algorithm": "asgd", "model": {"name": "mlp"}, "data": {"name": "digits"}}


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda api: api.closeup("nowhere", every=1.5), "every: got 1.5"),
        (lambda api: api.sharpness(JOB, samples=2.5), "samples: got 2.5"),
        (lambda api: api.sharpness(JOB, workers=[0]), r"workers: got \[0\]"),
        (lambda api: api.simulate_timing(JOB, updates=2.5), "updates: got 2.5"),
        (lambda api: api.advise(JOB, cluster={}, workers=2), "workers: got 2"),
        (lambda api: api.advise(JOB, cluster={}, seeds=2.5), "seeds: got 2.5"),
        (lambda api: api.doctor(ranks=-1), "ranks: got -1"),
    ],
)
def test_every_function_looks_before_it_begins(call: Callable[[Any], Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        call(mpi_dcasgd)

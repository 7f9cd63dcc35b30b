"""Whole numbers that a program hands to a function of the Python API."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import mpi_dcasgd
from mpi_dcasgd.counts import is_whole
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning.declared import check_declared
from mpi_dcasgd.messages import shown

JOB = {"algorithm": "asgd", "model": {"name": "mlp"}, "data": {"name": "digits"}}
NO_COUNTS = [0, -1, 2.5, 2.0, True, math.nan, "3", [3]]


def test_a_whole_number_is_of_any_library_and_no_truth_value() -> None:
    for value in (3, np.int64(3), np.array(3), torch.tensor(3)):
        assert is_whole(value)
    assert is_whole(0, least=0)
    for other in (*NO_COUNTS, torch.tensor(2.5), np.array([3, 4]), np.bool_(True), None):
        assert not is_whole(other)


def test_one_message_of_whole_numbers_wherever_they_are_given() -> None:
    class Own(mpi_dcasgd.Task):
        evaluation_batch = 2.5

    told = []
    for wrong in (
        lambda: check_declared(Own()),
        lambda: mpi_dcasgd.load_job(JOB, evaluate_every=2.5),
        lambda: mpi_dcasgd.simulate_timing(JOB, workers=2.5),
        lambda: mpi_dcasgd.simulate_timing(JOB, workers=2, updates=2.5),
    ):
        with pytest.raises(ConfigError) as caught:
            wrong()
        [line] = [line for line in caught.value.problems if "2.5" in line]
        told.append(line.partition(": ")[2].removesuffix(" or None"))
    assert told == 4 * ["got 2.5 (a number); allowed: a whole number >= 1"]


def test_simulated_workers_may_be_counted_by_numpy() -> None:
    job = JOB | {"epochs": 1, "batch_size": 16, "lr": 0.1}
    assert mpi_dcasgd.simulate_timing(job, workers=np.int64(2), updates=9).num_workers == 2


@pytest.mark.parametrize("value", NO_COUNTS, ids=repr)
def test_anything_else_is_told_with_all_that_is_wrong(value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        mpi_dcasgd.advise(JOB, cluster={}, seeds=value, workers=[4, -5])
    told = f"seeds: got {shown(value)}; allowed: a whole number >= 1"
    several = "workers: got [4, -5] (a list); allowed: a list of whole numbers >= 1"
    assert caught.value.problems == [several, told]


@pytest.mark.parametrize("value", [4, "48", [4, 0], [2.5], [True]], ids=repr)
def test_a_list_holds_nothing_else(value: Any) -> None:
    told = r"workers: got .*; allowed: a list of whole numbers >= 1"
    with pytest.raises(ConfigError, match=told):
        mpi_dcasgd.sharpness(JOB, workers=value)


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

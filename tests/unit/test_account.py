"""Where workers' time went: one account each, whose keys are those of files of before."""

from __future__ import annotations

import doctest
from dataclasses import asdict

from toy import CPU, World, toy_model, toy_subject

from mpi_dcasgd.drivers import account as module
from mpi_dcasgd.drivers.account import Account, add_up
from mpi_dcasgd.drivers.conductor import Conductor
from mpi_dcasgd.drivers.evaluator import Evaluator
from mpi_dcasgd.drivers.observer import NullObserver
from mpi_dcasgd.drivers.simulation.engine import accounts_state, load_accounts
from mpi_dcasgd.learning.flat import FlatModel


def test_its_example_runs() -> None:
    assert doctest.testmod(module).failed == 0


def test_its_keys_are_those_of_worker_events_and_checkpoints() -> None:
    assert list(asdict(Account(worker=3))) == [
        "worker",
        "host",
        "device",
        "updates",
        "samples",
        "compute_s",
        "data_s",
        "wait_s",
        "comm_s",
    ]


def test_a_worker_has_one_account_before_and_after_an_interruption() -> None:
    before = [
        Account(worker=0, host="a", device="cpu", updates=2, samples=16, compute_s=1.0, wait_s=0.5),
        Account(worker=2, host="a", device="cpu", updates=1, samples=8, data_s=0.25),
    ]
    now = [
        Account(worker=1, host="b", device="cpu", updates=7, samples=56),
        Account(
            worker=0, host="b", device="cuda:0", updates=3, samples=24, compute_s=2.0, comm_s=4
        ),
    ]
    kept = [asdict(account) for account in (*before, *now)]
    whole = add_up(before, now)
    assert whole == [
        Account(
            worker=0,
            host="b",
            device="cuda:0",
            updates=5,
            samples=40,
            compute_s=3.0,
            wait_s=0.5,
            comm_s=4,
        ),
        now[0],
        before[1],
    ]
    assert [asdict(account) for account in (*before, *now)] == kept, "they go on being added to"


def test_a_conductors_checkpoint_of_before_is_loaded_and_would_be_written_again() -> None:
    spent = [
        {
            "worker": 0,
            "host": "c1",
            "device": "cpu",
            "updates": 4,
            "samples": 32,
            "compute_s": 1.5,
            "data_s": 0.25,
            "wait_s": 0.125,
            "comm_s": 0.5,
        }
    ]
    evaluator = Evaluator(FlatModel(toy_model(), CPU), toy_subject(), background=False)
    conductor = Conductor(World(1).server, NullObserver(), evaluator)
    conductor.load_state_dict(
        {
            "loss_sum": 3.0,
            "loss_samples": 8,
            "evaluated_at": -1,
            "time_s": 2.0,
            "spent": spent,
            "unscored": [],
        }
    )
    conductor.accounts = lambda: [Account(worker=0, host="c2", device="cpu", updates=1, wait_s=1.0)]
    now = conductor.state_dict()["spent"]
    assert now == [spent[0] | {"host": "c2", "updates": 5, "wait_s": 1.125}]
    assert list(now[0]) == list(spent[0])


def test_a_simulators_accounts_of_before_are_loaded_and_would_be_written_again() -> None:
    saved = {
        "compute_s": [1.5, 2.5],
        "wait_s": [0.25, 0.5],
        "pushes": [3, 4],
        "server_busy_s": 0.75,
        "crashes": 1,
    }
    accounts = [Account(worker=0), Account(worker=1)]
    load_accounts(accounts, saved)
    assert accounts[1] == Account(worker=1, updates=4, compute_s=2.5, wait_s=0.5)
    assert accounts_state(accounts, crashes=1, server_busy_s=0.75) == saved

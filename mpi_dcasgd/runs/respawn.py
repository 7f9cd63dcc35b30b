"""Replacement of workers that are gone (``faults.respawn``): what the server needs for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from mpi_dcasgd.config.load import job_as_yaml
from mpi_dcasgd.config.own_code import own_names
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.drivers.conductor import Conductor
from mpi_dcasgd.drivers.handshake import code_facts, layout_facts
from mpi_dcasgd.drivers.lifelines import Successors
from mpi_dcasgd.drivers.newcomers import NEWCOMER, Newcomers, Peer, spawn
from mpi_dcasgd.drivers.topology import SERVER
from mpi_dcasgd.learning.flat import FlatModel
from mpi_dcasgd.runs.data_check import facts_of_data
from mpi_dcasgd.sources import sources_of

if TYPE_CHECKING:
    from mpi_dcasgd.runs.build import Workshop
    from mpi_dcasgd.runs.rank import Rank

PROGRAM = (sys.executable, "-m", "mpi_dcasgd.runs.newcomer")
"""What is started in place of a worker."""


def facts_of(job: Job, workshop: Workshop, flat: FlatModel) -> dict[str, str]:
    """Return what a process in a worker's place must have as the server has it.

    The job itself is sent to it.
    """
    modules = {f"module {source.module}": source.sha256 for source in sources_of(own_names(job))}
    return {
        **code_facts(),
        **modules,
        **facts_of_data(job, workshop),
        **layout_facts(flat.layout),
        "parameters that are not trained": flat.fixed_sha256(),
    }


def recruiting(rank: Rank, name: Callable[[int], str], conductor: Conductor) -> Newcomers:
    """Return what starts new processes for an asynchronous run, on its server.

    Args:
        rank: The server's, which has been set up.
        name: Name of a worker for people.
        conductor: Is told what happens.
    """
    places = rank.places
    hosts = {place.host for place in places}
    flat = rank.workshop.flat_model(torch.device("cpu"))
    facts = facts_of(rank.job, rank.workshop, flat)

    def start(worker: int, number: int) -> Peer:
        home = places[rank.world.rank_of(worker)].host
        env = {key: os.environ[key] for key in ("PYTHONPATH",) if os.environ.get(key)}
        # Where its GPU is; but that host may be what was lost.
        host = home if len(hosts) > 1 and number == 1 else None
        peer = spawn(list(PROGRAM), cwd=os.getcwd(), env=env, host=host)
        listener, word = successors.invite(alone=len(hosts) == 1)
        peer.comm.send({**_brief(rank, worker, number), "lifeline": word}, dest=NEWCOMER)
        successors.accept(listener, word, worker, number)
        return peer

    successors = Successors()
    rank.resources.callback(successors.close)
    return Newcomers(start, facts, name, conductor.message, ended=successors.ended)


def _brief(rank: Rank, worker: int, number: int) -> dict[str, Any]:
    """Return what a newcomer is told, in plain values: its modules are not imported yet."""
    number_of_rank = rank.world.rank_of(worker)
    assert rank.folder is not None  # it has been set up
    return {
        "job": job_as_yaml(rank.job),
        "folder": str(rank.folder.path),
        "rank": number_of_rank,
        "worker": worker,
        "number": number,
        "num_workers": rank.world.num_workers,
        "local_rank": torch.device(rank.places[number_of_rank].device).index or 0,
        "spin_s": rank.spin_s,
        "server_host": rank.places[SERVER].host,
    }

"""Deaths of other ranks, as a fault-tolerant MPI (ULFM) reports them."""

from __future__ import annotations

from mpi4py import MPI

DEATH = (MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING, MPI.ERR_IN_STATUS)
"""Errors by which ULFM reports a dead peer, directly or as one request's status among several."""


def is_death(error: Exception) -> bool:
    """Return whether an error says that a peer is dead, or that another rank has found one to be.

    Example:
        >>> is_death(MPI.Exception(MPI.ERR_PROC_FAILED)), is_death(MPI.Exception(MPI.ERR_TRUNCATE))
        (True, False)
    """
    if not isinstance(error, MPI.Exception):
        return False
    return error.Get_error_class() in (*DEATH, MPI.ERR_REVOKED)


def failed_ranks(comm: MPI.Comm) -> list[int]:
    """Return the ranks of a communicator that are known here to be dead, in order.

    Args:
        comm: Of a world with fault tolerance.
    """
    failed = comm.Get_failed()
    ranks = range(comm.size)
    places = MPI.Group.Translate_ranks(comm.group, list(ranks), failed)
    return [rank for rank, place in zip(ranks, places, strict=True) if place >= 0]

"""Account of where each worker's time went: one kind for real and simulated runs, in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(slots=True, kw_only=True)
class Account:
    """Work that one worker did and seconds that it spent, added up during a run.

    Its fields are the keys of the ``worker`` events in metrics.jsonl and of ``spent`` in
    checkpoints.

    Attributes:
        worker: From 0, as in the update records.
        host: Name of the machine.
        device: ``"cpu"``, ``"cuda:0"``, ...
        updates: Gradients that the worker computed and pushed.
        samples: Samples in them.
        compute_s: Forward and backward passes.
        data_s: Loading and augmenting minibatches, as far as computation had to wait for them.
        wait_s: Between the end of a push and the arrival of the reply, with nothing to do.
        comm_s: Staging buffers and handing them to MPI (or inside an allreduce).

    Example:
        >>> account = Account(worker=0)
        >>> account.add(samples=32, compute_s=0.5, wait_s=0.25)
        >>> account.add(samples=32, compute_s=0.5)
        >>> account.updates, account.samples, account.compute_s, account.wait_s
        (2, 64, 1.0, 0.25)
    """

    worker: int
    host: str = ""
    device: str = ""
    updates: int = 0
    samples: int = 0
    compute_s: float = 0.0
    data_s: float = 0.0
    wait_s: float = 0.0
    comm_s: float = 0.0

    def add(
        self,
        samples: int,
        *,
        compute_s: float = 0.0,
        data_s: float = 0.0,
        wait_s: float = 0.0,
        comm_s: float = 0.0,
    ) -> None:
        """Enter one gradient of so many samples, and the time that it took."""
        self.updates += 1
        self.samples += samples
        self.compute_s += compute_s
        self.data_s += data_s
        self.wait_s += wait_s
        self.comm_s += comm_s

    def __add__(self, later: Account) -> Account:
        """Return the sum of two accounts, with the place of the later one."""
        return replace(
            later,
            updates=self.updates + later.updates,
            samples=self.samples + later.samples,
            compute_s=self.compute_s + later.compute_s,
            data_s=self.data_s + later.data_s,
            wait_s=self.wait_s + later.wait_s,
            comm_s=self.comm_s + later.comm_s,
        )


def add_up(before: Sequence[Account], now: Sequence[Account]) -> list[Account]:
    """Add accounts from before an interruption to those since, one a worker and by worker.

    A worker that is in one list only keeps its account.
    """
    accounts = {account.worker: account for account in before}
    for account in now:
        earlier = accounts.get(account.worker)
        accounts[account.worker] = account if earlier is None else earlier + account
    return [accounts[worker] for worker in sorted(accounts)]

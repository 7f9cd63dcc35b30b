"""Roll call of an asynchronous run: which workers died or hang, and the messages about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mpi_dcasgd.drivers.account import Account
from mpi_dcasgd.drivers.conductor import Conductor
from mpi_dcasgd.drivers.signals import outlives_deaths
from mpi_dcasgd.drivers.topology import Topology
from mpi_dcasgd.wording import counted


class RollCall:
    """Workers that are gone, by the reason.

    Args:
        world: Ranks of the workers.
        accounts: Hosts of the workers, one a worker.
        conductor: Is told of every change.

    Attributes:
        repeated: What is known of a ticket that ended two workers, or an empty string: it would
            end one after the other.
    """

    def __init__(self, world: Topology, accounts: Sequence[Account], conductor: Conductor) -> None:
        self._world = world
        self._hosts = [account.host for account in accounts]
        self._conductor = conductor
        self._reasons: dict[int, str] = {}
        self._failed_at: dict[int, int] = {}  # ticket: worker
        self.repeated = ""
        self._gone: dict[int, Literal["died", "hangs", "failed"]] = {}
        self._replacements: dict[int, int] = {}
        self._outdated: list[str] = []  # processes that hang, and that others stand in for

    @property
    def hung(self) -> list[int]:
        """Workers that were given up because nothing came from them, and may come back."""
        return [worker for worker, how in self._gone.items() if how == "hangs"]

    @property
    def stuck(self) -> list[str]:
        """Names of the processes that hang, those that have been replaced among them."""
        return [*self._outdated, *map(self.name, self.hung)]

    @property
    def present(self) -> list[int]:
        """Workers that have neither died nor hang."""
        return [worker for worker in range(len(self._hosts)) if worker not in self._gone]

    def name(self, worker: int) -> str:
        """Name a worker for people: ``worker 1 (rank 2 on node7)``, or its n-th replacement."""
        host, number = self._hosts[worker], self._replacements.get(worker)
        on = f" on {host}" if host else ""
        which = f"replacement {number}" if number else f"rank {self._world.rank_of(worker)}"
        return f"worker {worker} ({which}{on})"

    def died(self, worker: int, tickets: Sequence[int]) -> None:
        """Tell that a worker has died, and that its tickets were requeued."""
        if self._gone.get(worker) == "failed":  # which it has told itself
            return
        again = worker in self._gone
        self._gone[worker] = "died"
        requeued = "" if again else f"; its tickets {list(tickets)} are requeued"
        self._tell(f"{self.name(worker)} died{requeued}, {self._left()}")

    def failed(self, worker: int, text: str, tickets: Sequence[int]) -> None:
        """Tell that a worker's own exception ended it, and that its tickets were requeued."""
        self._gone[worker] = "failed"
        if not outlives_deaths():  # MPI does not know, and would wait for it at its end
            self._outdated.append(self.name(worker))
        self._reasons[worker] = text
        self._tell(
            f"{self.name(worker)} failed: {text}; its tickets {list(tickets)} are requeued, "
            f"{self._left()}"
        )
        for ticket in tickets[:1]:  # those after it were only granted ahead
            if ticket in self._failed_at:
                self.repeated = (
                    f"ticket {ticket} failed on {self.name(self._failed_at[ticket])} and again on "
                    f"{self.name(worker)}: {text}"
                )
            self._failed_at[ticket] = worker

    def why_all(self) -> str:
        """Return what became of all workers, once none is left."""
        texts = set(self._reasons.values())
        if len(texts) == 1 and len(self._reasons) == len(self._hosts):
            return f"all failed: {texts.pop()}"
        reasons = [f"; {self.name(worker)}: {why}" for worker, why in self._reasons.items()]
        return "all died or hang before training was over" + "".join(reasons)

    def hangs(
        self, worker: int, tickets: Sequence[int], silent_s: float, patience_s: float
    ) -> None:
        """Tell that a worker was given up, and that its tickets were requeued."""
        self._gone[worker] = "hangs"
        self._tell(
            f"{self.name(worker)} hangs: nothing came from it for {silent_s:.1f} s (patience "
            f"{patience_s:.3g} s); its tickets {list(tickets)} are requeued, {self._left()}"
        )

    def silent(self, worker: int, silent_s: float) -> None:
        """Tell that nothing comes from the last worker, which is waited for all the same."""
        self._conductor.fault(
            f"{self.name(worker)} hangs: nothing came from it for {silent_s:.1f} s, and no other "
            "worker is left to take its tickets; it is waited for a little longer",
            [*self._missing(), f"{self.name(worker)} hangs"],
        )

    def speaks(self, worker: int) -> None:
        """Tell that the last worker, which was waited for, has pushed."""
        self._tell(f"{self.name(worker)} is back")

    def back(self, worker: int) -> None:
        """Tell that a worker that had been given up has come back."""
        del self._gone[worker]
        self._tell(
            f"{self.name(worker)} is back; what it computed is others' by now and is not applied, "
            f"{self._left()}"
        )

    def replaced(self, worker: int, number: int, host: str) -> None:
        """Tell that a new process, the n-th, has taken the place of a worker that was gone."""
        before = self.name(worker)
        if self._gone.pop(worker) == "hangs":
            self._outdated.append(before)
        self._reasons.pop(worker, None)
        self._hosts[worker], self._replacements[worker] = host, number
        self._tell(f"{self.name(worker)} trains in place of {before}, {self._left()}")

    def _left(self) -> str:
        left = len(self._hosts) - len(self._gone)
        return f"{left} of {counted(len(self._hosts), 'worker')} are left"

    def _missing(self) -> list[str]:
        return [f"{self.name(worker)} {how}" for worker, how in sorted(self._gone.items())]

    def _tell(self, text: str) -> None:
        self._conductor.fault(text, self._missing())

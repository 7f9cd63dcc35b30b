"""Replies to workers: who is granted which tickets, who waits, and who is told to stop."""

from __future__ import annotations

from collections.abc import Sequence

from mpi_dcasgd.rules.admission import Admission
from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.server.leader import LeadingModel
from mpi_dcasgd.server.ledger import TicketLedger
from mpi_dcasgd.server.message import Kind
from mpi_dcasgd.server.model_state import ModelState
from mpi_dcasgd.server.records import Action, UpdateRecord
from mpi_dcasgd.server.slot import Slot
from mpi_dcasgd.server.wire import ReplyRounding


class Replies:
    """Write each worker's reply as soon as there is anything to tell it.

    Args:
        model: State of the model whose weights are sent.
        rule: Rule of the run; its admission decides who may continue.
        ledger: Ledger that grants the tickets.
        slots: One of each worker; the replies are written into them.
        rounding: Rounds snapshots to what travels.
        ahead: Tickets that a worker holds beyond the one it computes.

    Attributes:
        rule: As above.
        ledger: As above.
        halted: Whether no more tickets are granted.
    """

    def __init__(
        self,
        model: ModelState | LeadingModel,
        rule: Rule,
        ledger: TicketLedger,
        slots: Sequence[Slot],
        rounding: ReplyRounding,
        ahead: int,
    ) -> None:
        self.rule = rule
        self.ledger = ledger
        self.halted = False
        self._model = model
        self._slots = slots
        self._rounding = rounding
        self._ahead = ahead
        self._parked: set[int] = set()  # of many workers few are: they need not all be looked at

    def after(self, record: UpdateRecord) -> list[int]:
        """Reply to whoever has delivered, and to those that waited for it.

        Args:
            record: What has become of the push.

        Returns:
            The workers whose replies can be sent now.
        """
        worker = record.worker
        if record.action is Action.DROPPED:  # what came too late is for whoever is free
            return self.wake() + self.serve(worker, renew=True)
        # First the one that delivered: how far it has come decides whether others may continue.
        return self.serve(worker, renew=not record.stepped) + self.wake()

    def wake(self) -> list[int]:
        """Reply to parked workers for whom there is something to do by now.

        Returns:
            The workers whose replies can be sent now.
        """
        ready: list[int] = []
        for worker in sorted(self._parked):
            ready += self.serve(worker, renew=True)
        return ready

    def lose(self, worker: int) -> None:
        """Forget a worker that has died: it waits for nothing any more."""
        self._slots[worker].status = "lost"
        self._parked.discard(worker)

    def look_again(self) -> None:
        """Find the parked workers after the slots were loaded from a checkpoint."""
        self._parked = {w for w, slot in enumerate(self._slots) if slot.status == "parked"}

    def goes_on(self, worker: int) -> bool:
        """Return whether a worker is certain to get work as soon as its push has been applied."""
        more = self.ledger.available or len(self.ledger.held(worker)) > 1
        free = type(self.rule.admission).may_go_on is Admission.may_go_on
        return bool(more) and free and not self.halted

    def serve(self, worker: int, *, renew: bool) -> list[int]:
        """Write a worker's reply if there is anything to tell it; park it if there is not.

        Args:
            worker: Who has delivered, asks or waits.
            renew: Whether its snapshot has to be copied from the weights, as it was not written
                by the update itself.

        Returns:
            The worker, if its reply can be sent now.
        """
        slot = self._slots[worker]
        slot.status = "parked"
        self._parked.add(worker)
        if self.halted or self.ledger.done:
            slot.status = "stopped"
            self._parked.discard(worker)
            slot.message.write_reply(Kind.STOP, self._model.version, ())
            return [worker]
        # First, since with very many workers looking at all of them for each would take its time.
        if not self.ledger.available and not self.ledger.held(worker):
            return []
        if type(self.rule.admission).may_go_on is not Admission.may_go_on:
            busy = [other.clock for other in self._slots if other.status == "working"]
            if not self.rule.admission.may_go_on(slot.clock, busy):
                return []
        granted = self._grant(worker)
        if not self.ledger.held(worker):
            return []
        if renew:
            self._model.send(worker, slot.snapshot)
        self._rounding.settle(worker, slot.message)
        slot.version = self._model.version
        slot.status = "working"
        self._parked.discard(worker)
        slot.message.write_reply(Kind.WORK, self._model.version, granted)
        return [worker]

    def _grant(self, worker: int) -> list[int]:
        granted: list[int] = []
        while len(self.ledger.held(worker)) <= self._ahead:
            ticket = self.ledger.grant(worker)
            if ticket is None:
                break
            granted.append(ticket)
        return granted

"""The parameter server as a state machine: no network, no clock.

It has two events. A worker asks (``pull``) and a worker delivers (``push``); each returns the
workers whose replies are ready to be sent. The MPI driver, the sequential driver, the simulator
and the tests all drive this one object.

A push and the pull that follows it are one step: nothing else can happen between applying a
worker's gradient and copying the weights into its slot. The slot's message is sent as it is. Its
vector is untouched until the worker's next push, and so is the worker's snapshot (``w_bak(m)`` of
DC-ASGD).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from mpi_dcasgd.errors import ProtocolError
from mpi_dcasgd.learning.flat import FlatLayout
from mpi_dcasgd.learning.tickets import TicketPlan
from mpi_dcasgd.rules.fuse import Fuse
from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.server.header import MAX_AHEAD
from mpi_dcasgd.server.intake import Intake
from mpi_dcasgd.server.leader import Crew, LeadingModel
from mpi_dcasgd.server.ledger import TicketLedger
from mpi_dcasgd.server.message import Message
from mpi_dcasgd.server.model_state import ModelState
from mpi_dcasgd.server.passage import Passage
from mpi_dcasgd.server.precision import WireSettings
from mpi_dcasgd.server.push import Answer, Push
from mpi_dcasgd.server.records import UpdateRecord
from mpi_dcasgd.server.replies import Replies
from mpi_dcasgd.server.slot import Slot, Tally
from mpi_dcasgd.server.state import LAYOUT, check_fits, written_order
from mpi_dcasgd.server.wire import ReplyRounding, Wire


class ParameterServer:
    """Parameter server: weights, one slot a worker, the rule's state and the ticket ledger.

    Args:
        weights: Initial ``[parameters | statistics]``, shape (layout.size,); updated in place.
        layout: Layout of the weights; parameters come before statistics.
        rule: Rule that applies gradients.
        plan: Tickets of the run.
        schedule: Learning rate by samples applied.
        num_workers: Number of workers.
        stats_rate: Share by which running statistics move towards pushed ones, (num_stats,).
        ahead: Tickets that a worker holds beyond the one it computes, to prefetch their data.
        ledger: Ledger that grants the tickets; a new one for the whole plan if None.
        fuse: Way in which an update is computed (``rules.chain.Chain``).
        cuts: Elements at which all chunks but the first begin, where pushes may come in chunks.
        crew: Other servers that share the model with this one, which leads: it has the first
            shard, and its slots are of that shard. None if it has the whole model.
        wire: What gradients and weights are rounded to on their way; None for float32.

    Attributes:
        cuts: As above.
        wire: Form of the vectors on their way. Whoever delivers a gradient has rounded it; the
            server rounds the snapshots.
        samples_of: Samples that a push of a ticket must have; those of the plan, unless a driver
            makes up minibatches of its own.

    Raises:
        ProtocolError: ``ahead`` is out of range.
    """

    def __init__(
        self,
        weights: Tensor,
        layout: FlatLayout,
        rule: Rule,
        plan: TicketPlan,
        schedule: Callable[[int], float],
        num_workers: int,
        stats_rate: Tensor,
        ahead: int = 0,
        ledger: TicketLedger | None = None,
        fuse: Fuse = "auto",
        cuts: Sequence[int] = (),
        crew: Crew | None = None,
        wire: WireSettings | None = None,
    ) -> None:
        if not 0 <= ahead <= MAX_AHEAD:
            raise ProtocolError(f"ahead must be within 0 and {MAX_AHEAD}, got {ahead}")
        given = weights, layout, rule, schedule, num_workers, stats_rate, fuse
        self._model: ModelState | LeadingModel = (
            ModelState(*given, cuts) if crew is None else LeadingModel(*given, crew)
        )
        self.cuts = tuple(cuts)
        self.layout = layout
        self.schedule = schedule
        self.chain = self._model.chain
        self.plan = plan
        self.ahead = ahead
        ledger = ledger or TicketLedger(plan.num_tickets, num_workers)
        self.slots = [
            Slot(Message(self._model.layout.size, device=weights.device, dtype=weights.dtype))
            for _ in range(num_workers)
        ]
        self.wire = Wire.of(wire, self.slot_layout.num_params, self.slot_layout.num_stats)
        self.samples_of: Callable[[int], int] = plan.size
        self._intake = Intake(self._model, rule, ledger, num_workers)
        rounding = ReplyRounding(self.wire, weights.device)
        self._replies = Replies(self._model, rule, ledger, self.slots, rounding, ahead)

    @property
    def rule(self) -> Rule:
        """Rule that applies gradients; another may be set before any worker has pulled."""
        return self._intake.rule

    @rule.setter
    def rule(self, rule: Rule) -> None:
        self._intake.rule = self._replies.rule = rule

    @property
    def ledger(self) -> TicketLedger:
        """Ledger that grants the tickets; another may be set before any worker has pulled."""
        return self._intake.ledger

    @ledger.setter
    def ledger(self, ledger: TicketLedger) -> None:
        self._intake.ledger = self._replies.ledger = ledger

    @property
    def tally(self) -> Tally:
        """Counts over the run so far."""
        return self._intake.tally

    @property
    def weights(self) -> Tensor:
        """``[parameters | statistics]`` at the present version, shape (layout.size,); no copy.

        A leading server asks the others for theirs, and waits for them.
        """
        return self._model.weights

    @property
    def slot_layout(self) -> FlatLayout:
        """Layout of this server's pushes and replies: its shard's where it shares the model."""
        return self._model.layout

    @property
    def num_workers(self) -> int:
        """Number of workers, lost ones included."""
        return len(self.slots)

    @property
    def version(self) -> int:
        """Number of updates so far."""
        return self._model.version

    @property
    def samples(self) -> int:
        """Number of samples applied so far, those of tickets that were given up included."""
        return self._model.samples

    @property
    def epoch(self) -> float:
        """Passes over the data so far, in samples applied."""
        return self.samples / self.plan.num_samples

    @property
    def finished(self) -> bool:
        """True if every worker has been told to stop or is lost."""
        return all(slot.status in ("stopped", "lost") for slot in self.slots)

    @property
    def complete(self) -> bool:
        """True if every ticket of the run has been completed or given up."""
        return self.ledger.done

    def pull(self, worker: int) -> list[int]:
        """Handle a worker that asks for weights and work, once, at the start.

        Returns:
            The workers whose replies can be sent now.

        Raises:
            ProtocolError: The worker has pulled before.
        """
        if self.slots[worker].status != "absent":
            raise ProtocolError(f"worker {worker} pulled twice without a push in between")
        return self._replies.serve(worker, renew=True)

    def push(self, worker: int, push: Push, passage: Passage | None = None) -> Answer:
        """Handle a gradient; in the same step, the worker gets new weights and work.

        Args:
            worker: Who delivers.
            push: What. Of one that is still on its way the vector is read chunk by chunk.
            passage: Brings the vector; None if it is all there.

        Returns:
            The record of the push, and the workers whose replies can be sent now.

        Raises:
            ProtocolError: The push is not what the worker was asked for; it changes nothing.
            NonFiniteError: Too many gradients in a row were NaN or infinite, or a weight is beyond
                what the wire can carry.
            BrokenOffError: The rest of the push does not come; it changes nothing.
        """
        slot = self.slots[worker]
        model = self._model
        push.check(worker, slot, self.ledger.held(worker), self.samples_of, model.layout.size)
        version = self.version
        facts = model.facts(worker, version - push.version, push.grad_norm)
        action, rate = self._intake.take_in(worker, push, slot.snapshot, facts, passage)
        slot.clock += 1
        record = UpdateRecord(
            worker=worker,
            ticket=push.ticket,
            version=version,
            staleness=facts.staleness,
            action=action,
            samples=push.samples,
            loss=push.loss,
            grad_norm=push.grad_norm,
            lr=rate,
            total_samples=self.samples,
            epoch=self.epoch,
        )
        return Answer(record, self._replies.after(record))

    def drops(self, worker: int) -> bool:
        """Tell whether a gradient that the worker delivered now would be dropped, whatever it is.

        Args:
            worker: It has been sent work.

        Returns:
            False also where only the gradient itself could tell.
        """
        staleness = self.version - self.slots[worker].version
        return self._intake.drops(self._model.facts(worker, staleness, 0.0))

    def lose(self, worker: int) -> list[int]:
        """Handle the death of a worker: requeue its tickets.

        Returns:
            Parked workers whose replies can be sent now.
        """
        self._replies.lose(worker)
        self.ledger.reclaim(worker)
        return self._replies.wake()

    def rejoin(self, worker: int) -> list[int]:
        """Handle the return of a lost worker, which holds nothing and asks for work.

        Its clock moves up to that of the slowest of the others, so that nobody has to wait for
        what it missed. The rule's state for it is unchanged.

        Returns:
            The workers whose replies can be sent now.

        Raises:
            ProtocolError: The worker is not lost.
        """
        slot = self.slots[worker]
        if slot.status != "lost":
            raise ProtocolError(f"worker {worker} rejoined, but is {slot.status}, not lost")
        busy = [other.clock for other in self.slots if other.status == "working"]
        slot.clock = max(slot.clock, min(busy, default=0))
        slot.status = "absent"
        return self.pull(worker)

    def halt(self) -> list[int]:
        """Grant no more tickets, and tell each worker to stop when it next delivers.

        Returns:
            Parked workers whose replies can be sent now.
        """
        self._replies.halted = True
        return self._replies.wake()

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state, workers included, as plain values and copies on the CPU."""
        return {
            **self.lasting_state(),
            "slots": [slot.state_dict() for slot in self.slots],
            "ledger": self.ledger.state_dict(),
            "halted": self._replies.halted,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue bit for bit from ``state_dict``.

        Args:
            state: From a server of the same job with as many workers.

        Raises:
            ProtocolError: It is of another layout, model, rule or number of workers.
        """
        self._check(state, num_workers=self.num_workers, num_tickets=self.ledger.num_tickets)
        self._model.load_state_dict(state)
        self._intake.load_state_dict(state)
        for slot, its in zip(self.slots, state["slots"], strict=True):
            slot.load_state_dict(its)
        self._replies.look_again()
        self.ledger.load_state_dict(state["ledger"])
        self._replies.halted = state["halted"]

    def lasting_state(self) -> dict[str, Any]:
        """Return the state without the workers' slots, for a run that resumes with new workers.

        There may be any number of them. Tickets that were out are to be computed again.
        """
        return {
            "layout": LAYOUT,
            "size": self.layout.size,
            "num_workers": self.num_workers,
            **written_order(self.layout),
            **self._model.state_dict(),
            "ledger": self.ledger.lasting_state(),
            **self._intake.state_dict(),
        }

    def take_over(self, state: Mapping[str, Any], *, tickets: bool = True) -> None:
        """Resume from ``lasting_state``, before any worker has pulled.

        With one worker the run continues bit for bit as it would have without the interruption.

        Args:
            state: From a server of the same job with any number of workers.
            tickets: Whether to restore the ledger; omit it if this one was made for what is left.

        Raises:
            ProtocolError: It is of another layout, model or rule.
        """
        self._check(state, num_tickets=self.ledger.num_tickets if tickets else None)
        self._model.take_over(state)
        self._intake.load_state_dict(state)
        if tickets:
            self.ledger.take_over(state["ledger"])

    def _check(self, state: Mapping[str, Any], **also: int | None) -> None:
        check_fits(state, layout=self.layout, rule=self.chain.state_dict(), **also)

    def goes_on(self, worker: int) -> bool:
        """Return whether a worker is certain to get work as soon as its push has been applied."""
        return self._replies.goes_on(worker)

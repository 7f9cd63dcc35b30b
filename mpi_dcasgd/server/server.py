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

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from mpi_dcasgd.errors import ProtocolError
from mpi_dcasgd.learning.flat import FlatLayout
from mpi_dcasgd.learning.task import norm_of
from mpi_dcasgd.learning.tickets import TicketPlan
from mpi_dcasgd.rules.admission import Admission
from mpi_dcasgd.rules.chain import Chain, Rule
from mpi_dcasgd.rules.fuse import Fuse
from mpi_dcasgd.rules.part import Facts
from mpi_dcasgd.server.accumulator import GradientAccumulator
from mpi_dcasgd.server.ledger import TicketLedger
from mpi_dcasgd.server.message import MAX_GRANTS, Kind, Message
from mpi_dcasgd.server.push import Answer, Push
from mpi_dcasgd.server.records import Action, UpdateRecord
from mpi_dcasgd.server.refusals import Refusals
from mpi_dcasgd.server.slot import Slot, Tally
from mpi_dcasgd.server.state import LAYOUT, check_fits, saved

MAX_AHEAD = MAX_GRANTS - 1
"""Tickets beyond the current one that one reply has room for."""


class ParameterServer:
    """Weights, one slot a worker, the rule's state and the ticket ledger.

    Args:
        weights: Initial ``[parameters | statistics]``, shape (layout.size,); updated in place.
        layout: Where parameters end and statistics begin.
        rule: What is done with a gradient.
        plan: The tickets of the run.
        schedule: Learning rate by samples applied.
        num_workers: How many slots there are.
        stats_rate: How far the running statistics move towards pushed ones, (num_stats,).
        ahead: Tickets that a worker holds beyond the one it computes, to prefetch their data.
        ledger: Hands out the tickets; a new one for the whole plan if None.
        fuse: How an update is computed (``rules.chain.Chain``).
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
    ) -> None:
        if not 0 <= ahead <= MAX_AHEAD:
            raise ProtocolError(f"ahead must be within 0 and {MAX_AHEAD}, got {ahead}")
        self.weights = weights
        self.layout = layout
        self.plan = plan
        self.schedule = schedule
        self.ahead = ahead
        self.rule = rule
        self.chain = Chain(rule, weights[: layout.num_params], num_workers, fuse)
        self.ledger = ledger or TicketLedger(plan.num_tickets, num_workers)
        self.slots = [
            Slot(Message(layout.size, device=weights.device, dtype=weights.dtype))
            for _ in range(num_workers)
        ]
        self.version = 0
        self.samples = 0
        self.tally = Tally()
        self._stats_rate = stats_rate.to(weights.device)
        self._refusals = Refusals(num_workers)
        self._lr_max = 0.0
        self._rate: float | None = None  # of the last update
        self._held = GradientAccumulator(layout.size, weights.device, weights.dtype)
        self._halted = False

    @property
    def num_workers(self) -> int:
        return len(self.slots)

    @property
    def epoch(self) -> float:
        """Passes over the data so far, in samples applied."""
        return self.samples / self.plan.num_samples

    @property
    def finished(self) -> bool:
        """Whether every worker has been told to stop or is lost."""
        return all(slot.status in ("stopped", "lost") for slot in self.slots)

    @property
    def complete(self) -> bool:
        """Whether every ticket of the run has been dealt with."""
        return self.ledger.done

    def pull(self, worker: int) -> list[int]:
        """A worker asks for weights and work, which it does once, at the start.

        Returns:
            The workers whose replies can be sent now.
        """
        if self.slots[worker].status != "absent":
            raise ProtocolError(f"worker {worker} pulled twice without a push in between")
        return self._serve(worker, renew=True)

    def push(self, worker: int, push: Push) -> Answer:
        """A worker delivers a gradient and, in the same step, gets new weights and work.

        Raises:
            ProtocolError: The version or the ticket is not what the worker was given.
            NonFiniteError: Too many gradients in a row were NaN or infinite.
        """
        slot = self.slots[worker]
        if slot.status != "working" or push.version != slot.version:
            raise ProtocolError(
                f"worker {worker} ({slot.status}) pushed version {push.version}, "
                f"but pulled {slot.version}"
            )
        facts = self._facts(worker, self.version - push.version, push.grad_norm)
        slot.clock += 1
        version = self.version
        action, rate = self._take_in(worker, push, facts)
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
        return Answer(record, self._after(worker, renewed=record.stepped))

    def lose(self, worker: int) -> list[int]:
        """A worker died: its tickets go to others.

        Returns:
            Parked workers whose replies can be sent now.
        """
        self.slots[worker].status = "lost"
        self.ledger.reclaim(worker)
        return self._wake()

    def rejoin(self, worker: int) -> list[int]:
        """A worker that was lost is back, with nothing in its hands, and asks for work.

        It goes on from the clock of the slowest of the others, so that nobody has to wait for
        what it missed. The rule's state for it is what it was.

        Returns:
            The workers whose replies can be sent now.
        """
        slot = self.slots[worker]
        if slot.status != "lost":
            raise ProtocolError(f"worker {worker} came back, but is {slot.status}")
        busy = [other.clock for other in self.slots if other.status == "working"]
        slot.clock = max(slot.clock, min(busy, default=0))
        slot.status = "absent"
        return self.pull(worker)

    def halt(self) -> list[int]:
        """Grant no more tickets; each worker is told to stop when it next delivers.

        Returns:
            Parked workers whose replies can be sent now.
        """
        self._halted = True
        return self._wake()

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state, workers included, as plain values and copies on the CPU."""
        return {
            **self.lasting_state(),
            "slots": [slot.state_dict() for slot in self.slots],
            "ledger": self.ledger.state_dict(),
            "halted": self._halted,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue bit for bit from ``state_dict``.

        Args:
            state: From a server of the same job with as many workers.

        Raises:
            ProtocolError: It is of another layout, model, rule or number of workers.
        """
        self._load(state, num_workers=self.num_workers, num_tickets=self.ledger.num_tickets)
        self.chain.load_state_dict(state["rule"])
        for slot, its in zip(self.slots, state["slots"], strict=True):
            slot.load_state_dict(its)
        self.ledger.load_state_dict(state["ledger"])
        self._halted = state["halted"]

    def lasting_state(self) -> dict[str, Any]:
        """Return the state without the workers' slots, for a run that resumes with new workers.

        There may be any number of them. Tickets that were out are to be computed again.
        """
        return {
            "layout": LAYOUT,
            "size": self.layout.size,
            "num_workers": self.num_workers,
            "weights": saved(self.weights),
            "version": self.version,
            "samples": self.samples,
            "rule": {
                name: [saved(vector) for vector in vectors]
                for name, vectors in self.chain.state_dict().items()
            },
            "ledger": self.ledger.lasting_state(),
            "held": self._held.state_dict(),
            "tally": self.tally.state_dict(),
            **self._refusals.state_dict(),
            "lr_max": self._lr_max,
            "rate": self._rate,
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
        self._load(state, num_tickets=self.ledger.num_tickets if tickets else None)
        self.chain.take_over(state["rule"])
        if tickets:
            self.ledger.take_over(state["ledger"])

    def _load(self, state: Mapping[str, Any], **also: int | None) -> None:
        """Restore all but rule, slots and ledger."""
        check_fits(state, size=self.layout.size, rule=self.chain.state_dict(), **also)
        self.weights.copy_(state["weights"])
        self.version = state["version"]
        self.samples = state["samples"]
        self._held.load_state_dict(state["held"])
        self.tally.load_state_dict(state["tally"])
        self._refusals.load_state_dict(state)
        self._lr_max = state["lr_max"]
        self._rate = state.get("rate")  # missing in the first checkpoints

    def _take_in(self, worker: int, push: Push, facts: Facts) -> tuple[Action, float]:
        if not push.is_finite(self.layout.num_params):
            self._refuse(worker, push)
            if self.ledger.done and self._held.count:
                return Action.NONFINITE, self._apply_held(worker, facts)
            return Action.NONFINITE, 0.0
        self._refusals.reset()
        verdict = self.rule.admission.verdict(facts)
        if verdict == "drop":
            self.ledger.hand_back(worker, push.ticket)
            self.tally.dropped += 1
            return Action.DROPPED, 0.0
        self.ledger.complete(worker, push.ticket)
        self.samples += push.samples
        self.tally.staleness[facts.staleness] += 1
        if verdict == "apply":
            return Action.APPLIED, self._apply(worker, push.vector, facts)
        self._held.add(push.vector, push.samples)
        wanted = self.rule.admission.collect(self.num_workers)
        if self._held.count < wanted and not self.ledger.done:
            return Action.HELD, 0.0
        return Action.APPLIED, self._apply_held(worker, facts)

    def _apply_held(self, worker: int, facts: Facts) -> float:
        mean = self._held.take()
        norm = norm_of(mean[: self.layout.num_params])
        return self._apply(worker, mean, facts._replace(grad_norm=norm))

    def _apply(self, worker: int, vector: Tensor, facts: Facts) -> float:
        weights, snapshot = self.weights, self.slots[worker].snapshot
        if self.layout.num_stats:
            border = self.layout.num_params
            stats = weights[border:]
            stats.lerp_(vector[border:], self._stats_rate)
            snapshot[border:].copy_(stats)
            weights, vector, snapshot = weights[:border], vector[:border], snapshot[:border]
        rate = self._rate = self.chain.apply(weights, vector, snapshot, facts)
        self.version += 1
        self.tally.applied += 1
        return rate

    def _facts(self, worker: int, staleness: int, grad_norm: float) -> Facts:
        rate = self.schedule(self.samples)
        self._lr_max = max(self._lr_max, rate)
        return Facts(
            lr=rate,
            lr_max=self._lr_max,
            staleness=staleness,
            version=self.version,
            worker=worker,
            num_workers=self.num_workers,
            grad_norm=grad_norm,
        )

    def _refuse(self, worker: int, push: Push) -> None:
        self.tally.nonfinite += 1
        if self._refusals.refuse(worker, push):
            self.ledger.hand_back(worker, push.ticket)
        else:
            self.ledger.complete(worker, push.ticket)
            self.samples += push.samples
            self.tally.given_up += 1

    def _after(self, worker: int, *, renewed: bool) -> list[int]:
        # First the one that delivered: how far it has come decides whether others may go on.
        return self._serve(worker, renew=not renewed) + self._wake()

    def _wake(self) -> list[int]:
        ready: list[int] = []
        for worker, slot in enumerate(self.slots):
            if slot.status == "parked":
                ready += self._serve(worker, renew=True)
        return ready

    def _serve(self, worker: int, *, renew: bool) -> list[int]:
        """Write the worker's reply if there is anything to tell it."""
        slot = self.slots[worker]
        slot.status = "parked"
        if self._halted or self.ledger.done:
            slot.status = "stopped"
            slot.message.write_reply(Kind.STOP, self.version, ())
            return [worker]
        # First, since with very many workers looking at all of them for each would take its time.
        if not self.ledger.available and not self.ledger.held(worker):
            return []
        if type(self.rule.admission).may_go_on is not Admission.may_go_on:
            busy = [other.clock for other in self.slots if other.status == "working"]
            if not self.rule.admission.may_go_on(slot.clock, busy):
                return []
        granted = self._grant(worker)
        if not self.ledger.held(worker):
            return []
        if renew:
            self._renew(worker)
        slot.version = self.version
        slot.status = "working"
        slot.message.write_reply(Kind.WORK, self.version, granted)
        return [worker]

    def _renew(self, worker: int) -> None:
        border = self.layout.num_params
        snapshot = self.slots[worker].snapshot
        facts = self._facts(worker, 0, 0.0)
        self.chain.send(self.weights[:border], snapshot[:border], facts, self._rate)
        snapshot[border:].copy_(self.weights[border:])

    def _grant(self, worker: int) -> list[int]:
        granted: list[int] = []
        while len(self.ledger.held(worker)) <= self.ahead:
            ticket = self.ledger.grant(worker)
            if ticket is None:
                break
            granted.append(ticket)
        return granted

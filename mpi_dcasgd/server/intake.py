"""Fate of a pushed gradient at the server: applied, held, dropped, or refused as not finite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mpi_dcasgd.rules.admission import Collect, Threshold
from mpi_dcasgd.rules.part import Facts
from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.server.leader import LeadingModel
from mpi_dcasgd.server.ledger import TicketLedger
from mpi_dcasgd.server.model_state import ModelState
from mpi_dcasgd.server.passage import Passage
from mpi_dcasgd.server.push import Push
from mpi_dcasgd.server.records import Action
from mpi_dcasgd.server.refusals import Refusals
from mpi_dcasgd.server.slot import Tally


class Intake:
    """Acceptance of gradients: into the model's state, the ledger and the counts.

    Args:
        model: State of the model that gradients are applied to.
        rule: Rule of the run; its admission decides about finite gradients.
        ledger: Ledger of the run's tickets.
        num_workers: Number of workers, lost ones included.

    Attributes:
        rule: As above.
        ledger: As above.
        tally: Counts of what was applied, dropped and refused.
    """

    def __init__(
        self, model: ModelState | LeadingModel, rule: Rule, ledger: TicketLedger, num_workers: int
    ) -> None:
        self.rule = rule
        self.ledger = ledger
        self.tally = Tally()
        self._model = model
        self._num_workers = num_workers
        alone = isinstance(model, ModelState)
        whose = "all weights" if alone else "all weights of the first server"
        self._refusals = Refusals(num_workers, whose)

    def take_in(
        self, worker: int, push: Push, snapshot: Tensor, facts: Facts, passage: Passage | None
    ) -> tuple[Action, float]:
        """Accept or refuse a gradient.

        What may still break off comes first, when nothing has changed.

        Args:
            worker: Who delivers.
            push: Gradient that has been checked against the worker's ticket.
            snapshot: Weights that the worker was sent last.
            facts: Facts of the push, for the rule.
            passage: Brings the vector; None if it is all there.

        Returns:
            The gradient's fate, and the rate of the step or 0.

        Raises:
            NonFiniteError: Too many gradients in a row were NaN or infinite.
            BrokenOffError: The rest of the push does not come; nothing has changed.
        """
        model = self._model
        if passage is not None and not self._takes_chunks(push, facts):
            passage.arrive_all()
            passage = None
        if passage is None and not push.is_finite(model.layout.num_params):
            self._refuse(worker, push, snapshot)
            if self.ledger.done and model.num_held:
                self.tally.applied += 1
                return Action.NONFINITE, model.apply_held(snapshot, facts)
            return Action.NONFINITE, 0.0
        verdict = self.rule.admission.verdict(facts)
        if verdict == "apply":
            rate = model.apply(push.vector, snapshot, facts, passage)
            self._accept(worker, push, facts)
            self.tally.applied += 1
            return Action.APPLIED, rate
        if verdict == "drop":
            self._refusals.reset()
            self.ledger.drop(worker, push.ticket)
            self.tally.dropped += 1
            return Action.DROPPED, 0.0
        self._accept(worker, push, facts)
        model.hold(push.vector, push.samples, facts)
        wanted = self.rule.admission.collect(self._num_workers)
        if model.num_held < wanted and not self.ledger.done:
            return Action.HELD, 0.0
        self.tally.applied += 1
        return Action.APPLIED, model.apply_held(snapshot, facts)

    def drops(self, facts: Facts) -> bool:
        """Tell whether a gradient with these facts would be dropped, whatever it is.

        Args:
            facts: Facts of a push that is still to come; the gradient's norm is unknown.

        Returns:
            False also where only the gradient itself could tell.
        """
        # A part of a user's own may look at anything, a subclass of these at the gradient's norm.
        if type(self.rule.admission) not in (Threshold, Collect):
            return False
        return self.rule.admission.verdict(facts) == "drop"

    def state_dict(self) -> dict[str, Any]:
        """Return the counts in plain values; rule, model and ledger have states of their own."""
        return {"tally": self.tally.state_dict(), **self._refusals.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``; further keys are ignored."""
        self.tally.load_state_dict(state["tally"])
        self._refusals.load_state_dict(state)

    def _takes_chunks(self, push: Push, facts: Facts) -> bool:
        """Return whether a push is applied whatever comes after its header."""
        known = push.is_known_finite(self._model.layout.num_params)
        return known and self.rule.admission.verdict(facts) == "apply"

    def _accept(self, worker: int, push: Push, facts: Facts) -> None:
        self._refusals.reset()
        self.ledger.complete(worker, push.ticket)
        self._model.samples += push.samples
        self.tally.staleness[facts.staleness] += 1

    def _refuse(self, worker: int, push: Push, snapshot: Tensor) -> None:
        self.tally.nonfinite += 1
        if self._refusals.refuse(worker, push, snapshot, self._model.layout.num_params):
            self.ledger.hand_back(worker, push.ticket)
        else:
            self.ledger.complete(worker, push.ticket)
            self._model.samples += push.samples
            self.tally.given_up += 1

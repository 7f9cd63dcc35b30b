"""Step sizes: how far to go along a direction, given how stale it is.

A step size part multiplies the schedule's learning rate by a factor worked out from the facts of
a push. The factor applies to the whole direction. Without momentum that is the gradient alone, as
in the papers; with momentum it also scales what the buffer remembers of other pushes.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.rules.part import Facts, Part, Role
from mpi_dcasgd.rules.references import (
    GILADI_2020,
    KOLOSKOVA_2022,
    MISHCHENKO_2022,
    ZHANG_2016,
    Reference,
)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StepSize(Part):
    """Base of step sizes: a factor on the schedule's learning rate, from the facts of a push."""

    role: ClassVar[Role] = "step_size"

    def factor(self, facts: Facts) -> float:
        """Return the factor of the schedule's learning rate, >= 0."""
        return 1.0

    def lasting(self, facts: Facts) -> float:
        """Return the factor as far as it is the same for every push, >= 0.

        A look-ahead is made with it: what other workers will add is not known to be as stale as
        the push just made.
        """
        return 1.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ConstantStep(StepSize):
    """The schedule's learning rate, whatever the staleness."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StalenessAware(StepSize):
    """``factor = 1 / max(1, tau)``.

    The paper divides by tau and leaves tau = 0 open; here a fresh gradient takes the full rate,
    and so does one that is stale by a single update. (dist-keras' DynSGD divides by tau + 1
    instead.) On a quadratic with constant delay the largest stable rate, times tau, tends to
    pi/2: the rule's 1/tau is the right order, but at tau = 1 it lowers nothing, and a rate of
    eta * a = 1 is then exactly marginal.

    Source: W. Zhang et al., "Staleness-aware Async-SGD for Distributed Deep Learning", IJCAI
    2016, arXiv:1511.05950.
    """

    def references(self) -> tuple[Reference, ...]:
        return (ZHANG_2016,)

    def factor(self, facts: Facts) -> float:
        return 1.0 / max(1, facts.staleness)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StabilityPreserving(StepSize):
    """Keep the stability margin that the learning rate has without delay.

    Gradient descent with constant delay tau on a quadratic of curvature a is stable iff
    ``0 < eta * a < 2 sin(pi / (2 (2 tau + 1)))``, which is 2 at tau = 0. So the factor is ::

        exact       sin(pi / (2 (2 tau + 1)))
        asymptotic  min(1, pi / (4 tau)), and 1 at tau = 0

    The asymptotic form is the limit of the exact one for large tau (so its constant is pi/4, not
    1), "inversely proportional to the delay". It is too large by a factor of about
    ``1 + 1 / (2 tau)``: 1.57 at tau = 1, 1.01 at tau = 50.

    Holds without momentum. Beyond a delay of two updates, heavy-ball momentum at the server
    lowers the stable rate further; ``shifted`` momentum raises it (see docs/algorithms.md).

    Args:
        form: ``exact`` or ``asymptotic``.
        delay: ``nominal`` takes tau = num_workers - 1, at which equal workers settle, so that the
            rate is constant as in the paper; ``measured`` takes each gradient's own staleness.
            Workers that are lost still count in the nominal delay.

    Source: N. Giladi et al., "At Stability's Edge: How to Adjust Hyperparameters to Preserve
    Minima Selection in Asynchronous Training of Neural Networks?", ICLR 2020, arXiv:1909.12340.
    """

    form: Annotated[
        Literal["exact", "asymptotic"], Field(description="sine, or its limit pi / (4 tau)")
    ] = "exact"
    delay: Annotated[
        Literal["nominal", "measured"],
        Field(description="num_workers - 1, or the staleness of each gradient"),
    ] = "nominal"

    def references(self) -> tuple[Reference, ...]:
        return (GILADI_2020,)

    def factor(self, facts: Facts) -> float:
        tau = facts.num_workers - 1 if self.delay == "nominal" else facts.staleness
        if self.form == "exact":
            return math.sin(math.pi / (2 * (2 * tau + 1)))
        return min(1.0, math.pi / (4 * tau)) if tau else 1.0

    def lasting(self, facts: Facts) -> float:
        return self.factor(facts) if self.delay == "nominal" else 1.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DelayAdaptive(StepSize):
    """``factor = M / max(M, tau)`` with M workers.

    A gradient that is no staler than the number of workers takes the full rate; only those of
    stragglers are scaled down, so that one slow worker does not force a small rate on all.

    Source: K. Mishchenko et al., "Asynchronous SGD Beats Minibatch SGD Under Arbitrary Delays",
    NeurIPS 2022, arXiv:2206.07638; the rule as in the authors' published experiment.
    """

    def references(self) -> tuple[Reference, ...]:
        return (MISHCHENKO_2022,)

    def factor(self, facts: Facts) -> float:
        return facts.num_workers / max(facts.num_workers, facts.staleness)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ConcurrencyAware(StepSize):
    """The full rate up to a staleness of tau_C, less or nothing beyond.

    ::

        factor = 1                  where tau <= tau_C
                 tau_C / tau        beyond, with  beyond: scale
                 0                  beyond, with  beyond: drop

    The paper allows any rate in [0, min(eta, 1 / (4 L tau))) beyond; ``tau_C / tau`` satisfies
    this (up to the strict inequality) for eta <= 1 / (4 L tau_C). Its text elsewhere says
    eta / tau, which is far smaller than its eq. 11 needs. With tau_C = num_workers and ``scale``
    this is the same rule as ``delay-adaptive``.

    A factor of 0 is the paper's own way to drop: time advances and the samples count as used. To
    have them computed again, use ``admission: {name: threshold, threshold: tau_C + 1}`` instead.

    Args:
        concurrency: tau_C >= 1, how many gradients are being computed at a time; None for the
            number of workers.
        beyond: ``scale`` or ``drop``: what a gradient staler than tau_C gets.

    Source: A. Koloskova et al., "Sharper Convergence Guarantees for Asynchronous SGD for
    Distributed and Federated Learning", NeurIPS 2022, arXiv:2206.08307, eq. 11.
    """

    concurrency: Annotated[
        Annotated[int, Field(ge=1)] | None,
        Field(description="gradients being computed at a time; null for the number of workers"),
    ] = None
    beyond: Annotated[
        Literal["scale", "drop"], Field(description="what staler gradients get: less, or nothing")
    ] = "scale"

    def references(self) -> tuple[Reference, ...]:
        return (KOLOSKOVA_2022,)

    def factor(self, facts: Facts) -> float:
        concurrency = self.concurrency or facts.num_workers
        if facts.staleness <= concurrency:
            return 1.0
        return concurrency / facts.staleness if self.beyond == "scale" else 0.0

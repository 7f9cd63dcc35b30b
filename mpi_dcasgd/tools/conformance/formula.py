"""A rule as NumPy formulas, one push at a time: what the real one is compared with.

A formula is a function of one push, in the letters of docs/algorithms.md. That of a part returns
what the part makes: ``d`` for clipping, weight decay, compensation and momentum, the factor of a
step size, or the verdict of an admission part. That of a whole rule, or of a server, returns the
new weights::

    def bounded(p, dc_lambda):
        change = dc_lambda * p.g**2 * (p.w - p.w_bak)
        return p.d + np.clip(change, -abs(p.g), abs(p.g))

It is given the part's settings that it has parameters for, and keeps in ``p.state`` what it
remembers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Formula = Callable[..., Any]
Sent = Callable[[Vector, float], Vector]
"""``sent(w, eta)``: what workers are sent instead of the weights."""


@dataclass
class OnePush:
    """One push, as formulas see it.

    Attributes:
        g: Gradient, after clipping.
        d: Direction so far; begins as ``g``.
        w: Weights now.
        w_bak: Weights that the worker was sent.
        eta: Learning rate of the schedule.
        eta_max: Largest rate so far, this one included.
        tau: Staleness.
        t: Updates so far.
        m: Worker, from 0.
        M: Number of workers.
        norm: Euclidean norm of the gradient that was pushed.
        state: What the formula remembers; empty before the first push.
        settings: The part, or None for a whole rule.
    """

    g: Vector
    d: Vector
    w: Vector
    w_bak: Vector
    eta: float
    eta_max: float
    tau: int
    t: int
    m: int
    M: int
    norm: float
    state: dict[Any, Any] = field(default_factory=dict)
    settings: Any = None


@dataclass(frozen=True)
class Step:
    """Outcome of a push by a formula.

    Attributes:
        action: ``apply``, ``drop`` or ``hold``.
        w: New weights, where it is ``apply``.
        sent: What workers are sent instead of them, if anything.
        lasting: Factor of the rate that ``sent`` is given.
        wanted: Gradients that are held for one step.
        may_go_on: From a worker's clock and the lowest one to whether it is given work; None if
            every worker is.
    """

    action: str
    w: Vector | None = None
    sent: Sent | None = None
    lasting: float = 1.0
    wanted: int = 1
    may_go_on: Callable[[int, int], bool] | None = None


class RuleFormula(Protocol):
    """All of a rule: an admission, and the step that it lets through."""

    def admit(self, push: OnePush) -> Step:
        """Return what becomes of a gradient; its ``w`` is not looked at."""
        ...

    def step(self, push: OnePush) -> Step:
        """Return the new weights."""
        ...


class WholeFormula:
    """One function that gives the new weights, ``(weights, sent)``, ``"drop"`` or ``"hold"``."""

    def __init__(self, formula: Formula) -> None:
        self._formula = formula
        self._state: dict[Any, Any] = {}
        self._found: Step | None = None

    def admit(self, push: OnePush) -> Step:
        found = self._formula(replace(push, state=self._state))
        if isinstance(found, str):
            self._found = Step(found, wanted=1 << 62)
        elif isinstance(found, tuple):
            value = _vector(found[1])
            self._found = Step("apply", _vector(found[0]), lambda w, eta: value)
        else:
            self._found = Step("apply", _vector(found))
        return self._found

    def step(self, push: OnePush) -> Step:
        assert self._found is not None  # admit comes first
        return self._found


class ChainFormula:
    """Formulas of parts, in the order of docs/algorithms.md.

    Args:
        formulas: Role to formula.
        parts: Role to the part whose formula it is.

    Attributes:
        states: What the formula of each role remembers.
    """

    def __init__(self, formulas: Mapping[str, Formula], parts: Mapping[str, Any]) -> None:
        self._formulas = formulas
        self._parts = parts
        self._settings = {role: given(formulas[role], part) for role, part in parts.items()}
        self.states: dict[str, dict[Any, Any]] = {role: {} for role in parts}

    def admit(self, push: OnePush) -> Step:
        found = self._call("admission", push)
        action, more = found if isinstance(found, tuple) else (found, None)
        if callable(more):
            return Step(action, may_go_on=more)
        return Step(action, wanted=more or 1)

    def step(self, push: OnePush) -> Step:
        g = _vector(self._call("clipping", push))
        push = replace(push, g=g, d=g)
        place = self._parts["weight_decay"].place
        if place != "decoupled":
            push = replace(push, d=_vector(self._call("weight_decay", push)))
        if place == "inside":
            push = replace(push, g=push.d)
        push = replace(push, d=_vector(self._call("compensation", push)))
        found = self._call("momentum", push)
        d, sent = found if isinstance(found, tuple) else (found, None)
        push = replace(push, d=_vector(d))
        if place == "decoupled":
            push = replace(push, d=_vector(self._call("weight_decay", push)))
        size = self._call("step_size", push)
        factor, lasting = size if isinstance(size, tuple) else (size, 1.0)
        return Step("apply", push.w - push.eta * factor * push.d, sent, lasting)

    def _call(self, role: str, push: OnePush) -> Any:
        one = replace(push, state=self.states[role], settings=self._parts[role])
        return self._formulas[role](one, **self._settings[role])


def given(formula: Formula, part: Any) -> dict[str, Any]:
    """Return the settings of a part that its formula is to be given.

    One that is at its default is left to the formula's own default, if it has one, so that a part
    whose default is not that of its paper is noticed.
    """
    takes = inspect.signature(formula).parameters
    found = {}
    for one in fields(part):
        if one.name in takes:
            value = getattr(part, one.name)
            default = one.default if one.default is not MISSING else None
            if value != default or takes[one.name].default is inspect.Parameter.empty:
                found[one.name] = value
    return found


def _vector(value: Any) -> Vector:
    return np.asarray(value, dtype=np.float64)


class FormulaServer:
    """A parameter server of a few lines, whose rule is formulas.

    Args:
        rule: The rule.
        w: w_0, shape (P,).
        num_workers: Number of workers.
        rate: Learning rate by gradients taken in so far.

    Attributes:
        w, t: Weights and updates so far.
        sent: What each worker was sent last.
    """

    def __init__(
        self, rule: RuleFormula, w: Vector, num_workers: int, rate: Callable[[int], float]
    ) -> None:
        self._rule, self._rate = rule, rate
        self.w, self.t = w.copy(), 0
        self.sent = [w.copy() for _ in range(num_workers)]
        self._status = ["absent"] * num_workers
        self._born = [0] * num_workers
        self._clock = [0] * num_workers
        self._taken = 0
        self._eta_max = 0.0
        self._held: list[Vector] = []
        self._ahead: tuple[Sent, float] | None = None
        self._may_go_on: Callable[[int, int], bool] | None = None

    def staleness(self, m: int) -> int:
        """Updates since the worker was sent its weights."""
        return self.t - self._born[m]

    def has_work(self, m: int) -> bool:
        """Return whether the worker has something to push."""
        return self._status[m] == "working"

    def join(self, m: int) -> None:
        """Let a worker pull for the first time."""
        self._send(m)

    def push(self, m: int, g: Vector) -> None:
        """Take a gradient from a worker, and send to whom it can be sent."""
        eta = self._rate(self._taken)
        self._eta_max = max(self._eta_max, eta)
        norm = float(np.sqrt(np.sum(g**2)))
        push = OnePush(
            g, g, self.w, self.sent[m], eta, self._eta_max, self.staleness(m), self.t, m,
            len(self.sent), norm,
        )  # fmt: skip
        self._clock[m] += 1
        self._status[m] = "waiting"
        found = self._rule.admit(push)
        self._may_go_on = found.may_go_on or self._may_go_on
        if found.action != "drop":
            self._taken += 1
        if found.action == "hold":
            self._held.append(g)
            if len(self._held) >= found.wanted:
                mean = np.mean(self._held, axis=0)
                self._held = []
                push = replace(push, g=mean, d=mean, norm=float(np.sqrt(np.sum(mean**2))))
                self._apply(push)
        elif found.action == "apply":
            self._apply(push)
        for other in [m, *range(len(self.sent))]:
            if self._status[other] == "waiting" and self._may(other):
                self._send(other)

    def _apply(self, push: OnePush) -> None:
        found = self._rule.step(push)
        assert found.w is not None  # of a step that is made
        self.w, self.t = found.w, self.t + 1
        if found.sent:
            self._ahead = found.sent, push.eta * found.lasting

    def _may(self, m: int) -> bool:
        clocks = zip(self._clock, self._status, strict=True)
        busy = [clock for clock, status in clocks if status == "working"]
        return self._may_go_on is None or self._may_go_on(
            self._clock[m], min([*busy, self._clock[m]])
        )

    def _send(self, m: int) -> None:
        ahead = self._ahead
        self.sent[m] = ahead[0](self.w, ahead[1]) if ahead else self.w.copy()
        self._born[m], self._status[m] = self.t, "working"

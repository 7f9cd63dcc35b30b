"""Effects of single pushes on a server's vectors, measured while a run is computed again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mpi_dcasgd.rules.correction import compensates, correction_norm
from mpi_dcasgd.server.push import Answer, Push
from mpi_dcasgd.server.records import UpdateRecord, fingerprint
from mpi_dcasgd.server.server import ParameterServer


class Looked(NamedTuple):
    """One push that was looked at. Norms are Euclidean, over the parameters.

    Attributes:
        push: Its number, from 0.
        record: What the server says of it.
        step_norm: Of what it changed the weights by; 0 if it made no step.
        compensation_norm: Of what delay compensation added to the gradient; None if the rule has
            none, or the gradient was not applied.
        gap: |w - w_bak| / sqrt(d): root mean square over the d parameters of how far the server's
            weights were from those that the gradient was computed at.
    """

    push: int
    record: UpdateRecord
    step_norm: float
    compensation_norm: float | None
    gap: float


class CloseLook:
    """Measures what every so many-th push does, and holds all of them against their fingerprints.

    Args:
        every: From one push that is looked at to the next; the first is.
        marks: ``fingerprint`` of each gradient as it was recorded.

    Attributes:
        found: What was measured, in order.
        first_other: Number of the first push whose gradient is not the recorded one bit for bit;
            None so far.
    """

    def __init__(self, every: int, marks: Sequence[int]) -> None:
        self.found: list[Looked] = []
        self.first_other: int | None = None
        self._every = every
        self._marks = marks
        self._pushes = 0

    def push(self, server: ParameterServer, worker: int, push: Push) -> Answer:
        """Hand a push to the server, in its place, and measure what it does if it is its turn."""
        number = self._pushes
        self._pushes += 1
        mark = fingerprint(push.loss, push.grad_norm)
        if self.first_other is None and mark != self._marks[number]:
            self.first_other = number
        if number % self._every:
            return server.push(worker, push)
        border = server.layout.num_params
        params, grad = server.weights[:border], push.vector[:border]
        snapshot = server.slots[worker].snapshot[:border]
        gap = _norm(params - snapshot) / math.sqrt(server.layout.num_trainable)
        compensation = _compensation(server, worker, push, params, grad, snapshot)
        before = params.clone()
        answer = server.push(worker, push)
        step = _norm(params - before) if answer.record.stepped else 0.0
        self.found.append(Looked(number, answer.record, step, compensation, gap))
        return answer


def _compensation(
    server: ParameterServer,
    worker: int,
    push: Push,
    params: Tensor,
    grad: Tensor,
    snapshot: Tensor,
) -> float | None:
    """The norm of the compensation of a gradient that will be applied by itself."""
    facts = server.facts(worker, push.grad_norm)
    finite = push.is_finite(server.layout.num_params)
    if not compensates(server.chain) or not finite:
        return None
    if server.rule.admission.verdict(facts) != "apply":
        return None
    return correction_norm(server.chain, params, grad, snapshot, facts)


def _norm(vector: Tensor) -> float:
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64))

"""Records of pushes: one small record for each gradient that the server receives."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

_TWO_DOUBLES = struct.Struct("<dd")


class Action(IntEnum):
    """Fate of a pushed gradient. The numbers are part of the trace's binary layout."""

    APPLIED = 0
    """It changed the weights, with those held before it, if any; the version went up by one."""
    DROPPED = 1
    """The rule's admission part refused it; its ticket was requeued."""
    HELD = 2
    """It was kept for a later step; the version stays until that step is made."""
    NONFINITE = 3
    """It had NaN or infinity, so it was refused and counted; it never reached the weights. (If a
    run's last ticket is given up this way, gradients that were held make their step then.)"""


class UpdateRecord(NamedTuple):
    """One push, as the server saw it. A named tuple because one is made for every push.

    Attributes:
        worker: Number of the worker, from 0.
        ticket: The minibatch that the gradient is the mean of.
        version: Updates applied before this push.
        staleness: ``version`` minus the version that the gradient was computed at, in updates.
        action: Fate of the gradient.
        samples: Samples in the ticket.
        loss: Mean training loss over the ticket, at the weights that the worker had.
        grad_norm: Euclidean norm of the gradient as it was pushed.
        lr: Learning rate of the step, after the rule's step size part; 0 if there was no step.
        total_samples: Samples applied up to and including this push.
        epoch: ``total_samples`` in passes over the training data.
    """

    worker: int
    ticket: int
    version: int
    staleness: int
    action: Action
    samples: int
    loss: float
    grad_norm: float
    lr: float
    total_samples: int
    epoch: float

    @property
    def stepped(self) -> bool:
        """True if the weights were changed at this push."""
        return self.action is Action.APPLIED or self.lr > 0


def record_of(numbers: Sequence[float]) -> UpdateRecord:
    """Restore a record from its fields as floats, the form in which checkpoints hold it."""
    worker, ticket, version, staleness, action, samples, *rest = numbers
    loss, grad_norm, lr, total_samples, epoch = rest
    return UpdateRecord(
        worker=int(worker),
        ticket=int(ticket),
        version=int(version),
        staleness=int(staleness),
        action=Action(int(action)),
        samples=int(samples),
        loss=loss,
        grad_norm=grad_norm,
        lr=lr,
        total_samples=int(total_samples),
        epoch=epoch,
    )


def fingerprint(loss: float, grad_norm: float) -> int:
    """Return sixteen bits that differ, but for chance, if two gradients differ in any bit.

    A replay compares them push by push and so finds the first gradient that differs. They cost two
    bytes a push in the trace.
    """
    return zlib.crc32(_TWO_DOUBLES.pack(loss, grad_norm)) & 0xFFFF

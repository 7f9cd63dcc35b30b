"""Rules that can be written down but do not mean what they say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from mpi_dcasgd.rules.admission import Admission
from mpi_dcasgd.rules.gap_aware import GapAware
from mpi_dcasgd.rules.momentum import HeavyBall, Nesterov, PerWorkerMomentum, ShiftedMomentum
from mpi_dcasgd.rules.part import Part
from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.rules.step_size import StabilityPreserving, StepSize

_SHRINK_THE_MARGIN = (HeavyBall, Nesterov, PerWorkerMomentum, ShiftedMomentum)
"""Momenta whose largest stable rate falls faster with the delay than that of SGD."""

Mode = Literal["sequential", "synchronous", "asynchronous"]
"""How an algorithm is driven: by one process, by allreduce, or by a server."""


def nonsense(rule: Rule, names: Mapping[str, str], algorithm: str, mode: Mode) -> list[str]:
    """Return what is wrong with a rule whose parts are each valid.

    Args:
        rule: The parts.
        names: Role to the name of its part, as a job has it.
        algorithm: The rule's name.
        mode: How it is driven.

    Returns:
        One problem a line, each beginning with the key below ``rule``.
    """
    problems = _look_ahead(rule, names) + _gaps(rule, names)
    if mode == "asynchronous":
        problems += _collecting(rule, names)
    else:
        problems += _without_staleness(rule, names, algorithm)
    return problems


def remarks(rule: Rule) -> list[str]:
    """Return what a user should know of a rule that is allowed, one message a line."""
    momentum = getattr(rule.momentum, "momentum", 0.0)
    buffered = isinstance(rule.momentum, _SHRINK_THE_MARGIN) and momentum > 0
    if not buffered or not isinstance(rule.step_size, StabilityPreserving):
        return []
    return [
        "warning: step_size stability-preserving keeps the margin of stability of SGD without "
        f"momentum; with {type(rule.momentum).__name__} {momentum:g} far less of it is left (with "
        "heavy-ball 0.9 about 4 to 5 %). `mpi-dcasgd stability JOB` says which lr keeps it"
    ]


def looks_ahead(part: Part) -> bool:
    """Return whether workers are sent something other than the weights."""
    return type(part).sent is not Part.sent


def _look_ahead(rule: Rule, names: Mapping[str, str]) -> list[str]:
    ahead = [role for role, part in rule.parts() if looks_ahead(part)]
    return [
        f"{role}: {names[role]} measures how far the weights moved from what a worker was sent, "
        f"but with {names[other]} a worker is sent a look-ahead point and not the weights; use "
        "momentum dana-slim, the same method with weights that are sent as they are"
        for role, part in rule.parts()
        for other in ahead
        if part.reads_snapshot and role != other
    ]


def _gaps(rule: Rule, names: Mapping[str, str]) -> list[str]:
    if not isinstance(rule.momentum, GapAware) or not _has_a_step_size(rule):
        return []
    return [
        f"momentum: {names['momentum']} measures gaps in steps of the whole learning rate, but "
        f"step_size {names['step_size']} makes steps of a part of it, and both answer to stale "
        "gradients; use step_size constant, or another momentum"
    ]


def _collecting(rule: Rule, names: Mapping[str, str]) -> list[str]:
    # What is collected is asked of the part for two workers, so that None means more than one.
    if rule.admission.collect(2) == 1:
        return []
    admission = names["admission"]
    problems = [
        f"{role}: {names[role]} keeps a vector for each worker, but with admission {admission} a "
        "step is made of the gradients of several; use a part with one state for all workers"
        for role, part in rule.parts()
        if any(vector.per_worker for vector in part.vectors())
    ]
    fresh = f"admission {admission} steps only along gradients without staleness"
    if rule.compensation.reads_snapshot:
        problems.append(
            f"compensation: {names['compensation']} would never act, since {fresh}; use none"
        )
    if _has_a_step_size(rule):
        problems.append(
            f"step_size: {names['step_size']} is meant for stale gradients, but {fresh}; "
            "use constant"
        )
    return problems


def _without_staleness(rule: Rule, names: Mapping[str, str], algorithm: str) -> list[str]:
    problems = []
    if rule.compensation.reads_snapshot:
        problems.append(
            f"compensation: {names['compensation']} would never act, since {algorithm} has no "
            "staleness; use none, or an asynchronous algorithm"
        )
    if _has_a_step_size(rule):
        problems.append(
            f"step_size: {names['step_size']} is meant for stale gradients, but {algorithm} has "
            "none; use constant, or an asynchronous algorithm"
        )
    if _admits(rule):
        problems.append(
            f"admission: {names['admission']} needs a server with several workers, but "
            f"{algorithm} has none; use all, or an asynchronous algorithm"
        )
    return problems


def _has_a_step_size(rule: Rule) -> bool:
    return type(rule.step_size).factor is not StepSize.factor


def _admits(rule: Rule) -> bool:
    kind = type(rule.admission)
    return kind.verdict is not Admission.verdict or kind.may_go_on is not Admission.may_go_on

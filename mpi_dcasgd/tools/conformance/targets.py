"""Targets of laws: a part, a rule, or a server written by somebody else."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from mpi_dcasgd.errors import ConfigError, UserError, did_you_mean
from mpi_dcasgd.extension import import_object
from mpi_dcasgd.messages import problems_of
from mpi_dcasgd.modules import searching
from mpi_dcasgd.rules.algorithms import ALGORITHMS, PARTS, resolve_rule
from mpi_dcasgd.rules.compensation import NoCompensation
from mpi_dcasgd.rules.gap_aware import GapAware
from mpi_dcasgd.rules.momentum import HeavyBall
from mpi_dcasgd.rules.part import Part
from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.rules.step_size import ConstantStep
from mpi_dcasgd.tools.conformance.formula import (
    ChainFormula,
    Formula,
    RuleFormula,
    WholeFormula,
)
from mpi_dcasgd.tools.conformance.formulas import FORMULAS
from mpi_dcasgd.tools.conformance.servers import MakeServer, PlainServer, RuleServer, Server


@dataclass(frozen=True)
class Target:
    """Something that gradients can be pushed to, and what it has to be compared with.

    Attributes:
        name: As it was asked for.
        make: Builds it.
        plain: What it must equal where nothing is stale; None if nobody can say.
        uncompensated: What it must equal where nothing has moved since a worker pulled.
        without_lambda: With ``dc_lambda = 0``, and without compensation: the two must be equal;
            None if it has no such setting.
        compensates: Whether it is to do something about staleness.
        shifts: Whether adding a constant to w_0 adds it to all later weights.
        rule: If it is one.
        formula: Builds what its updates must equal; None if there is none.
        no_formula: Why there is none.
        aims: Whether it has a strength ``dc_lambda`` that it multiplies g g (w - w_bak) by.
    """

    name: str
    make: MakeServer
    plain: MakeServer | None
    uncompensated: MakeServer | None
    without_lambda: tuple[MakeServer, MakeServer] | None
    compensates: bool
    shifts: bool
    rule: Rule | None = None
    formula: Callable[[], RuleFormula] | None = None
    no_formula: str = "no formula is known; give one with --reference"
    aims: bool = False


def rule_target(name: str, rule: Rule, formulas: Mapping[str, Formula] | None = None) -> Target:
    """A rule, driven by the real parameter server.

    Args:
        name: As it was asked for.
        rule: The parts.
        formulas: Role to the formula of a part; of others, those of ``formula_of``.
    """
    fresh = _uncompensated(rule)
    adjustable = any(f.name == "dc_lambda" for f in fields(rule.compensation))  # type: ignore[arg-type, unused-ignore]
    zero: Any = {"dc_lambda": 0.0}
    return Target(
        name=name,
        make=_maker(rule),
        plain=_maker(replace(fresh, step_size=ConstantStep())) if fresh else None,
        uncompensated=_maker(fresh) if fresh else None,
        without_lambda=(
            _maker(replace(rule, compensation=replace(rule.compensation, **zero))),
            _maker(replace(rule, compensation=NoCompensation())),
        )
        if adjustable
        else None,
        compensates=rule.reads_snapshot,
        shifts=rule.weight_decay.rate == 0,
        rule=rule,
        aims=adjustable,
        **_formula(rule, formulas or {}),
    )


def _formula(rule: Rule, formulas: Mapping[str, Formula]) -> dict[str, Any]:
    """Return a target's formula, made of those of its parts."""
    parts = dict(rule.parts())
    found = {role: formulas.get(role) or formula_of(role, part) for role, part in parts.items()}
    known = {role: formula for role, formula in found.items() if formula}
    lacking = [type(parts[role]).__name__ for role in parts if role not in known]
    if lacking:
        which = ", ".join(lacking)
        return {"no_formula": f"no formula is known of {which}; give one with --reference"}
    return {"formula": lambda: ChainFormula(known, parts)}


def formula_of(role: str, part: Part) -> Formula | None:
    """Return the formula of a part: its class's ``reference``, or a built-in part's own."""
    own = getattr(type(part), "reference", None)
    if own is not None:
        return find_formula(own) if isinstance(own, str) else own
    names = {kind: name for name, kind in PARTS[role].items()}
    return FORMULAS[role].get(names.get(type(part), ""))


def find_formula(name: str) -> Formula:
    """Import the function that a formula's name stands for.

    Raises:
        ConfigError: There is none, or it is no function.
    """
    found = _import(name)
    if not callable(found):
        raise ConfigError(
            "conformance",
            [f"{name}: is {type(found).__name__}; a formula is a function of one push"],
        )
    return found  # type: ignore[no-any-return]


def part_rule(part: Part) -> Rule:
    """Plain ASGD with one part put in its place."""
    changes: dict[str, Any] = {part.role: part}
    return replace(Rule(), **changes)


def server_target(name: str, kind: Callable[..., Server]) -> Target:
    """A server of somebody's own.

    It is expected to compensate for staleness, and to be plain ASGD where nothing is stale; an
    attribute ``plain`` of the class may name another class to be compared with there.
    """
    plain: MakeServer = getattr(kind, "plain", PlainServer)
    adjustable = "dc_lambda" in inspect.signature(kind).parameters

    def without_lambda(weights: Tensor, num_workers: int, lr: float) -> Server:
        return kind(weights, num_workers, lr, dc_lambda=0.0)

    own = getattr(kind, "reference", None)
    formula: Any = find_formula(own) if isinstance(own, str) else own
    return Target(
        name=name,
        make=kind,
        plain=plain,
        uncompensated=plain,
        without_lambda=(without_lambda, plain) if adjustable else None,
        compensates=True,
        shifts=True,
        formula=(lambda: WholeFormula(formula)) if formula else None,
        aims=adjustable,
    )


def find_target(name: str) -> Target | Part:
    """Look up the target that a name stands for.

    Args:
        name: A named algorithm, or ``package.module:Name`` of a subclass of ``Part``, a ``Rule``,
            or a class with ``pull`` and ``push``.

    Raises:
        ConfigError: There is no such thing, or it is none of these.
    """
    if ":" not in name:
        if name not in ALGORITHMS:
            hint = did_you_mean(name, ALGORITHMS)
            raise ConfigError(
                "conformance",
                [f"{name}: no such algorithm{hint}; for one's own say package.module:Name"],
            )
        return rule_target(name, resolve_rule(name))
    found = _import(name)
    if isinstance(found, Rule):
        return rule_target(name, found)
    if isinstance(found, type) and issubclass(found, Part):
        return _with_defaults(name, found)
    if callable(found) and all(callable(getattr(found, m, None)) for m in ("pull", "push")):
        return server_target(name, found)
    raise ConfigError(
        "conformance",
        [
            f"{name}: is {type(found).__name__}; allowed: a subclass of "
            "mpi_dcasgd.rules.part.Part, a Rule, or a class with methods pull and push"
        ],
    )


def _import(name: str) -> Any:
    try:
        with searching(fresh=True):
            return import_object(name)
    except UserError as error:
        raise ConfigError("conformance", [f"{name}: {error}"]) from error


def _with_defaults(name: str, kind: type[Part]) -> Part:
    known = [f.name for f in fields(Rule)]
    if getattr(kind, "role", None) not in known:
        raise ConfigError(
            "conformance", [f"{name}: has no role; give the class one of {', '.join(known)}"]
        )
    try:
        return kind()
    except (ValidationError, TypeError) as error:
        why = str(error)
        if isinstance(error, ValidationError):
            why = "; ".join(problems_of(kind, {}, "", error))
        raise ConfigError(
            "conformance",
            [f"{name}: cannot be made without settings; give every field a default ({why})"],
        ) from error


def _uncompensated(rule: Rule) -> Rule | None:
    """The rule for which weights that did not move are all the same to it."""
    momentum = rule.momentum
    if isinstance(momentum, GapAware):
        momentum = HeavyBall(momentum=momentum.momentum)
    elif momentum.reads_snapshot:
        return None
    return replace(rule, compensation=NoCompensation(), momentum=momentum)


def _maker(rule: Rule) -> MakeServer:
    return lambda weights, num_workers, lr: RuleServer(rule, weights, num_workers, lr)

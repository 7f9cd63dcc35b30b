"""Named algorithms: which parts make up which published method, and how it is driven.

A job says ``algorithm: dcasgd-a`` and may change single settings of the named chain under
``rule:``, or put another part in its place by naming it::

    algorithm: dcasgd-a
    rule:
      compensation: {dc_lambda: 1.0}            # a setting of the named part
      momentum: {name: heavy-ball, momentum: 0.5}   # another part for this role
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from pydantic import ValidationError

from mpi_dcasgd.errors import ConfigError, did_you_mean
from mpi_dcasgd.rules.admission import AcceptAll
from mpi_dcasgd.rules.chain import Rule
from mpi_dcasgd.rules.compensation import AdaptiveCompensation, ConstantCompensation, NoCompensation
from mpi_dcasgd.rules.momentum import HeavyBall, NoMomentum
from mpi_dcasgd.rules.part import Part
from mpi_dcasgd.rules.step_size import ConstantStep
from mpi_dcasgd.rules.weight_decay import WeightDecay

Mode = Literal["sequential", "synchronous", "asynchronous"]

PARTS: dict[str, dict[str, type[Part]]] = {
    "admission": {"all": AcceptAll},
    "weight_decay": {"l2": WeightDecay},
    "compensation": {
        "none": NoCompensation,
        "dc-constant": ConstantCompensation,
        "dc-adaptive": AdaptiveCompensation,
    },
    "momentum": {"none": NoMomentum, "heavy-ball": HeavyBall},
    "step_size": {"constant": ConstantStep},
}
"""Every built-in part by role and by the name that job files use."""


@dataclass(frozen=True)
class Algorithm:
    """A named chain: the parts that differ from doing nothing, by role."""

    name: str
    mode: Mode
    summary: str
    parts: Mapping[str, str] = field(default_factory=dict)


ALGORITHMS: dict[str, Algorithm] = {
    algorithm.name: algorithm
    for algorithm in (
        Algorithm("sgd", "sequential", "one process, no staleness: the reference"),
        Algorithm("ssgd", "synchronous", "Horovod allreduce of all workers' gradients"),
        Algorithm("asgd", "asynchronous", "apply stale gradients as they come"),
        Algorithm(
            "dcasgd-c",
            "asynchronous",
            "delay compensation with constant lambda (Zheng et al. 2017)",
            {"compensation": "dc-constant"},
        ),
        Algorithm(
            "dcasgd-a",
            "asynchronous",
            "delay compensation with adaptive lambda (Zheng et al. 2017)",
            {"compensation": "dc-adaptive"},
        ),
    )
}


def resolve_rule(algorithm: str, changes: Mapping[str, Any] | None = None) -> Rule:
    """The named algorithm's chain with a job's changes.

    Args:
        algorithm: A key of ``ALGORITHMS``.
        changes: Role to settings; ``name`` picks another part for the role, which is a name of
            ``PARTS`` or ``package.module:ClassName`` of a part of one's own.

    Raises:
        ConfigError: With every problem found, keys relative to ``rule``.
    """
    named = ALGORITHMS[algorithm]
    changes = dict(changes or {})
    problems: list[str] = []
    chosen: dict[str, Part] = {}
    for role in changes.keys() - PARTS.keys():
        allowed = ", ".join(PARTS)
        problems.append(f"{role}: unknown{did_you_mean(role, PARTS)} (allowed: {allowed})")
    for role in PARTS:
        default = named.parts.get(role, next(iter(PARTS[role])))
        try:
            chosen[role] = _resolve_part(role, default, changes.get(role), algorithm)
        except ConfigError as error:
            problems += [f"{role}{line}" for line in error.problems]
    if problems:
        raise ConfigError("rule", problems)
    return Rule(**chosen)  # type: ignore[arg-type]  # roles are checked in _find_part


def describe_rule(rule: Rule) -> dict[str, dict[str, Any]]:
    """The rule written out as a job's ``rule:`` section, every setting of every part."""
    written: dict[str, dict[str, Any]] = {}
    for role, part in rule.parts():
        kinds = {kind: name for name, kind in PARTS[role].items()}
        name = kinds.get(type(part), f"{type(part).__module__}:{type(part).__qualname__}")
        settings = {f.name: getattr(part, f.name) for f in fields(part)}
        written[role] = {"name": name, **settings}
    return written


def _resolve_part(role: str, default: str, change: Any, algorithm: str) -> Part:
    if change is None:
        change = {}
    if isinstance(change, str):
        change = {"name": change}
    if not isinstance(change, Mapping):
        raise ConfigError(
            role, [f": got {change!r}; give a mapping of settings, or a part's name"]
        )
    settings = dict(change)
    name = settings.pop("name", default)
    kind = _find_part(role, name)
    allowed = [f.name for f in fields(kind)]  # type: ignore[arg-type]  # a pydantic dataclass
    problems = [
        f".{key}: unknown setting of {name}{did_you_mean(str(key), allowed)} "
        f"(allowed: {', '.join(allowed) or f'none, since {algorithm} has no such part'})"
        for key in settings
        if key not in allowed
    ]
    known = {key: value for key, value in settings.items() if key in allowed}
    try:
        part = kind(**known)
    except ValidationError as error:
        problems += [
            f".{'.'.join(str(p) for p in e['loc'])}: {e['msg']}, got {e['input']!r}"
            for e in error.errors()
        ]
    if problems:
        raise ConfigError(role, problems)
    return part


def _find_part(role: str, name: Any) -> type[Part]:
    found = PARTS[role].get(name) if isinstance(name, str) else None
    if found is not None:
        return found
    if not isinstance(name, str) or ":" not in name:
        hint = did_you_mean(str(name), PARTS[role])
        allowed = ", ".join(PARTS[role])
        raise ConfigError(
            role, [f".name: unknown {name!r}{hint} (allowed: {allowed}, or package.module:Name)"]
        )
    module_name, _, attribute = name.partition(":")
    try:
        kind = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(role, [f".name: cannot import {name}: {error}"]) from error
    if not (isinstance(kind, type) and issubclass(kind, Part)):
        raise ConfigError(role, [f".name: {name} is not a subclass of mpi_dcasgd.rules.part.Part"])
    if kind.role != role:
        raise ConfigError(role, [f".name: {name} is a part for {kind.role}, not for {role}"])
    return kind

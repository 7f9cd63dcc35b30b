"""Named algorithms: which parts make up which published method, and how it is driven.

A job says ``algorithm: dcasgd-a`` and may change single settings of the named chain under
``rule:``, or put another part in its place by naming it::

    algorithm: dcasgd-a
    rule:
      compensation: {dc_lambda: 1.0}            # a setting of the named part
      momentum: {name: heavy-ball, momentum: 0.5}   # another part for this role
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pydantic import ValidationError

from mpi_dcasgd.errors import ConfigError, UserError, did_you_mean
from mpi_dcasgd.extension import import_class, is_path, unknown
from mpi_dcasgd.messages import problems_of, seen
from mpi_dcasgd.rules.adam import Adam
from mpi_dcasgd.rules.admission import AcceptAll, Collect, StaleSynchronous, Threshold
from mpi_dcasgd.rules.clipping import NoClipping, NormClipping
from mpi_dcasgd.rules.compatibility import Mode, nonsense
from mpi_dcasgd.rules.compensation import AdaptiveCompensation, ConstantCompensation, NoCompensation
from mpi_dcasgd.rules.dana import DanaSlim, DanaZero
from mpi_dcasgd.rules.gap_aware import GapAware
from mpi_dcasgd.rules.momentum import (
    HeavyBall,
    Nesterov,
    NoMomentum,
    PerWorkerMomentum,
    ShiftedMomentum,
)
from mpi_dcasgd.rules.part import Part
from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.rules.step_size import (
    ConcurrencyAware,
    ConstantStep,
    DelayAdaptive,
    StabilityPreserving,
    StalenessAware,
)
from mpi_dcasgd.rules.weight_decay import WeightDecay

PARTS: dict[str, dict[str, type[Part]]] = {
    "admission": {
        "all": AcceptAll,
        "threshold": Threshold,
        "collect": Collect,
        "ssp": StaleSynchronous,
    },
    "clipping": {"none": NoClipping, "norm": NormClipping},
    "weight_decay": {"l2": WeightDecay},
    "compensation": {
        "none": NoCompensation,
        "dc-constant": ConstantCompensation,
        "dc-adaptive": AdaptiveCompensation,
    },
    "momentum": {
        "none": NoMomentum,
        "heavy-ball": HeavyBall,
        "nesterov": Nesterov,
        "shifted": ShiftedMomentum,
        "per-worker": PerWorkerMomentum,
        "dana": DanaZero,
        "dana-slim": DanaSlim,
        "gap-aware": GapAware,
        "adam": Adam,
    },
    "step_size": {
        "constant": ConstantStep,
        "staleness-aware": StalenessAware,
        "stability-preserving": StabilityPreserving,
        "delay-adaptive": DelayAdaptive,
        "concurrency-aware": ConcurrencyAware,
    },
}
"""Every built-in part by role and by the name that job files use; the first is the default."""


@dataclass(frozen=True)
class Algorithm:
    """A named chain: the parts that differ from doing nothing, by role.

    Attributes:
        name: What a job says.
        mode: Which driver runs it.
        summary: One line for lists.
        parts: Role to the name of a part.
    """

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
        Algorithm(
            "sa-asgd",
            "asynchronous",
            "learning rate over staleness (Zhang et al. 2016)",
            {"step_size": "staleness-aware"},
        ),
        Algorithm(
            "stable-asgd",
            "asynchronous",
            "learning rate at the same margin of stability as without delay (Giladi et al. 2020)",
            {"step_size": "stability-preserving"},
        ),
        Algorithm(
            "adaptive-asgd",
            "asynchronous",
            "smaller steps for gradients staler than num_workers (Mishchenko et al. 2022)",
            {"step_size": "delay-adaptive"},
        ),
        Algorithm(
            "concurrency-asgd",
            "asynchronous",
            "smaller or no steps beyond a staleness of tau_C (Koloskova et al. 2022)",
            {"step_size": "concurrency-aware"},
        ),
        Algorithm(
            "gap-aware",
            "asynchronous",
            "gradients divided by how far the weights have moved (Barkai et al. 2020)",
            {"momentum": "gap-aware"},
        ),
        Algorithm(
            "dana",
            "asynchronous",
            "momentum per worker, weights that look ahead by all of it (Hakimi et al. 2019)",
            {"momentum": "dana"},
        ),
        Algorithm(
            "dana-slim",
            "asynchronous",
            "DANA in terms of the look-ahead point (Hakimi et al. 2019)",
            {"momentum": "dana-slim"},
        ),
        Algorithm(
            "dana-dc",
            "asynchronous",
            "DANA-Slim with delay compensation (Hakimi et al. 2019)",
            {"momentum": "dana-slim", "compensation": "dc-constant"},
        ),
        Algorithm(
            "ringmaster",
            "asynchronous",
            "gradients beyond a staleness are computed afresh (Maranjyan et al. 2025)",
            {"admission": "threshold"},
        ),
        Algorithm(
            "rennala",
            "asynchronous",
            "a step for every B fresh gradients, whoever sends them (Tyurin, Richtarik 2023)",
            {"admission": "collect"},
        ),
        Algorithm(
            "ssp",
            "asynchronous",
            "workers too far ahead wait for the slowest (Ho et al. 2013)",
            {"admission": "ssp"},
        ),
    )
}


def mode_of(algorithm: str) -> Mode:
    """Return how a named algorithm is driven; ``Job.mode`` says it of a job."""
    return ALGORITHMS[algorithm].mode


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
            chosen[role] = _resolve_part(role, default, changes.get(role), named)
        except ConfigError as error:
            problems += [f"{role}{line}" for line in error.problems]
    if problems:
        raise ConfigError("rule", problems)
    rule = Rule(**chosen)  # type: ignore[arg-type]  # roles are checked in _find_part
    names = {role: part["name"] for role, part in describe_rule(rule).items()}
    problems = nonsense(rule, names, algorithm, named.mode)
    if problems:
        raise ConfigError("rule", problems)
    return rule


def describe_rule(rule: Rule) -> dict[str, dict[str, Any]]:
    """The rule written out as a job's ``rule:`` section, every setting of every part."""
    written: dict[str, dict[str, Any]] = {}
    for role, part in rule.parts():
        kinds = {kind: name for name, kind in PARTS[role].items()}
        name = kinds.get(type(part), f"{type(part).__module__}:{type(part).__qualname__}")
        settings = {f.name: getattr(part, f.name) for f in fields(part)}
        written[role] = {"name": name, **settings}
    return written


def _resolve_part(role: str, default: str, change: Any, named: Algorithm) -> Part:
    if change is None:
        change = {}
    if isinstance(change, str):
        change = {"name": change}
    if not isinstance(change, Mapping):
        raise ConfigError(
            role, [f": got {seen(change)}; allowed: a part's name, or a mapping of its settings"]
        )
    settings = dict(change)
    name = settings.pop("name", default)
    kind = _find_part(role, name)
    allowed = _settings_of(kind)
    problems = [
        f".{key}: unknown setting of {name}{did_you_mean(str(key), allowed)} "
        f"({_offer(allowed)}{_elsewhere(role, str(key), named)})"
        for key in settings
        if key not in allowed
    ]
    known = {key: value for key, value in settings.items() if key in allowed}
    try:
        part = kind(**known)
    except ValidationError as error:
        problems += problems_of(kind, known, ".", error)
    if problems:
        raise ConfigError(role, problems)
    return part


def _elsewhere(role: str, key: str, named: Algorithm) -> str:
    """End of a message: the parts that have a setting which this one lacks."""
    kinds = {name: kind for name, kind in PARTS[role].items() if key in _settings_of(kind)}
    if not kinds:
        return ""
    chosen = named.parts.get(role, next(iter(PARTS[role])))
    return f"; {named.name} has {role} {chosen}; name one of {', '.join(kinds)} for it"


def _offer(allowed: list[str]) -> str:
    return f"allowed: {', '.join(allowed)}" if allowed else "it has no settings"


def _settings_of(kind: type[Part]) -> list[str]:
    return [f.name for f in fields(kind)]


def _find_part(role: str, name: Any) -> type[Part]:
    found = PARTS[role].get(name) if isinstance(name, str) else None
    if found is not None:
        return found
    try:
        if not isinstance(name, str) or not is_path(name):
            raise UserError(unknown(name, PARTS[role]))
        kind = import_class(name, Part)
    except UserError as error:
        raise ConfigError(role, [f".name: {error}"]) from error
    if kind.role != role:
        raise ConfigError(role, [f".name: {name} is a part for {kind.role}, not for {role}"])
    if role == "weight_decay" and not issubclass(kind, WeightDecay):
        raise ConfigError(
            role,
            [
                f".name: {name} is no subclass of mpi_dcasgd.rules.weight_decay:WeightDecay, whose "
                "rate and place the chain needs; derive it from that class"
            ],
        )
    return kind

"""Assignment of a model's parameters to groups, by name and by the layer that they belong to."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from mpi_dcasgd.learning.groups import CHOICES, Grouping, ParameterGroup

_SHOWN = 3
"""Names that a message lists."""


@dataclass(frozen=True)
class Named:
    """A parameter with all of its names, of which there are several if weights are tied.

    Attributes:
        names: The first is the one that ``named_parameters`` gives.
        choices: Named choices that it belongs to, ``rest`` left out.
        trained: Whether the model itself wants it trained.
    """

    names: tuple[str, ...]
    choices: frozenset[str]
    trained: bool

    @property
    def name(self) -> str:
        return self.names[0]


def named_parameters(model: nn.Module) -> list[Named]:
    """List the parameters in the model's order, tied ones once.

    A tied weight belongs to the choices of every layer that uses it.
    """
    names: dict[int, list[str]] = {}
    choices: dict[int, set[str]] = {}
    found = []
    for prefix, module in model.named_modules(remove_duplicate=False):
        for attribute, parameter in module.named_parameters(prefix="", recurse=False):
            key = id(parameter)
            if key not in names:
                found.append(parameter)
            names.setdefault(key, []).append(f"{prefix}.{attribute}" if prefix else attribute)
            choices.setdefault(key, set()).update(_choices(module, attribute))
    return [
        Named(tuple(dict.fromkeys(names[id(p)])), frozenset(choices[id(p)]), p.requires_grad)
        for p in found
    ]


def assign(parameters: Sequence[Named], grouping: Grouping) -> tuple[list[int], list[str]]:
    """Find the group of every parameter.

    Args:
        parameters: Of the model.
        grouping: The job's.

    Returns:
        The number of the group of each, ``len(groups)`` for none; and all that is wrong, a line
        each beginning with the job's key.
    """
    groups = grouping.groups
    taken = [
        next((n for n, group in enumerate(groups) if _takes(group.match, one)), len(groups))
        for one in parameters
    ]
    problems = []
    for number, group in enumerate(groups):
        mine = [one for one, its in zip(parameters, taken, strict=True) if its == number]
        if unmatched := _unmatched(number, group, parameters):
            problems += unmatched
        elif not mine:
            problems.append(_left_over(number, group, parameters))
        elif not group.frozen and not any(one.trained for one in mine):
            problems.append(
                f"groups[{number}]: the model itself does not train {_some(mine)} "
                "(requires_grad is False); omit the group, or let the model train them"
            )
    if grouping.decay_on == "conv-and-linear" and not any(map(decays, parameters)):
        problems.append(
            "rule.weight_decay.on: got conv-and-linear, but the model has no convolution and no "
            "linear layer; use all, or groups with patterns of names"
        )
    return taken, problems


def decays(parameter: Named) -> bool:
    """Return whether ``weight_decay: {on: conv-and-linear}`` acts on a parameter."""
    return "conv-and-linear" in parameter.choices


def _takes(patterns: Iterable[str], parameter: Named) -> bool:
    return any(_matches(pattern, parameter) for pattern in patterns)


def _matches(pattern: str, parameter: Named) -> bool:
    if pattern in CHOICES:
        return pattern == "rest" or pattern in parameter.choices
    return any(fnmatchcase(name, pattern) for name in parameter.names)


def _choices(module: nn.Module, attribute: str) -> set[str]:
    found = set()
    if "bias" in attribute.split("_"):
        found |= {"biases", "biases-and-norms"}
    # Norms that models bring along, such as LlamaRMSNorm, share no class but have it in the name.
    norm = isinstance(module, (_NormBase, nn.LayerNorm, nn.GroupNorm))
    if norm or "Norm" in type(module).__name__:
        found |= {"norms", "biases-and-norms"}
    if isinstance(module, (_ConvNd, nn.Linear)) and attribute == "weight":
        found.add("conv-and-linear")
    if isinstance(module, nn.MultiheadAttention) and attribute.endswith("proj_weight"):
        found.add("conv-and-linear")
    return found


def _unmatched(number: int, group: ParameterGroup, parameters: Sequence[Named]) -> list[str]:
    """Say which of a group's patterns match no parameter at all, whoever takes it."""
    problems = []
    names = [name for one in parameters for name in one.names]
    for pattern in group.match:
        if any(_matches(pattern, one) for one in parameters):
            continue
        if pattern in CHOICES:
            problems.append(
                f"groups[{number}].match: {pattern} ({CHOICES[pattern]}): the model has none; "
                f"its parameters are {_listing(names)}"
            )
            continue
        near = difflib.get_close_matches(pattern, [*names, *CHOICES], n=_SHOWN, cutoff=0.5)
        hint = f"near: {', '.join(near)}" if near else f"its parameters are {_listing(names)}"
        problems.append(
            f"groups[{number}].match: {pattern!r} matches no parameter of the model; {hint}; "
            f"allowed: patterns of parameter names, or one of {', '.join(CHOICES)}"
        )
    return problems


def _left_over(number: int, group: ParameterGroup, parameters: Sequence[Named]) -> str:
    taken = [one for one in parameters if _takes(group.match, one)]
    return (
        f"groups[{number}]: earlier groups have taken all that it matches ({_some(taken)}); put it "
        "before them, or omit it"
    )


def _some(parameters: Sequence[Named]) -> str:
    return _listing([one.name for one in parameters])


def _listing(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more

"""Settings of parameter groups: parts of a model that are trained differently, or not at all.

Which parameters a group takes is decided when the model is known (matching.py); how they lie in
the flat vector is in layout.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.learning.settings import Positive
from mpi_dcasgd.rules.weight_decay import DecayOn

Choice = Literal["biases", "norms", "biases-and-norms", "conv-and-linear", "rest"]

CHOICES: dict[str, str] = {
    "biases": "parameters named bias, or bias_... or ..._bias",
    "norms": "all parameters of normalization layers (batch, layer, group, instance, RMS norm)",
    "biases-and-norms": "both of these",
    "conv-and-linear": "weights of convolutions and linear layers, also within attention",
    "rest": "whatever no group before has taken",
}
"""Named choices of parameters, which stand where a pattern may."""

_Text = Annotated[str, Field(min_length=1)]


def _listed(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ParameterGroup:
    """One entry of a job's ``groups:``.

    Example:
        >>> ParameterGroup(match="biases-and-norms", weight_decay=0.0).match
        ('biases-and-norms',)
    """

    match: Annotated[
        _Text | Annotated[tuple[_Text, ...], Field(strict=False, min_length=1)],
        AfterValidator(_listed),
        Field(
            description="shell patterns of parameter names, or biases, norms, biases-and-norms, "
            "conv-and-linear, rest: one or a list; the first group that matches takes a parameter"
        ),
    ]
    lr: Annotated[Positive, Field(description="factor of the learning rate")] = 1.0
    weight_decay: Annotated[
        float,
        Field(ge=0, allow_inf_nan=False, description="factor of rule.weight_decay.rate"),
    ] = 1.0
    frozen: Annotated[
        bool, Field(description="not trained: keeps its initial values, and is never sent")
    ] = False


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Grouping:
    """All that a job says about the treatment of single parameters.

    Attributes:
        groups: In order; a parameter that none of them matches is treated as always.
        decay_on: Parameters that weight decay acts on, in every group.
    """

    groups: tuple[ParameterGroup, ...] = ()
    decay_on: DecayOn = "all"


NO_GROUPS = Grouping()


def check_groups(groups: Sequence[ParameterGroup]) -> list[str]:
    """Find what is wrong with groups whatever the model is.

    Returns:
        The problems, one line each beginning with the key.
    """
    problems = []
    for number, group in enumerate(groups):
        given = [key for key in ("lr", "weight_decay") if getattr(group, key) != 1.0]
        if group.frozen and given:
            problems.append(
                f"groups[{number}].frozen: got true beside {' and '.join(given)}; what is frozen "
                f"has no step to be scaled: omit frozen, or {' and '.join(given)}"
            )
    takes_all = [n for n, group in enumerate(groups) if {"rest", "*"} & set(group.match)]
    if takes_all and takes_all[0] + 1 < len(groups):
        first = takes_all[0]
        problems.append(
            f"groups[{first + 1}]: is never reached, since groups[{first}] takes all that is left; "
            f"put groups[{first}] last"
        )
    return problems

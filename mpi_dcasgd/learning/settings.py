"""Settings that models and data sets share, or that training has beside those of the rule."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT


def at_most(limit: int, shown: str) -> AfterValidator:
    """Refuse numbers that are too large for what they are used for.

    A range would do the same, and stand in every message and in the reference.
    """

    def check(value: int) -> int:
        if value > limit:
            raise ValueError(f"too large; allowed: at most {shown}")
        return value

    return AfterValidator(check)


Count = Annotated[int, Field(ge=1), at_most(2**31 - 1, "2^31 - 1")]
"""How many there are of anything; samples times epochs still fit into 64 bits."""

Threads = Annotated[int, Field(ge=1), at_most(1024, "1024")]
"""Threads that a process starts; PyTorch crashes where there cannot be so many."""

Seed = Annotated[int, Field(ge=0), at_most(2**64 - 1, "2^64 - 1")]
"""A seed that PyTorch's generators take."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
"""A finite number."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A finite number above 0."""

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A finite number of seconds, which may be 0."""

StatisticsPolicy = Literal["average", "latest"]
"""What the server does with BatchNorm's running statistics, which no rule ever compensates.

``average``: workers push the statistics of their batch; the server keeps the running mean with
the layers' own momentum, as one process that saw all batches would. ``latest``: workers push
their own running statistics and the server keeps the last that came (Giladi et al. 2020).
"""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Named:
    """Base of the settings of a model or a data set, which a job chooses by name.

    A subclass is a frozen dataclass whose fields are its settings.

    Attributes:
        name: The name in job files: one of the table, or ``package.module:Name``.
    """

    name: Annotated[str, Field(min_length=1)]

    def check(self) -> list[str]:
        """Find settings that contradict each other, without importing PyTorch.

        Returns:
            The problems, one line each beginning with the key.
        """
        return []


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StartSettings:
    """The ``start:`` section of a job: where its first weights are from."""

    weights: Annotated[
        Annotated[str, Field(min_length=1)] | None,
        Field(
            description="a run folder, for its final weights, or a file of weights: one of a run, "
            "such as its best.pt, or what torch.save wrote of a state_dict; null: the model's own "
            "first weights, which follow from the seed"
        ),
    ] = None
    fresh: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...],
        Field(
            strict=False,
            description="shell patterns of names that keep the model's own first weights, such as "
            "a new head's, [fc.*]",
        ),
    ] = ()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ComputeSettings:
    """Settings of the computation of a minibatch's gradient."""

    precision: Annotated[
        Literal["float32", "bfloat16"],
        Field(
            description="of the forward pass; bfloat16 computes it under torch.autocast. Weights, "
            "gradients, updates and evaluations are float32 in any case"
        ),
    ] = "float32"
    channels_last: Annotated[
        bool,
        Field(description="give images to the model with channels last, which convolutions prefer"),
    ] = False
    compile: Annotated[
        bool,
        Field(
            description="compile the loss with torch.compile, once for each size of minibatch; "
            "takes up to minutes at the start of each rank"
        ),
    ] = False
    accumulate: Annotated[
        Count,
        Field(
            description="parts that a minibatch is computed in, one after the other, where all of "
            "it does not fit into memory; their gradients make one push"
        ),
    ] = 1

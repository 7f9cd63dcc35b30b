"""Settings that models and data sets share, or that models have beside their own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT

Count = Annotated[int, Field(ge=1)]

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

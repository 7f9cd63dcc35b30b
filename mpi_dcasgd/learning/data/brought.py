"""Settings of data that a user's code brings: a task's own, or a function's."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.learning.data.source import DataSource
from mpi_dcasgd.learning.settings import at_most


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BroughtData(DataSource):
    """Data sets that are loaded sample by sample."""

    loaders: Annotated[
        int,
        at_most(1024, "1024"),
        Field(
            ge=0,
            description="processes of each rank that load samples; 0 loads them in the rank itself",
        ),
    ] = 0

    @property
    def tickets_ahead(self) -> int:
        return max(2, self.loaders) if self.loaders else 0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TaskData(BroughtData):
    """The data that the task makes."""

    name: Literal["task"] = "task"

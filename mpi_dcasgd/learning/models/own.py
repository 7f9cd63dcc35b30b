"""Placeholder of a job's ``model:`` section where the task builds the model itself."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.learning.models.base import ModelSource


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TaskModel(ModelSource):
    """The model that the task builds."""

    name: Literal["task"] = "task"

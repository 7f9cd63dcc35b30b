"""Data that a function of the user's own loads.

``data: {name: "my_data:load", size: 100}`` calls ``load(size=100)``. Where the function takes
``seed``, this is the job's; its other parameters are the settings.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT, ConfigError, DataError, UserError
from mpi_dcasgd.extension import import_object
from mpi_dcasgd.learning.data.brought import BroughtData
from mpi_dcasgd.learning.data.dataset import Dataset, Facts
from mpi_dcasgd.learning.data.source import DataSource
from mpi_dcasgd.learning.guard import failed
from mpi_dcasgd.learning.signature import CallSettings, settings_of_call

if TYPE_CHECKING:
    import torch

_BASE = f"{DataSource.__module__}.{DataSource.__qualname__}"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FunctionData(CallSettings, BroughtData):
    """Data that a function loads; a subclass has the function's parameters as fields."""

    call_filled: ClassVar[tuple[str, ...]] = ("seed",)

    def facts(self) -> Facts:
        known: Facts | None = self.__dict__.get("_facts")
        if known is None:  # asked more than once at the start of a run, and loading may take long
            known = super().facts()
            object.__setattr__(self, "_facts", known)
        return known

    def load(self, seed: int, device: torch.device) -> Dataset:
        from mpi_dcasgd.learning.data.returned import dataset_of
        from mpi_dcasgd.learning.generators import kept, plant

        with kept():
            plant(seed)
            try:
                returned = import_object(self.call_target)(
                    **self.arguments(), **self.wanted({"seed": seed})
                )
            except UserError:
                raise
            except Exception as error:
                raise ConfigError("data", [f"name: {self._said(error)}"]) from error
            try:
                return dataset_of(returned, self.name, device)
            except DataError as error:
                raise DataError(f"{self.name}: {error}") from error

    def _said(self, error: Exception) -> str:
        return f"{self.name} {failed(self.name, error).problems[0]}"


def function_data(path: str, given: Iterable[str] = ()) -> type[FunctionData]:
    """Make the settings class of a function: its parameters, with their types and defaults.

    Args:
        path: The function, as ``package.module:name``.
        given: Keys that a job gives (`settings_of_call`).

    Raises:
        UserError: It cannot be imported or called by keywords.
    """
    found: Any = import_object(path)
    if not callable(found) or isinstance(found, type):
        raise UserError(f"{path} is neither a subclass of {_BASE} nor a function that returns data")
    return settings_of_call(path, FunctionData, given)

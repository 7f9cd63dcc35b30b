"""Models that a function, or a module class, of the user's own builds.

``model: {name: "my_models:net", width: 256}`` calls ``net(width=256)``. Where the function takes
``input_shape`` or ``num_classes``, these come from the data; its other parameters are the settings.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT, ConfigError, UserError
from mpi_dcasgd.extension import import_object
from mpi_dcasgd.learning.guard import failed
from mpi_dcasgd.learning.models.base import ModelSource
from mpi_dcasgd.learning.signature import CallSettings, settings_of_call

if TYPE_CHECKING:
    from torch import nn

_BASE = f"{ModelSource.__module__}.{ModelSource.__qualname__}"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FunctionModel(CallSettings, ModelSource):
    """Model that a function of the user's own builds; a subclass has its parameters as fields."""

    call_filled: ClassVar[tuple[str, ...]] = ("input_shape", "num_classes")

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        from torch import nn

        from_data = self.wanted({"input_shape": input_shape, "num_classes": num_classes})
        try:
            model = import_object(self.call_target)(**self.arguments(), **from_data)
        except UserError:
            raise
        except Exception as error:
            raise ConfigError("model", [f"name: {line}" for line in _said(self, error)]) from error
        if not isinstance(model, nn.Module):
            raise ConfigError(
                "model", [f"name: {self.name} returned {type(model).__name__}, no torch.nn.Module"]
            )
        return model


def function_model(path: str, given: Iterable[str] = ()) -> type[FunctionModel]:
    """Make the settings class of a function: its parameters, with their types and defaults.

    Args:
        path: The function, as ``package.module:name``; a module class serves as well.
        given: Keys that a job gives (`settings_of_call`).

    Raises:
        UserError: It cannot be imported or called by keywords.
    """
    if not callable(import_object(path)):
        raise UserError(f"{path} is neither a subclass of {_BASE} nor can it be called")
    return settings_of_call(path, FunctionModel, given)


def _said(model: FunctionModel, error: Exception) -> list[str]:
    return [f"{model.name} {line}" for line in failed(model.name, error).problems]

"""Models that a function, or a module class, of the user's own builds.

``model: {name: "my_models:net", width: 256}`` calls ``net(width=256)``. Where the function takes
``input_shape`` or ``num_classes``, these come from the data; its other parameters are the settings.
"""

from __future__ import annotations

import copy
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import field, fields
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from pydantic.errors import PydanticUserError

from mpi_dcasgd.errors import STRICT, ConfigError, UserError
from mpi_dcasgd.extension import import_object
from mpi_dcasgd.learning.models.base import ModelSource

if TYPE_CHECKING:
    from torch import nn

_FROM_DATA = ("input_shape", "num_classes")
_ANY_TYPE = ConfigDict(**STRICT, arbitrary_types_allowed=True)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FunctionModel(ModelSource):
    """Model that a function of the user's own builds; a subclass has its parameters as fields."""

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        from torch import nn

        function = import_object(self.name)
        given = {key: copy.deepcopy(value) for key, value in self._settings().items()}
        from_data = {"input_shape": input_shape, "num_classes": num_classes}
        given |= {key: from_data[key] for key in _FROM_DATA if key in _parameters(function)}
        model = function(**given)
        if not isinstance(model, nn.Module):
            raise ConfigError(
                "model", [f"name: {self.name} returned {type(model).__name__}, no torch.nn.Module"]
            )
        return model

    def _settings(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "name"}

    def __reduce__(self) -> tuple[Callable[..., FunctionModel], tuple[str, dict[str, Any]]]:
        # The class is made in each process, from the function's signature.
        return _again, (self.name, self._settings())


@cache
def function_model(path: str) -> type[FunctionModel]:
    """Make the settings class of a function: its parameters, with their types and defaults.

    Args:
        path: The function, as ``package.module:name``; a module class serves as well.

    Raises:
        UserError: It cannot be imported or called by keywords.
    """
    function = import_object(path)
    if not callable(function):
        raise UserError(f"{path} is neither a subclass of {_BASE} nor can it be called")
    hints = _hints(function)
    body: dict[str, Any] = {"__doc__": inspect.getdoc(function) or path, "__module__": __name__}
    annotations: dict[str, Any] = {}
    for name, parameter in _parameters(function).items():
        if name in _FROM_DATA or parameter.kind is parameter.VAR_KEYWORD:
            continue
        if name == "name" or parameter.kind in (
            parameter.POSITIONAL_ONLY,
            parameter.VAR_POSITIONAL,
        ):
            raise UserError(
                f"{path} cannot be given settings: its parameter {parameter} is in the way"
            )
        annotations[name] = _annotation(hints.get(name, Any))
        if parameter.default is not parameter.empty:
            body[name] = field(default_factory=_copies(parameter.default))
    body["__annotations__"] = annotations
    kind = type("SettingsOfFunction", (FunctionModel,), body)
    try:
        made: Any = dataclass(kind, frozen=True, kw_only=True, config=_ANY_TYPE)
    except PydanticUserError as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} cannot be given settings: {reason}") from error
    return cast(type[FunctionModel], made)


_BASE = f"{ModelSource.__module__}.{ModelSource.__qualname__}"


def _again(path: str, settings: Mapping[str, Any]) -> FunctionModel:
    return function_model(path)(name=path, **settings)


def _parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError) as error:
        raise UserError(f"{function!r} does not tell its parameters: {error}") from error


def _hints(function: Any) -> dict[str, Any]:
    target = getattr(function, "__init__") if isinstance(function, type) else function  # noqa: B009
    try:
        return typing.get_type_hints(target, include_extras=True)
    except (NameError, TypeError):
        return {}  # of types that only a type checker imports: anything goes


def _annotation(hint: Any) -> Any:
    """The type as a job file can give it: YAML has lists where Python has tuples."""
    return Annotated[hint, Field(strict=False)] if typing.get_origin(hint) is tuple else hint


def _copies(default: Any) -> Callable[[], Any]:
    return lambda: copy.deepcopy(default)

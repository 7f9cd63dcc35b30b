"""Settings that follow from the signature of a function or a class, a user's or one of ours.

``{name: "my_models:net", width: 256}`` calls ``net(width=256)``: the parameters are the settings,
with the types of their hints, and ``Annotated[int, Field(ge=1)]`` says more of what is allowed.
"""

from __future__ import annotations

import copy
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field, fields
from functools import cache
from typing import Annotated, Any, ClassVar, TypeVar, cast

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from pydantic.errors import PydanticUserError

from mpi_dcasgd.errors import STRICT, UserError
from mpi_dcasgd.extension import import_object
from mpi_dcasgd.learning.settings import Named

_ANY_TYPE = ConfigDict(**STRICT, arbitrary_types_allowed=True)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CallSettings(Named):
    """Base of settings that are the parameters of something that is called with them.

    Attributes:
        target: What is called, as ``package.module:name``.
        filled: Parameters that are filled from elsewhere and are no settings.
        more: Settings that are no parameters, of a target that takes any.
    """

    target: ClassVar[str] = ""
    filled: ClassVar[tuple[str, ...]] = ()
    more: ClassVar[tuple[str, ...]] = ()

    def arguments(self) -> dict[str, Any]:
        """Copy the settings, to call the target with."""
        own = (*_own_parameters(self.target, self.filled), *self.more)
        return {key: copy.deepcopy(getattr(self, key)) for key in own}

    def wanted(self, available: Mapping[str, Any]) -> dict[str, Any]:
        """Choose from ``available`` what the target takes of ``filled``."""
        taken = parameters_of(import_object(self.target))
        return {key: available[key] for key in self.filled if key in taken}

    def __reduce__(self) -> tuple[Callable[..., CallSettings], tuple[Any, ...]]:
        # The class is made in each process, from the signature.
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return _again, (self.target, type(self).__bases__[0], values)


Kind = TypeVar("Kind", bound=CallSettings)


def settings_of_call(target: str, base: type[Kind], given: Iterable[str] = ()) -> type[Kind]:
    """Make the settings class of a function or class: its parameters, with types and defaults.

    Args:
        target: ``package.module:name``.
        base: What the class is derived from; its ``filled`` parameters are left out.
        given: Keys that a job gives. Where the target takes any (``**kwargs``), those that it does
            not name are settings, too, of any type.

    Raises:
        UserError: It cannot be imported or called by keywords.
    """
    called = import_object(target)
    parameters = parameters_of(called)
    more: tuple[str, ...] = ()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        named = {*parameters, *(f.name for f in fields(cast(Any, base)))}
        more = tuple(sorted(key for key in given if key not in named and key.isidentifier()))
    return cast(type[Kind], _made(target, cast(Any, base), called, more))


@cache
def _made(target: str, base: Any, called: Any, more: tuple[str, ...]) -> Any:
    # What is called is part of the key: a notebook may define it anew.
    hints = _hints(called)
    body: dict[str, Any] = {
        "__doc__": inspect.getdoc(called) or target,
        "__module__": __name__,
        "target": target,
        "more": more,
    }
    annotations: dict[str, Any] = {}
    for name in _own_parameters(target, base.filled):
        parameter = parameters_of(called)[name]
        if name in {f.name for f in fields(base)} or parameter.kind in (
            parameter.POSITIONAL_ONLY,
            parameter.VAR_POSITIONAL,
        ):
            raise UserError(
                f"{target} cannot be given settings: its parameter {parameter} is in the way"
            )
        annotations[name] = _annotation(hints.get(name, Any))
        if parameter.default is not parameter.empty:
            body[name] = field(default_factory=_copies(parameter.default))
    annotations |= dict.fromkeys(more, Any)
    body["__annotations__"] = annotations
    kind = type(f"SettingsOf{base.__name__}", (base,), body)
    try:
        made: Any = dataclass(kind, frozen=True, kw_only=True, config=_ANY_TYPE)
    except PydanticUserError as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{target} cannot be given settings: {reason}") from error
    return made


def parameters_of(called: Any) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a function, or of a class's constructor.

    Raises:
        UserError: They cannot be found out.
    """
    try:
        return inspect.signature(called).parameters
    except (TypeError, ValueError) as error:
        raise UserError(f"{called!r} does not tell its parameters: {error}") from error


def _again(target: str, base: Any, values: Mapping[str, Any]) -> Any:
    return settings_of_call(target, base, values)(**values)


def _own_parameters(target: str, filled: tuple[str, ...]) -> list[str]:
    return [
        name
        for name, parameter in parameters_of(import_object(target)).items()
        if name not in filled and parameter.kind is not parameter.VAR_KEYWORD
    ]


def _hints(called: Any) -> dict[str, Any]:
    function = getattr(called, "__init__") if isinstance(called, type) else called  # noqa: B009
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):
        return {}  # of types that only a type checker imports: anything goes


def _annotation(hint: Any) -> Any:
    """The type as a job file can give it: YAML has lists where Python has tuples."""
    inner = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
    return Annotated[hint, Field(strict=False)] if typing.get_origin(inner) is tuple else hint


def _copies(default: Any) -> Callable[[], Any]:
    return lambda: copy.deepcopy(default)

"""Settings that follow from the signature of a function or a class, a user's or one of ours.

``{name: "my_models:net", width: 256}`` calls ``net(width=256)``: the parameters are the settings,
with the types of their hints, and ``Annotated[int, Field(ge=1)]`` says more of what is allowed.
"""

from __future__ import annotations

import copy
import inspect
import typing
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field, fields
from functools import cache
from typing import Any, ClassVar, TypeVar, cast

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass
from pydantic.errors import PydanticUserError
from pydantic.warnings import ArbitraryTypeWarning

from mpi_dcasgd.errors import STRICT, UserError
from mpi_dcasgd.extension import import_object
from mpi_dcasgd.learning.hints import as_written, is_plain, setting_type
from mpi_dcasgd.learning.settings import Named

_ANY_TYPE = ConfigDict(**STRICT, arbitrary_types_allowed=True)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CallSettings(Named):
    """Base of settings that are the parameters of something that is called with them.

    Attributes:
        call_target: What is called, as ``package.module:name``.
        call_filled: Parameters that are filled from elsewhere and are no settings.
        call_settings: Names of the settings: parameters, and what a target that takes any is given.
    """

    call_target: ClassVar[str] = ""
    call_filled: ClassVar[tuple[str, ...]] = ()
    call_settings: ClassVar[tuple[str, ...]] = ()

    def arguments(self) -> dict[str, Any]:
        """Copy the settings, to call the target with."""
        return {key: copy.deepcopy(getattr(self, key)) for key in self.call_settings}

    def wanted(self, available: Mapping[str, Any]) -> dict[str, Any]:
        """Choose from ``available`` what the target takes of ``call_filled``."""
        taken = parameters_of(import_object(self.call_target))
        return {key: available[key] for key in self.call_filled if key in taken}

    def __reduce__(self) -> tuple[Callable[..., CallSettings], tuple[Any, ...]]:
        # The class is made in each process, from the signature.
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return _again, (self.call_target, type(self).__bases__[0], values)


Kind = TypeVar("Kind", bound=CallSettings)


def settings_of_call(target: str, base: type[Kind], given: Iterable[str] = ()) -> type[Kind]:
    """Make the settings class of a function or class: its parameters, with types and defaults.

    Args:
        target: ``package.module:name``.
        base: What the class is derived from; its ``call_filled`` parameters are left out.
        given: Keys that a job gives. Where the target takes any (``**kwargs``), those that it does
            not name are settings, too, of any type.

    Raises:
        UserError: It cannot be imported or called by keywords.
    """
    called = import_object(target)
    parameters = parameters_of(called)
    more: tuple[str, ...] = ()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        keys = [key for key in given if key not in parameters and not _is_taken(base, key)]
        more = tuple(sorted(key for key in keys if key.isidentifier()))
    return cast(type[Kind], _made(target, cast(Any, base), called, more))


@cache
def _made(target: str, base: Any, called: Any, more: tuple[str, ...]) -> Any:
    # What is called is part of the key: a notebook may define it anew.
    hints, parameters = _hints(called), parameters_of(called)
    types: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if name in base.call_filled or parameter.kind is parameter.VAR_KEYWORD:
            continue
        by_place = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL)
        if by_place or _is_taken(base, name):
            raise UserError(
                f"{target} cannot be given settings: its parameter {parameter} is in the way"
            )
        if parameter.default is not parameter.empty:
            if not is_plain(parameter.default):
                continue  # a job file could not hold it
            defaults[name] = parameter.default
        types[name] = setting_type(hints.get(name, Any), parameter.default)
    types |= dict.fromkeys(more, Any)
    body = {
        "__doc__": inspect.getdoc(called) or target,
        "__module__": __name__,
        "call_target": target,
        "call_settings": tuple(types),
        **{name: field(default_factory=_copies(value)) for name, value in defaults.items()},
    }
    made = _class_of(target, base, types, body)
    loose = _not_taken_back(made, target, defaults)
    return made if not loose else _class_of(target, base, {**types, **loose}, body)


def _class_of(target: str, base: Any, types: dict[str, Any], body: dict[str, Any]) -> Any:
    kind = type(f"SettingsOf{base.__name__}", (base,), {**body, "__annotations__": types})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ArbitraryTypeWarning)  # of a hint that is no type
            return dataclass(kind, frozen=True, kw_only=True, config=_ANY_TYPE)
    except PydanticUserError as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{target} cannot be given settings: {reason}") from error


def _not_taken_back(made: Any, target: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Find defaults that are not of their hint: what is written into job.yaml must load again."""
    try:
        made(name=target, **{name: as_written(value) for name, value in defaults.items()})
    except ValidationError as error:
        wrong = {details["loc"][0] for details in error.errors(include_url=False)}
        return {name: setting_type(Any, defaults[name]) for name in defaults if name in wrong}
    return {}


def _is_taken(base: Any, name: str) -> bool:
    """Return whether settings have something else of this name."""
    return hasattr(base, name) or name in {f.name for f in fields(base)}


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


def _hints(called: Any) -> dict[str, Any]:
    function = getattr(called, "__init__") if isinstance(called, type) else called  # noqa: B009
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):
        return {}  # of types that only a type checker imports: anything goes


def _copies(default: Any) -> Callable[[], Any]:
    return lambda: copy.deepcopy(default)

"""The sections ``task:``, ``model:`` and ``data:``, whose settings are those of what they name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from pydantic.fields import FieldInfo

from mpi_dcasgd.counts import is_whole
from mpi_dcasgd.errors import ConfigError, UserError
from mpi_dcasgd.learning.data import DATA, DataSource, find_data, known_facts
from mpi_dcasgd.learning.data.brought import TaskData
from mpi_dcasgd.learning.models import MODELS, ModelSource, find_model
from mpi_dcasgd.learning.models.factory import lone_sample, lone_sample_problem
from mpi_dcasgd.learning.models.own import TaskModel
from mpi_dcasgd.learning.models.torchvision_models import TorchvisionModel
from mpi_dcasgd.learning.settings import Named
from mpi_dcasgd.learning.tasks import TASKS, TaskSource, find_task
from mpi_dcasgd.messages import is_section, seen, settings_of

TORCHVISION = "torchvision's models"


def kinds_of(section: type[Named]) -> dict[str, type[Named]]:
    """List the built-in settings that a section may have, by the names that choose them.

    Args:
        section: ``TaskSource``, ``ModelSource`` or ``DataSource``.
    """
    if section is TaskSource:
        return {name: find_task(name) for name in TASKS}
    if section is DataSource:
        return dict(DATA.items())
    return {**dict(MODELS.items()), TORCHVISION: TorchvisionModel}


def keys_of(annotation: Any) -> dict[str, FieldInfo]:
    """List the keys of a job's section; of a named one, those of all that are built in."""
    if not is_named(annotation):
        return settings_of(annotation)
    return {
        key: info
        for kind in kinds_of(annotation).values()
        for key, info in settings_of(kind).items()
    }


def is_named(annotation: Any) -> TypeGuard[type[Named]]:
    """Return whether a section's settings depend on its name."""
    return is_section(annotation) and issubclass(annotation, Named)


def find_kind(
    section: type[Named], key: str, mapping: Mapping[str, Any], problems: list[str]
) -> type[Named] | None:
    """Look up the settings that a section's name chooses, or note why there are none.

    Args:
        section: ``TaskSource``, ``ModelSource`` or ``DataSource``.
        key: ``task``, ``model`` or ``data``.
        mapping: The section.
        problems: Lines are added.
    """
    names = ", ".join(_tables()[section])
    if "name" not in mapping:
        problems.append(f"{key}.name: missing; allowed: {names}, or package.module:Name")
        return None
    name = mapping["name"]
    if not isinstance(name, str) or not name:
        problems.append(f"{key}.name: got {seen(name)}; allowed: {names}, or package.module:Name")
        return None
    try:
        if section is TaskSource:
            return find_task(name, mapping)
        return find_model(name, mapping) if section is ModelSource else find_data(name, mapping)
    except UserError as error:
        problems.append(f"{key}.name: {error}")
        return None


def brought(
    key: str, mapping: Mapping[str, Any], task: str, problems: list[str]
) -> tuple[type[Named], dict[str, Any]]:
    """Return the settings of a section whose subject the task brings itself.

    Args:
        key: ``model`` or ``data``.
        mapping: The section, which may say no other name than ``task``.
        task: The task's name.
        problems: Lines are added.

    Returns:
        The class of the settings, and the mapping without what is noted as a problem.
    """
    kind: type[Named] = TaskModel if key == "model" else TaskData
    name = mapping.get("name", "task")
    if name != "task":
        problems.append(
            f"{key}.name: got {seen(name)}, but the task {task} brings its own {key}; omit it"
        )
    allowed = [setting for setting in settings_of(kind) if setting != "name"]
    others = keys_of(ModelSource if key == "model" else DataSource)
    foreign = [setting for setting in mapping if setting in others and setting not in allowed]
    problems += [
        f"{key}.{setting}: the task {task} brings its own {key}, which has no such setting; omit it"
        + (f" (allowed: {', '.join(allowed)})" if allowed else "")
        for setting in foreign
        if setting != "name"
    ]
    kept = {setting: value for setting, value in mapping.items() if setting not in foreign}
    return kind, {**kept, "name": "task"}


def _tables() -> dict[type[Named], Mapping[str, type[Any]]]:
    return {TaskSource: TASKS, ModelSource: MODELS, DataSource: DATA}


def own_settings(
    section: type[Named],
    kind: type[Named],
    key: str,
    mapping: Mapping[str, Any],
    problems: list[str],
) -> dict[str, Any]:
    """Leave out the settings of others of a section, which have no meaning for this one.

    Earlier versions wrote the settings of all data sets, and of all models, into every job.yaml.
    So a setting of another one is ignored where it has its default, and else noted as a problem.

    Args:
        section: ``TaskSource``, ``ModelSource`` or ``DataSource``.
        kind: The one that the section names.
        key: ``task``, ``model`` or ``data``.
        mapping: The section.
        problems: Lines are added.

    Returns:
        The rest, with keys that nobody knows.
    """
    own = settings_of(kind)
    kept = {}
    for setting, value in mapping.items():
        # Only for what is not its own: a study asks of thousands of settings, and a kind's class
        # has to be found each time.
        owners = {} if setting in own else _owners(section, setting)
        if not owners:
            kept[setting] = value
        elif not any(_is_default(info, value) for info in owners.values()):
            problems.append(
                f"{key}.{setting}: {mapping['name']} has no such setting "
                f"(it is for {_listed(list(owners))}); omit it"
            )
    return kept


def _owners(section: type[Named], setting: str) -> dict[str, FieldInfo]:
    return {
        name: settings_of(kind)[setting]
        for name, kind in kinds_of(section).items()
        if setting in settings_of(kind)
    }


def check_fit(
    model: ModelSource, data: DataSource, batch_size: object, accumulate: int = 1
) -> list[str]:
    """Find out, without PyTorch and without the data, whether the model takes them.

    Models that do not know it themselves, torchvision's and those of a user's functions, are tried
    out when a run is about to start (``learning.models.shapes``); so are data whose sizes follow
    from their files.

    Args:
        model: Checked.
        data: Checked.
        batch_size: Of one worker; not checked yet.
        accumulate: Parts that a minibatch is computed in.

    Returns:
        A line each, beginning with the dotted key.
    """
    try:
        facts = known_facts(data)
    except ConfigError as error:
        return [f"data.{line}" for line in error.problems]
    if facts is None:
        return []
    problems = model.fits(facts.input_shape, facts.num_classes)
    if problems or not model.shapes_known:
        return [f"model.{line}" for line in problems]
    size = int(batch_size) if is_whole(batch_size) else facts.num_train
    sizes = facts.num_train, size, accumulate
    if lone_sample(*sizes) and not model.takes_one_sample(facts.input_shape):
        return [lone_sample_problem(*sizes)]
    return []


def _is_default(info: FieldInfo, value: Any) -> bool:
    default = info.get_default(call_default_factory=True)
    default = list(default) if isinstance(default, tuple) else default
    return type(value) is type(default) and bool(value == default)


def _listed(names: list[str]) -> str:
    return " and ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])} and {names[-1]}"

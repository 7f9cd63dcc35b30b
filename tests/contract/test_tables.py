"""Every built-in entry of every table: described, checked, and fit to be sent to ranks."""

from __future__ import annotations

import inspect
import pickle
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from mpi_dcasgd import load_job
from mpi_dcasgd.config.reference import _argument_notes
from mpi_dcasgd.config.sections import kinds_of
from mpi_dcasgd.drivers.simulation.delays import DELAYS, NAMES, DelayModel, parse_delays
from mpi_dcasgd.errors import ConfigError, UserError
from mpi_dcasgd.extension import Table
from mpi_dcasgd.learning.data import DATA, DataSource
from mpi_dcasgd.learning.models import MODELS, ModelSource, find_model
from mpi_dcasgd.learning.tasks import TASKS, TaskSource, find_task
from mpi_dcasgd.messages import allowed, settings_of
from mpi_dcasgd.record.sinks import SINKS, MetricSink
from mpi_dcasgd.rules.algorithms import PARTS
from mpi_dcasgd.rules.part import Part

DOCS = Path(__file__).parents[2] / "docs"
TABLES: dict[str, tuple[Any, type]] = {
    "data": (DATA, DataSource),
    "models": (MODELS, ModelSource),
    "tasks": (TASKS, TaskSource),
    "delays": (DELAYS, DelayModel),
    "sinks": (SINKS, MetricSink),
    **{f"rule.{role}": (kinds, Part) for role, kinds in PARTS.items()},
}
ENTRIES = [(table, name) for table, (kinds, _) in TABLES.items() for name in kinds]
ENTRIES.append(("models", "resnet18"))
SECTIONS = ("data", "models", "tasks")


def kind_of(table: str, name: str) -> type:
    if table == "tasks":
        return find_task(name)
    return find_model(name) if table == "models" else TABLES[table][0][name]


def settings(kind: type) -> Iterator[tuple[str, Any]]:
    """The settings that a job gives, without the one that says which of the table it is."""
    for key, info in settings_of(kind).items() if hasattr(kind, "__pydantic_fields__") else ():
        if key not in ("name", "model"):
            yield key, info


@pytest.mark.parametrize(("table", "name"), ENTRIES)
def test_every_entry_says_what_it_is_in_one_line(table: str, name: str) -> None:
    kind = kind_of(table, name)
    assert issubclass(kind, TABLES[table][1])
    assert kind.__doc__ != TABLES[table][1].__doc__
    first, _, rest = inspect.cleandoc(kind.__doc__ or "").partition("\n")
    assert first.endswith("."), "the first line is a sentence of its own"
    assert not rest or rest.startswith("\n")
    assert not re.match(r"(What|Which|How|Whether|As of)\b", first)
    assert len(first.split()) >= 2


@pytest.mark.parametrize(("table", "name"), ENTRIES)
def test_every_setting_is_described_and_has_a_range_or_a_type(table: str, name: str) -> None:
    kind = kind_of(table, name)
    notes = _argument_notes(kind)
    for key, info in settings(kind):
        assert info.description or notes.get(key), f"{name}.{key} is not described"
        assert info.annotation is not Any, f"{name}.{key} may be anything"


def refused(table: str, name: str, given: Any) -> list[str]:
    """The problems of a job with settings of an entry of a table."""
    job = {"algorithm": "sgd", "epochs": 1, "batch_size": 8, "lr": 0.1}
    job |= {"data": {"name": "digits"}, "model": {"name": "mlp"}}
    section = {"data": "data", "models": "model", "tasks": "task"}.get(table)
    if section:
        job[section] = {"name": name, **given}
    elif table == "delays":
        job["inject"] = {"delays": {"model": name, **given}}
    else:
        job["rule"] = {table.partition(".")[2]: {"name": name, **given}}
    with pytest.raises(ConfigError) as caught:
        load_job(job)
    return caught.value.problems


@pytest.mark.parametrize(("table", "name"), [e for e in ENTRIES if e[0] != "sinks"])
def test_a_wrong_setting_of_any_entry_is_told_in_the_same_words(table: str, name: str) -> None:
    class Other:
        def __repr__(self) -> str:
            return "of no kind"

    for key, info in settings(kind_of(table, name)):
        what = allowed(info.annotation, info.metadata)
        said = f".{key}: got of no kind; allowed: {what}"
        assert any(line.endswith(said) for line in refused(table, name, {key: Other()}))


@pytest.mark.parametrize(("table", "name"), [e for e in ENTRIES if e[0] in SECTIONS])
def test_every_task_model_and_data_set_can_be_sent_to_other_ranks(table: str, name: str) -> None:
    made = kind_of(table, name)(name=name)
    again = pickle.loads(pickle.dumps(made))
    assert again == made
    assert again.name == name
    assert isinstance(made.check(), list)
    assert next(iter(f.name for f in fields(made))) == "name"


@pytest.mark.parametrize("name", DELAYS)
def test_every_delay_model_goes_by_its_name(name: str) -> None:
    settings = {"steps_s": [[1.0]]} if name == "empirical" else {}
    made = parse_delays({"model": name, **settings})
    assert type(made) is DELAYS[name]
    assert made.model == name
    assert made.mean_s == 1.0
    assert all(meant["model"] in DELAYS for meant in NAMES.values())
    assert f"| `{name}` |" in (DOCS / "simulator.md").read_text()


@pytest.mark.parametrize("name", ["data", "models", "delays", "sinks"])
def test_every_table_is_extended_in_the_same_words(name: str) -> None:
    table, base = TABLES[name]
    assert isinstance(table, Table)
    find = find_model if name == "models" else table.find
    for wrong in ("nothing_here", 3, None):
        with pytest.raises(UserError, match=r"unknown .*allowed: .*or package.module:Name\)"):
            find(wrong)
    with pytest.raises(
        UserError, match="cannot import no_module:Name: No module named 'no_module'"
    ):
        find("no_module:Name")
    with pytest.raises(UserError, match="cannot import json:nothing: module 'json' has no attr"):
        find("json:nothing")
    path = f"{base.__module__}.{base.__qualname__}"
    with pytest.raises(UserError, match=rf"json:codecs is n\w+ a subclass of {re.escape(path)}"):
        find("json:codecs")
    assert find(f"{base.__module__}:{base.__qualname__}") is base


def test_settings_of_one_name_have_one_default() -> None:
    """So that a setting of another entry in an old job file can be told from one that is meant."""
    for section in (DataSource, ModelSource):
        defaults: dict[str, Any] = {}
        for name, kind in kinds_of(section).items():
            for key, info in settings(kind):
                default = info.get_default(call_default_factory=True)
                assert defaults.setdefault(key, default) == default, f"{name}.{key}"


LOAD_WITHOUT = """
import sys

for name in ("torch", "numpy", "sklearn"):
    sys.modules[name] = None
from mpi_dcasgd.config.sections import check_fit, kinds_of
from mpi_dcasgd.learning.data import DATA, DataSource
from mpi_dcasgd.learning.models import ModelSource
from mpi_dcasgd.learning.tasks import TASKS, find_task
from mpi_dcasgd.record.sinks import SINKS, check_sinks

data = [kind(name=name) for name, kind in DATA.items()]
names = {"torchvision's models": "resnet18"}
models = [kind(name=names.get(name, name)) for name, kind in kinds_of(ModelSource).items()]
for model in models:
    for source in data:
        model.check(), source.check(), check_fit(model, source, 1)
for name in TASKS:
    assert find_task(name)(name=name).check() == []
assert check_sinks(["csv"]) == [] and len(dict(SINKS.items())) == 3
print("checked", len(models) * len(data))
"""


def test_all_of_them_are_checked_without_pytorch_and_numpy(processes: Any) -> None:
    finished = processes.run([sys.executable, "-c", LOAD_WITHOUT])
    expected = len(kinds_of(ModelSource)) * len(DATA)
    assert finished.stdout == f"checked {expected}\n", str(finished)

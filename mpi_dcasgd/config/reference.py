"""The reference of job and study files in Markdown, made from the settings themselves.

``python -m mpi_dcasgd.config.reference docs/jobs.md`` renews the part of that file below the
marker; a test holds the two against each other.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.config.sections import TORCHVISION, is_named, kinds_of
from mpi_dcasgd.config.study_settings import StudySettings
from mpi_dcasgd.config.tuning_settings import TuneSettings
from mpi_dcasgd.config.yaml12 import dump_yaml
from mpi_dcasgd.drivers.simulation.delays import DELAYS
from mpi_dcasgd.learning.data import DataSource
from mpi_dcasgd.learning.data.brought import BroughtData
from mpi_dcasgd.learning.models import ModelSource
from mpi_dcasgd.learning.tasks import TaskSource
from mpi_dcasgd.learning.tasks.table import DEFAULT
from mpi_dcasgd.messages import (
    allowed,
    element,
    is_list_of_sections,
    is_section,
    settings_of,
)
from mpi_dcasgd.record.sinks import SINKS
from mpi_dcasgd.rules.algorithms import ALGORITHMS, PARTS

MARKER = "<!-- Below this line: python -m mpi_dcasgd.config.reference docs/jobs.md -->\n"


def reference() -> str:
    """Reference in Markdown: keys of job files, entries of each table, keys of study files."""
    return "\n".join(
        [
            "## Keys of a job file\n",
            _table(_ROW, _job_rows()),
            _kinds_text("## Tasks", ("`task.name`", "what it is"), kinds_of(TaskSource)),
            _kinds_text("## Models", ("`model.name`", "what it is"), kinds_of(ModelSource)),
            _kinds_text("## Data sets", ("`data.name`", "what it is"), kinds_of(DataSource)),
            "Settings of data of your own, beside a function's parameters; the section of a task"
            " that brings its data has no others ([loading.md](loading.md)):\n",
            _table(_ROW, (_row("", key, info) for key, info in _brought())),
            _kinds_text("## Delay models", ("`model`", "step times"), dict(DELAYS.items())),
            "One word is enough where the defaults are meant, as in `delays: gamma`; "
            "`gamma-heterogeneous` is `gamma` with `machine_cv: 0.6`.\n",
            _kinds_text("## Metric sinks", ("`record.sinks`", "what it is"), dict(SINKS.items())),
            "`jsonl` is always written, and not named in a job.\n",
            "## Algorithms\n",
            _table(
                ("algorithm", "driven", "what it does", "parts"),
                (
                    (
                        f"`{a.name}`",
                        a.mode,
                        a.summary,
                        ", ".join(f"`{p}`" for p in a.parts.values()),
                    )
                    for a in ALGORITHMS.values()
                ),
            ),
            "## Parts of a rule\n",
            "The first part of each role is the one that an algorithm has unless the table above"
            " names another.\n",
            *(
                _kinds_text(f"### `rule.{role}`", ("part", "what it does"), kinds)
                for role, kinds in PARTS.items()
            ),
            "## Keys of a study file\n",
            _table(_ROW, (_row("", key, info) for key, info in settings_of(StudySettings).items())),
            _table(
                _ROW, (_row("tune.", key, info) for key, info in settings_of(TuneSettings).items())
            ),
        ]
    )


def _brought() -> Iterable[tuple[str, FieldInfo]]:
    return ((key, info) for key, info in settings_of(BroughtData).items() if key != "name")


def renew(path: Path) -> None:
    """Replace what stands below the marker."""
    above = path.read_text(encoding="utf-8").partition(MARKER)[0]
    path.write_text(f"{above}{MARKER}\n{reference()}", encoding="utf-8")


_CHOOSES = ("name", "model")  # keys that say which of a table is meant

_ROW = ("key", "allowed", "default", "what it is")


def _job_rows() -> Iterable[tuple[str, ...]]:
    for key, info in settings_of(Job).items():
        if is_named(info.annotation):
            names = f"{_listed(kinds_of(info.annotation))}, or `package.module:Name`"
            default = f"`{DEFAULT}`" if key == "task" else "must be given"
            yield f"`{key}.name`", names, default, _text(info)
            yield f"`{key}.<setting>`", f"those of what `{key}.name` names: below", "", ""
        elif is_section(info.annotation):
            for inner, field in settings_of(info.annotation).items():
                yield _row(f"{key}.", inner, field)
        elif is_list_of_sections(info.annotation):
            yield f"`{key}`", "a list of mappings", "`[]`", _text(info)
            for inner, field in settings_of(element(info.annotation)).items():
                yield _row(f"{key}[].", inner, field)
        elif key == "rule":
            yield f"`{key}.<role>`", "a part's name, or a mapping of settings", "", _text(info)
        else:
            yield _row("", key, info)


def _row(prefix: str, key: str, info: FieldInfo, description: str = "") -> tuple[str, ...]:
    return (
        f"`{prefix}{key}`",
        allowed(info.annotation, info.metadata),
        _default(key, info),
        description or _text(info),
    )


def _default(key: str, info: FieldInfo) -> str:
    if info.is_required():
        return "the file's name" if "the file's name" in _text(info) else "must be given"
    value: Any = info.get_default(call_default_factory=True)
    value = list(value) if isinstance(value, tuple) else value
    return f"`{dump_yaml([value])[2:].strip()}`" if not isinstance(value, list) else f"`{value}`"


def _text(info: FieldInfo) -> str:
    return info.description or ""


def _listed(kinds: Mapping[str, type]) -> str:
    return ", ".join(f"one of {name}" if name == TORCHVISION else f"`{name}`" for name in kinds)


def _kinds_text(title: str, header: tuple[str, str], kinds: Mapping[str, type]) -> str:
    """A table of what there is, then a table of the settings of each that has some."""
    names: dict[type, list[str]] = {}
    for name, kind in kinds.items():
        names.setdefault(kind, []).append(name if name == TORCHVISION else f"`{name}`")
    listed = {kind: ", ".join(of_kind) for kind, of_kind in names.items()}
    rows = [(listed[kind], _summary(kind)) for kind in listed]
    lines = [f"{title}\n", _table(header, rows)]
    for kind, name in listed.items():
        notes = _argument_notes(kind)
        found = settings_of(kind) if is_section(kind) else {}
        settings = {key: info for key, info in found.items() if key not in _CHOOSES}
        if settings:
            rows_of_kind = [
                _row("", key, info, notes.get(key, "")) for key, info in settings.items()
            ]
            lines += [f"Settings of {name}:\n", _table(_ROW, rows_of_kind)]
    return "\n".join(lines)


def _summary(kind: type) -> str:
    first = (inspect.getdoc(kind) or "").partition("\n\n")[0]
    return " ".join(first.replace("``", "`").split())


def _argument_notes(kind: type) -> dict[str, str]:
    """Return a class docstring's notes on its settings, under ``Args:``."""
    section = (inspect.getdoc(kind) or "").partition("\nArgs:\n")[2]
    section = re.split(r"\n\n?(?=\S)", section, maxsplit=1)[0]
    notes: dict[str, str] = {}
    for names, text in re.findall(r"^    (\w[\w, ]*): (.*(?:\n {5,}.*)*)", section, re.MULTILINE):
        for name in names.split(", "):
            notes[name] = " ".join(text.replace("``", "`").split())
    return notes


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines
    )


if __name__ == "__main__":
    renew(Path(sys.argv[1]))

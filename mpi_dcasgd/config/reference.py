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

from mpi_dcasgd.config.messages import allowed, is_section, settings_of
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.config.study_settings import StudySettings
from mpi_dcasgd.config.yaml12 import dump_yaml
from mpi_dcasgd.rules.algorithms import ALGORITHMS, PARTS

MARKER = "<!-- Below this line: python -m mpi_dcasgd.config.reference docs/jobs.md -->\n"


def reference() -> str:
    """All keys of a job file, the algorithms, the parts of rules, and a study file's keys."""
    return "\n".join(
        [
            "## Keys of a job file\n",
            _table(_ROW, _job_rows()),
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
            *(_part_text(role, kinds) for role, kinds in PARTS.items()),
            "## Keys of a study file\n",
            _table(_ROW, (_row("", key, info) for key, info in settings_of(StudySettings).items())),
        ]
    )


def renew(path: Path) -> None:
    """Replace what stands below the marker."""
    above = path.read_text(encoding="utf-8").partition(MARKER)[0]
    path.write_text(f"{above}{MARKER}\n{reference()}", encoding="utf-8")


_ROW = ("key", "allowed", "default", "what it is")


def _job_rows() -> Iterable[tuple[str, ...]]:
    for key, info in settings_of(Job).items():
        if is_section(info.annotation):
            for inner, field in settings_of(info.annotation).items():
                yield _row(f"{key}.", inner, field)
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


def _part_text(role: str, kinds: Mapping[str, type]) -> str:
    lines = [f"### `rule.{role}`\n"]
    rows = [(f"`{name}`", _summary(kind)) for name, kind in kinds.items()]
    lines.append(_table(("part", "what it does"), rows))
    for name, kind in kinds.items():
        notes = _argument_notes(kind)
        settings = settings_of(kind)
        if settings:
            rows_of_part = [
                _row("", key, info, notes.get(key, "")) for key, info in settings.items()
            ]
            lines += [f"Settings of `{name}`:\n", _table(_ROW, rows_of_part)]
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

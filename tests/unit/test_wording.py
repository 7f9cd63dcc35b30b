"""Numbers stand with nouns that agree with them, wherever a message counts something."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest

import mpi_dcasgd
from mpi_dcasgd.wording import agreeing, counted

PACKAGE = Path(mpi_dcasgd.__file__).parent

PLURAL = re.compile(
    r" (?:(?!of|to|on|and|against|needs)[a-z]+ )?"
    r"(?:epochs|gradients|minibatches|processors|pushes|ranks|records|runs|samples|seeds|settings|starts"
    r"|tasks|tickets|turns|updates|workers)\b(?!/s)"
)

# Texts before a plural that are words, or numbers that are always above 1.
ABOVE_ONE = {
    "cli/bench.py": {"seeds.seeds", "t.workers", "t.updates"},
    "drivers/newcomers.py": {"SETTLED"},
    "learning/data/arrays_file.py": {"len(labels)", "len(array)"},
    "learning/data/identity.py": {"counts[-1]"},
    "learning/models/factory.py": {"num_train"},
    "record/warnings.py": {"useful"},
    "reporting/closer.py": {"len(group.runs)"},
    "reporting/curves.py": {"runs"},
    "reporting/remarks.py": {
        "_ENOUGH_SEEDS",
        "len(runs)",
        "more",
        "served[0].world_size",
        "worst[1]",
    },
    "server/message.py": {"count"},
    "server/refusals.py": {"self._limit"},
    "tools/chaos/checks.py": {"summary.get('samples')", "summary.get('updates')"},
    "tools/chaos/verdict.py": {"self.starts"},
    "reporting/reasons.py": {"stat.mean"},
    "runs/dry_run.py": {"plan.num_workers"},
}
WORDS = {"kind", "name", "self.name", "self.split", "word"}
# Programs whose numbers are their own, not a user's.
OWN_NUMBERS = ("tools/bench/", "tools/conformance/", "tools/results/")


def miscounted(tree: ast.AST) -> list[tuple[str, str]]:
    """Expressions and the plurals behind them, in all f-strings."""
    found = []
    for node in ast.walk(tree):
        values = node.values if isinstance(node, ast.JoinedStr) else []
        for value, text in pairwise(values):
            plural = PLURAL.match(text.value) if isinstance(text, ast.Constant) else None
            if plural and isinstance(value, ast.FormattedValue):
                found.append((ast.unparse(value.value), plural[0]))
    return found


FILES = [file.relative_to(PACKAGE).as_posix() for file in sorted(PACKAGE.rglob("*.py"))]


@pytest.mark.parametrize("file", [file for file in FILES if not file.startswith(OWN_NUMBERS)])
def test_no_message_has_one_of_many(file: str) -> None:
    found = miscounted(ast.parse((PACKAGE / file).read_text(encoding="utf-8")))
    known = ABOVE_ONE.get(file, set()) | WORDS
    assert [each for each in found if each[0] not in known] == []


def test_one_of_many_is_seen() -> None:
    source = 'f"{n} workers of {len(x):,} tuning runs, {rate:.0f} samples/s, {n} rank"'
    assert miscounted(ast.parse(source)) == [("n", " workers"), ("len(x)", " tuning runs")]


@pytest.mark.parametrize(
    ("number", "noun", "spec", "shown"),
    [
        (1, "worker", "", "1 worker"),
        (0, "worker", "", "0 workers"),
        (12345, "push", ",", "12,345 pushes"),
        (1.0, "epoch", ".4g", "1 epoch"),
        (1.5, "epoch", ".4g", "1.5 epochs"),
        (0.99999, "epoch", ".4g", "1 epoch"),
        (2, "process", "", "2 processes"),
        (2, "tuning run", "", "2 tuning runs"),
    ],
)
def test_a_number_has_its_noun(number: float, noun: str, spec: str, shown: str) -> None:
    assert counted(number, noun, spec) == shown


def test_a_noun_alone_agrees() -> None:
    assert [agreeing(n, "entry") for n in (1, 2)] == ["entry", "entries"]
    assert agreeing(3, "day") == "days"

"""What mutation testing puts into a module, and whether it knows a test that notices it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.mutants.equivalent import EQUIVALENT, reason_for
from tests.mutants.mutations import mutations_of
from tests.mutants.plan import REPOSITORY, TESTS, source_of


@pytest.mark.parametrize(
    ("line", "faults"),
    [
        ("a < b", {"a <= b", "a >= b"}),
        ("a is not b", {"a is b"}),
        ("a + b * 2", {"a - b * 2", "a", "b / 2", "b", "3"}),
        ("a and not b", {"a or not b", "b"}),
        ("x = 0.5", {"0.25"}),
        ("x = True", {"False"}),
        ("f(a, b)", {"f(b, a)", ""}),
        ("min(a, b)", {"max(a, b)", ""}),
        ("a.clone()", {"a", ""}),
        ("self.x = y", {""}),
        ("x += 2", {"", "3"}),
        ("x = 1 if f(a) else 2", {"not f(a)", "2 if f(a) else 1"}),
        ("f'{a + 1} tickets'", set()),
        ("raise ValueError(1)", set()),
        ("x: Annotated[int, Field(ge=0)]", set()),
        ("'a message'", set()),
    ],
)
def test_faults_of_a_line(line: str, faults: set[str]) -> None:
    found = mutations_of(line)
    assert faults <= {fault.new for fault in found}
    assert bool(found) == bool(faults)
    for fault in found:
        ast.parse(fault.source)
        assert fault.source != line


def test_a_fault_changes_its_lines_only_and_says_so() -> None:
    source = textwrap.dedent("""
        def area(größe, breite):  # Umlaute are two bytes long
            return größe * breite
    """)
    product, left = (f for f in mutations_of(source) if f.line == 3)
    assert product.diff(source).splitlines() == [
        "-    return größe * breite",
        "+    return (größe / breite)",
    ]
    assert left.new == "größe"


def test_faults_of_a_line_have_names_of_their_own() -> None:
    names = [fault.name for fault in mutations_of("pair = 1.0, 2, 1.0\nnext_line = 1.0")]
    assert names == ["1.0  ->  2.0", "2  ->  3", "1.0  ->  2.0  (2)", "1.0  ->  2.0"]


@pytest.mark.parametrize("module", TESTS)
def test_every_module_of_the_plan_and_its_tests_exist(module: str) -> None:
    faults = mutations_of(source_of(module).read_text())
    assert faults
    assert all((REPOSITORY / file).exists() for file in TESTS[module])
    known = {
        (key, name) for (its, key), names in EQUIVALENT.items() if its == module for name in names
    }
    assert known <= {(fault.text, fault.name) for fault in faults if reason_for(module, fault)}


def test_every_module_of_rules_and_server_is_in_the_plan() -> None:
    folder = REPOSITORY / "mpi_dcasgd"
    modules = {
        f"{p.parent.name}.{p.stem}"
        for name in ("rules", "server")
        for p in (folder / name).glob("*.py")
    }
    assert modules - {"rules.__init__", "server.__init__", "rules.references"} == set(TESTS)


PROGRAM = """
import time
from pathlib import Path
import pytest
from tests.mutants.mutations import mutations_of
from tests.mutants.running import Trial

path = Path("half.py")
sources = {fault.new: fault.source for fault in mutations_of(path.read_text())[:2]}
sources["as it is"], sources["while True: pass"] = path.read_text(), "while True: pass"
for new, source in sources.items():
    patience_s = 0.1 if new.startswith("while") else 80.0
    tests = [("test_type.py", patience_s), ("test_value.py", patience_s)]
    trial = Trial("half", path, source, tests)
    while not (verdict := trial.verdict()):
        time.sleep(0.01)
    trial.remove()
    print(f"{new}: {verdict}")
"""


def test_a_fault_is_caught_by_the_test_that_fails(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text("def half(x):\n    return x / 2\n")
    (tmp_path / "test_type.py").write_text(
        "from half import half\ndef test_it(): assert half(4.0) * 1.0\n"
    )
    (tmp_path / "test_value.py").write_text(
        "from half import half\ndef test_it(): assert half(0.0) == 0 and half(2.0) == 1\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "x * 2: caught",
        "x: caught",
        "as it is: survived",
        "while True: pass: timed out",
    ]
    assert not list(tmp_path.glob("mutant-*"))

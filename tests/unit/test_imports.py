"""Imports go one way, and what a machine may lack is imported only where it is used."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

import mpi_dcasgd

PACKAGE = Path(mpi_dcasgd.__file__).parent

# Each may import itself and those before it.
LAYERS = (
    "wording",
    "stop_signals",
    "errors",
    "messages",
    "counts",
    "pages",
    "shell",
    "quick",
    "vision",
    "places",
    "modules",
    "sources",
    "extension",
    "shipped",
    "rules",
    "learning",
    "server",
    "drivers",
    "record",
    "reporting",
    "tools",
    "config",
    "runs",
    "cli",
)

# These are the MPI driver and its benchmarks; everything else must load where there is no MPI.
NEED_MPI = {
    "mpi_dcasgd.drivers.attendance",
    "mpi_dcasgd.drivers.crew",
    "mpi_dcasgd.drivers.deaths",
    "mpi_dcasgd.drivers.divided_link",
    "mpi_dcasgd.drivers.mpi_follower",
    "mpi_dcasgd.drivers.mail",
    "mpi_dcasgd.drivers.mailbox",
    "mpi_dcasgd.drivers.mpi_server",
    "mpi_dcasgd.drivers.mpi_worker",
    "mpi_dcasgd.drivers.notes",
    "mpi_dcasgd.tools.bench.mpi_rank",
    "mpi_dcasgd.tools.bench.mpi_servers",
    "mpi_dcasgd.tools.bench.raw_messages",
    "mpi_dcasgd.tools.bench.stand_ins",
}
OPTIONAL = ("mpi4py", "horovod", "torchvision", "sklearn", "matplotlib", "psutil")

LOAD_WITHOUT = """
import importlib, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ImportError(f"{name} must be imported where it is used")

sys.meta_path.insert(0, Refuse())
for name in sys.argv[2:]:
    importlib.import_module(name)
print("loaded", len(sys.argv) - 2)
"""


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer(module: str) -> int | None:
    """Its place in the list; None for the package itself, which holds only the version."""
    parts = module.split(".")
    if len(parts) == 1:
        return None
    return len(LAYERS) if parts[1] == "__main__" else LAYERS.index(parts[1])


def imports(tree: ast.AST, modules: set[str]) -> list[tuple[int, str]]:
    """Line and module of every import from this package, wherever in the file it stands."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.append((node.lineno, submodule if submodule in modules else node.module))
    return [(line, name) for line, name in found if name.split(".")[0] == "mpi_dcasgd"]


FILES = {module_name(file): file for file in sorted(PACKAGE.rglob("*.py"))}


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", FILES)
def test_imports_go_one_way(module: str) -> None:
    own = layer(module)
    if own is None:
        return
    tree = tree_of(module)
    wrong = [
        f"{FILES[module]}:{line}: {LAYERS[min(own, len(LAYERS) - 1)]} imports {imported}"
        for line, imported in imports(tree, set(FILES))
        if (layer(imported) or 0) > own
    ]
    assert not wrong, "\n".join(wrong)


# Documented in spite of their names, or internals of others that have no other way in.
NOT_PRIVATE = {"_replace", "_asdict", "_fields", "_exit"}
OTHERS = {"_SubParsersAction", "_actions", "_buffers", "_foreach_copy_"}
OTHERS |= {"_local_scalar_dense", "_ops", "_schema", "_version"}


def strange_attributes(tree: ast.AST) -> list[str]:
    """Reads of what belongs to an object of another module: it saves and tells its state itself."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    nodes = [node for node in nodes if node.attr[0] == "_" != node.attr[1:2]]
    own = {node.attr for node in nodes if ast.unparse(node.value) in ("self", "cls", "super()")}
    own |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}  # of a class's body
    return [ast.unparse(node) for node in nodes if node.attr not in own | NOT_PRIVATE | OTHERS]


def test_no_module_reads_what_is_private_to_another() -> None:
    found = {name: strange_attributes(tree_of(name)) for name in FILES}
    assert {name: read for name, read in found.items() if read} == {}


def test_a_read_of_a_private_attribute_is_seen() -> None:
    source = "self._a = server._weights\nother._a\nfacts._replace(x=1)\nserver.__class__"
    assert strange_attributes(ast.parse(source)) == ["server._weights"]


def test_a_wrong_import_is_seen() -> None:
    source = "def f():\n    from mpi_dcasgd import cli\n    import mpi_dcasgd.record.trace\n"
    found = imports(ast.parse(source), {"mpi_dcasgd.cli"})
    assert found == [(2, "mpi_dcasgd.cli"), (3, "mpi_dcasgd.record.trace")]
    assert layer("mpi_dcasgd.cli") > layer("mpi_dcasgd.record.trace") > layer("mpi_dcasgd.drivers")


def test_what_a_machine_may_lack_is_imported_only_where_it_is_used(processes) -> None:
    modules = [name for name in FILES if name not in NEED_MPI and not name.endswith("__main__")]
    finished = processes.run([sys.executable, "-c", LOAD_WITHOUT, ",".join(OPTIONAL), *modules])
    assert finished.stdout == f"loaded {len(modules)}\n", str(finished)


def unlike_a_library(tree: ast.AST) -> list[str]:
    """What only a command line may do: parse arguments, print to wherever, exit."""
    found = []
    for node in ast.walk(tree):
        names: list[str | None] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module]
        found += [f"line {node.lineno}: imports {n}" for n in names if n == "argparse"]  # type: ignore[attr-defined]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            shown = called == "print" and "file" not in {word.arg for word in node.keywords}
            if shown or called in ("sys.exit", "exit", "SystemExit"):
                found.append(f"line {node.lineno}: calls {called}")
    return found


@pytest.mark.parametrize("module", [name for name in FILES if ".runs." in name])
def test_the_api_is_a_library(module: str) -> None:
    assert unlike_a_library(tree_of(module)) == []


def test_what_is_unlike_a_library_is_seen() -> None:
    source = "import argparse\nprint(1)\nprint(2, file=show)\nsys.exit(3)\nfrom argparse import x"
    assert len(unlike_a_library(ast.parse(source))) == 4

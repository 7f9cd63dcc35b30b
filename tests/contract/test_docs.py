"""docs/algorithms.md and docs/own-rule.md say what the code does."""

from __future__ import annotations

import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import yaml

from mpi_dcasgd.rules.algorithms import ALGORITHMS, PARTS, resolve_rule
from mpi_dcasgd.rules.chain import Chain
from mpi_dcasgd.rules.part import Facts
from mpi_dcasgd.rules.references import Reference
from mpi_dcasgd.tools.conformance import PART_LAWS, SERVER_LAWS, run

DOCS = Path(__file__).parents[2] / "docs"
ALGORITHMS_MD = (DOCS / "algorithms.md").read_text()
OWN_RULE_MD = (DOCS / "own-rule.md").read_text()
REGISTERED = [(role, name) for role, names in PARTS.items() for name in names]


def section(role: str, name: str) -> str:
    """What stands below a part's heading."""
    _, heading, rest = ALGORITHMS_MD.partition(f"\n### `{role}: {name}`\n")
    assert heading, f"docs/algorithms.md has no section for {role}: {name}"
    return re.split(r"\n##", rest, maxsplit=1)[0]


@pytest.mark.parametrize(("role", "name"), REGISTERED)
def test_every_part_is_described_with_its_settings_and_defaults(role: str, name: str) -> None:
    text = section(role, name)
    for setting in fields(PARTS[role][name]):  # type: ignore[arg-type]
        default = getattr(PARTS[role][name](), setting.name)
        shown = "null" if default is None else str(default)
        assert f"| `{setting.name}` |" in text, setting.name
        row = next(line for line in text.splitlines() if line.startswith(f"| `{setting.name}` |"))
        assert f"| {shown} |" in row, f"{setting.name} has default {shown}"


def test_no_part_is_described_that_does_not_exist() -> None:
    described = re.findall(r"\n### `(\w+): ([\w-]+)`\n", ALGORITHMS_MD)
    assert sorted(described) == sorted(REGISTERED)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_is_in_the_table_with_its_parts_and_memory(algorithm: str) -> None:
    named = ALGORITHMS[algorithm]
    (row,) = (r for r in ALGORITHMS_MD.splitlines() if r.startswith(f"| `{algorithm}` |"))
    _, _, parts, _, vectors, snapshot, _ = row.split("|")
    for part in named.parts.values():
        assert f"`{part}`" in parts
    assert len(named.parts) == parts.count("`") // 2
    rule = resolve_rule(algorithm)
    needed = {num_workers: rule.state_vectors(num_workers) for num_workers in (1, 8)}
    said = vectors.strip()
    assert {n: eval(said, {"M": n}) for n in needed} == needed
    assert (snapshot.strip() == "yes") == rule.reads_snapshot


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_but_the_plain_ones_has_a_source_that_is_listed(algorithm: str) -> None:
    references = resolve_rule(algorithm).references()
    assert (references == ()) == (algorithm in ("sgd", "ssgd", "asgd"))
    for reference in references:
        assert_is_a_source(reference)


@pytest.mark.parametrize(("role", "name"), REGISTERED)
def test_a_parts_sources_are_those_of_its_docstring_and_are_listed(role: str, name: str) -> None:
    kind = PARTS[role][name]
    part = kind(rate=0.1, place="decoupled") if role == "weight_decay" else kind()  # type: ignore[call-arg]
    said = " ".join(f"{kind.__doc__} {sys.modules[kind.__module__].__doc__}".split())
    assert bool(part.references()) == ("Source:" in (kind.__doc__ or "") or "dana" in name)
    for reference in part.references():
        assert_is_a_source(reference)
        family = reference.authors[0].split()[-1]
        assert re.search(rf"Source: [^:]*{family}", said), family
        assert str(reference.year) in said or reference.arxiv in said


def assert_is_a_source(reference: Reference) -> None:
    """Listed at the end of docs/algorithms.md with its title and where it is to be found."""
    _, _, sources = " ".join(ALGORITHMS_MD.split()).partition("## Sources")
    entries = [entry for entry in sources.split(" - ") if reference.title in entry]
    assert len(entries) == 1, reference.title
    assert str(reference.year) in entries[0] or f"arXiv:{reference.arxiv}" in entries[0]


def test_every_law_is_listed() -> None:
    for law in (*PART_LAWS, *SERVER_LAWS):
        assert f"| {law.name} |" in ALGORITHMS_MD, law.name


def test_every_fault_is_shown_with_the_law_that_it_breaks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = re.findall(r"\| `(contract\.faulty:\w+)` \| .* \| (.*) \|", ALGORITHMS_MD)
    assert len(rows) == 5
    for target, law in rows:
        run(target)
        assert f"FAILS  {law}" in capsys.readouterr().out


def test_no_link_is_broken() -> None:
    for text in (ALGORITHMS_MD, OWN_RULE_MD):
        for target in re.findall(r"\]\(([^)#]+)?#?[^)]*\)", text):
            assert target == "" or target.startswith("http") or (DOCS / target).exists(), target


def test_own_rule_works_in_fewer_than_twenty_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, formula = re.findall(r"```python\n(.*?)```", OWN_RULE_MD, re.DOTALL)
    assert sum(1 for line in code.splitlines() if line.strip()) < 20
    (tmp_path / "my_rules.py").write_text(code)
    (tmp_path / "my_formulas.py").write_text(formula)
    monkeypatch.syspath_prepend(str(tmp_path))
    (job,) = re.findall(r"```yaml\n(.*?)```", OWN_RULE_MD, re.DOTALL)
    settings = yaml.safe_load(job)
    rule = resolve_rule(settings["algorithm"], settings["rule"])
    assert rule.reads_snapshot
    # The correction would be 0.5 * 4 * -4 = -8; the gradient is 2, so it is -2, and nothing moves.
    params, snapshot = torch.tensor([1.0]), torch.tensor([5.0])
    chain = Chain(rule, params, 1)
    chain.apply(params, torch.tensor([2.0]), snapshot, Facts(0.1, 0.1, 3, 3, 0, 1, 2.0))
    assert params.item() == 1.0
    assert run("my_rules:BoundedCompensation") == 0
    printed = capsys.readouterr().out
    assert "no law fails" in printed
    assert "no formula is known of BoundedCompensation; give one with --reference" in printed
    assert run("my_rules:BoundedCompensation", "my_formulas:bounded") == 0
    assert "holds  it does what its formula says" in capsys.readouterr().out

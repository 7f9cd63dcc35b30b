"""Every page of docs/results shows its numbers, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mpi_dcasgd.tools.results.build import filled, tables_of
from mpi_dcasgd.tools.results.store import read_results
from mpi_dcasgd.tools.results.studies import STUDIES, study

RESULTS = Path(__file__).parents[2] / "docs/results"


@pytest.mark.parametrize("name", STUDIES)
def test_a_page_is_what_its_numbers_give(name: str) -> None:
    file = RESULTS / f"{name}.md"
    results = read_results(RESULTS / f"{name}.json")
    page = study(name).page(results.rows)
    assert file.read_text() == filled(file.read_text(), tables_of(results, page), str(file))
    for plot in page.plots:
        assert f"]({name}-{plot}.svg)" in file.read_text()
        assert (RESULTS / f"{name}-{plot}.svg").exists()


def test_every_page_is_in_the_index_and_no_link_is_broken() -> None:
    index = (RESULTS / "README.md").read_text()
    for name in STUDIES:
        assert f"]({name}.md)" in index
    for file in RESULTS.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)?#?[^)]*\)", file.read_text()):
            there = not target or target.startswith("http") or (RESULTS / target).exists()
            assert there, f"{file.name}: {target}"

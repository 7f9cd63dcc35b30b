"""What the project says of itself agrees: versions, licence, Python versions, papers."""

from __future__ import annotations

import configparser
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.version import Version

import mpi_dcasgd
from mpi_dcasgd.rules.references import GILADI_2020, MISHCHENKO_2022, ZHENG_2017

ROOT = Path(__file__).parents[2]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def metadata() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def citation() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text("CITATION.cff"))
    return found


def test_the_version_is_the_latest_release_or_comes_after_it() -> None:
    headings = re.findall(r"^## \[(.+?)\](?: - (\S+))?$", text("CHANGELOG.md"), re.M)
    assert headings[0] == ("Unreleased", "")
    releases = [(Version(version), date) for version, date in headings[1:]]
    assert releases == sorted(releases, reverse=True)
    latest, date = releases[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", date)
    version = Version(mpi_dcasgd.__version__)
    assert version == latest or (version.is_devrelease and version > latest)
    assert citation()["version"] == str(latest)
    assert citation()["date-released"] == date


def test_the_licence_is_apache_everywhere() -> None:
    assert text("LICENSE").split()[:4] == ["Apache", "License", "Version", "2.0,"]
    assert metadata()["metadata"]["license"] == citation()["license"] == "Apache-2.0"


def test_the_papers_of_the_citation_are_those_of_the_rules() -> None:
    papers = citation()["references"]
    assert len(papers) == 3
    for paper, reference in zip(papers, (ZHENG_2017, GILADI_2020, MISHCHENKO_2022), strict=True):
        names = [f"{a['given-names']} {a['family-names']}" for a in paper["authors"]]
        assert tuple(names) == reference.authors
        assert paper["title"] == reference.title
        assert (paper["collection-title"], paper["year"]) == (reference.venue, reference.year)
        assert paper["identifiers"][0]["value"] == f"arXiv:{reference.arxiv}"
        assert paper["url"].endswith(reference.arxiv)


def test_the_pythons_that_are_claimed_are_those_that_ci_tests() -> None:
    workflow = yaml.safe_load(text(".github/workflows/ci.yaml"))
    tested = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert any(".ci/run" in step.get("run", "") for step in workflow["jobs"]["test"]["steps"])
    config = metadata()
    claimed = re.findall(r"Python :: (3\.\d+)", config["metadata"]["classifiers"])
    assert claimed == tested
    assert config["options"]["python_requires"] == f">={tested[0]}"
    assert tomllib.loads(text("ruff.toml"))["target-version"] == f"py{tested[0].replace('.', '')}"
    words = f"Python {' or '.join(tested)}"
    for name in ("README.md", "CONTRIBUTING.md", "Makefile"):
        assert words in text(name), name


def test_the_hooks_fetch_nothing_and_check_the_scripts_that_make_lint_checks() -> None:
    (repository,) = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]
    assert repository["repo"] == "local"
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}
    (pattern,) = (hook["files"] for hook in repository["hooks"] if hook["id"] == "shellcheck")
    (line,) = re.findall(r"bin\)/shellcheck (.+)$", text("Makefile"), re.M)
    scripts = sorted(str(p.relative_to(ROOT)) for glob in line.split() for p in ROOT.glob(glob))
    known = [".ci/run", "tests/cluster/agent", *map(str, ROOT.glob("slurm/**/*"))]
    names = [str(Path(name).relative_to(ROOT)) if name[0] == "/" else name for name in known]
    assert sorted(name for name in names if re.search(pattern, name)) == scripts


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


PAGES = [path for folder in (".", "docs", "docs/results") for path in (ROOT / folder).glob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_is_broken(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text("utf-8")):
        if target.startswith("http"):
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"

"""Numbers of studies on their way into pages: kept rows, files, tables in their places."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from mpi_dcasgd.errors import DcasgdError, UserError
from mpi_dcasgd.tools.results.__main__ import main
from mpi_dcasgd.tools.results.build import bare, build, filled, made
from mpi_dcasgd.tools.results.delay_limit import largest_rate
from mpi_dcasgd.tools.results.kept import Kept
from mpi_dcasgd.tools.results.means import Mean, short
from mpi_dcasgd.tools.results.runs import row_of
from mpi_dcasgd.tools.results.store import read_results, results_of, write_results
from mpi_dcasgd.tools.results.studies import STUDIES, Page, study

ROWS = [{"algorithm": "asgd", "seed": 1, "gap": 0.5, "seconds": 90}, {"seed": 2, "seconds": 30}]


def test_a_row_is_made_once_and_kept(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> dict[str, float]:
        made.append(1)
        return {"gap": 0.1 + 0.2, "curve": (1, 2)}  # type: ignore[dict-item]

    row = Kept(tmp_path).row({"seed": 1, "algorithm": "asgd"}, make)
    again = Kept(tmp_path).row({"algorithm": "asgd", "seed": 1}, make)
    assert row == again
    assert len(made) == 1
    assert row["gap"] == 0.1 + 0.2
    assert row["curve"] == [1, 2]
    Kept(tmp_path).row({"algorithm": "asgd", "seed": 2}, make)
    assert len(made) == 2


def test_a_row_that_is_no_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        Kept(tmp_path).row({"seed": 1}, lambda: {"gap": float("nan")})


def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    Kept(tmp_path).row({"seed": 1}, lambda: {"gap": 1})
    file = tmp_path / "rows.jsonl"
    file.write_text(file.read_text() + '["half')
    with pytest.raises(UserError, match=r"rows\.jsonl, line 2: .*; remove the line"):
        Kept(tmp_path)


def test_numbers_are_written_a_run_a_line(tmp_path: Path) -> None:
    results = results_of("arbitrary-delays", ROWS, short=True)
    file = tmp_path / "arbitrary-delays.json"
    write_results(results, file)
    found = read_results(file)
    assert found == results
    assert json.loads(file.read_text())["runs"] == ROWS
    assert sum('"seed":' in line for line in file.read_text().splitlines()) == len(ROWS)
    assert found.head["seconds"] == 120
    assert found.head["command"].endswith("run arbitrary-delays --short")
    assert "| made | " in made(found)
    assert "2 runs in 2.0 minutes" in made(found)


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_numbers_that_are_none_are_told(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match="run the study"):
        read_results(file)


def test_tables_go_into_their_places_and_prose_stays() -> None:
    prose = (
        "# Title\n\n<!-- table a -->\nold\n<!-- end -->\nbetween\n<!-- table b -->\n<!-- end -->\n"
    )
    page = filled(prose, {"a": r"| \1 |", "b": "| 2 |"}, "page.md")
    assert page == (
        "# Title\n\n<!-- table a -->\n| \\1 |\n<!-- end -->\nbetween\n"
        "<!-- table b -->\n| 2 |\n<!-- end -->\n"
    )
    assert filled(page, {"a": r"| \1 |", "b": "| 2 |"}, "page.md") == page


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ({}, "page.md: there is no table a; there are "),
        ({"a": "", "b": ""}, "page.md: add <!-- table b --> and <!-- end -->"),
    ],
)
def test_a_table_without_a_place_is_told(tables: dict[str, str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        filled("<!-- table a -->\n<!-- end -->\n", tables, "page.md")


@pytest.mark.parametrize("short", [True, False])
def test_the_page_of_a_short_form_is_written_anew(
    short: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study("demo"), "page", lambda rows: Page({"new": "| 1 |"}))
    write_results(results_of("demo", ROWS, short=short), tmp_path / "demo.json")
    file = tmp_path / "demo.md"
    file.write_text("prose\n<!-- table old -->\n<!-- end -->\n")
    if short:
        assert build("demo", tmp_path) == [file]
        assert "| 1 |" in file.read_text()
    else:
        with pytest.raises(UserError, match="there is no table old"):
            build("demo", tmp_path)
        assert file.read_text().startswith("prose")


def test_intervals_are_students() -> None:
    found = Mean.of([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.mean == 3.0
    assert found.half == pytest.approx(2.776445 * 2.5**0.5 / 5**0.5, rel=1e-6)
    assert Mean.of([2.0]).show() == "2"
    assert Mean.of([2.0, 2.0]).show() == "2 ± 0"
    assert [short(v) for v in (-0.5, 99999, 1e5, 0.0099)] == ["-0.5", "99,999", "1.0e5", "9.9e-3"]


class Ended:
    """What ``row_of`` reads of a run."""

    summary: ClassVar = {"num_workers": 4, "updates": 30, "wall_s": 2.5, "test_f_gap": float("inf")}
    job = SimpleNamespace(algorithm="asgd", seed=1, lr=0.5)

    def metrics(self, event: str) -> list[dict[str, Any]]:
        assert event == "evaluation"
        return [{"version": 3 * n, "time_s": n / 4, "test_f_gap": 1 / n} for n in range(1, 11)]


def test_the_row_of_a_run_has_its_end_and_some_points() -> None:
    row = row_of(Ended(), ["f_gap", "loss"], points=4)  # type: ignore[arg-type]
    assert (row["algorithm"], row["workers"], row["lr"], row["updates"]) == ("asgd", 4, 0.5, 30)
    assert row["f_gap"] is None
    assert row["loss"] is None
    assert row["curve"] == [[3, 0.25, 1.0], [12, 1.0, 0.25], [21, 1.75, 0.14286], [30, 2.5, 0.1]]


def test_a_study_that_is_none_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "arbitrary-delay"]) == 2
    assert "did you mean arbitrary-delays?" in capsys.readouterr().err


def test_a_study_whose_run_fails_tells_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(kept: Kept, short: bool) -> None:
        raise DcasgdError("a run failed")

    monkeypatch.setattr(study("demo"), "run", fail)
    assert main(["run", "demo", "--runs", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "results: a run failed\n"


@pytest.mark.parametrize("tau", [0, 1, 2, 8, 39])
def test_the_limit_of_one_staleness_is_the_closed_form(tau: int) -> None:
    expected = 2 * math.sin(math.pi / (2 * (2 * tau + 1)))
    assert largest_rate({tau: 7}) == pytest.approx(expected, rel=1e-4)
    assert largest_rate({tau: 7}, lambda tau: 0.5) == pytest.approx(2 * expected, rel=1e-4)


@pytest.mark.parametrize(("share", "grows"), [(0.97, False), (1.03, True)])
def test_the_limit_of_several_is_where_the_mean_begins_to_grow(share: float, grows: bool) -> None:
    staleness = {0: 1, 3: 3, 6: 2}
    rate = share * largest_rate(staleness)
    w = [1.0] * 7
    for _ in range(3000):
        step = sum(count / 6 * w[-1 - tau] for tau, count in staleness.items())
        w.append(w[-1] - rate * step)
    assert (max(map(abs, w[-50:])) > 1) == grows
    assert 0 < largest_rate({0: 1, 3: 2, 6: 1}) < 10, "the mean vanishes at an angle"


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_is_a_question_and_has_two_functions(name: str) -> None:
    module = study(name)
    assert (module.__doc__ or "").partition("\n")[0].endswith("?")
    assert callable(module.run)
    assert callable(module.page)
    question = bare(name, Page({"t": ""}, {}))
    assert "<!-- table t -->" in question
    assert "<!-- table made -->" in question

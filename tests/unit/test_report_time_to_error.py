"""The report's account of why one row was sooner than another."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_runs import synthetic_run

from mpi_dcasgd.reporting.collect import collect
from mpi_dcasgd.reporting.document import Table
from mpi_dcasgd.reporting.groups import group_runs
from mpi_dcasgd.reporting.time_to_error import sooner_table
from mpi_dcasgd.reporting.write import write_report


def table_of(root: Path) -> Table | None:
    return sooner_table(group_runs(collect([root]).runs))


def rows_of(root: Path) -> dict[str, tuple[str, ...]]:
    table = table_of(root)
    assert table is not None
    return {row[0]: row for row in table.rows}


def slowest(run: Path) -> float:
    """The lowest error that a run reached, in per cent."""
    (found,) = collect([run]).runs
    return 100 * min(point.value for point in found.points)


def test_time_is_samples_over_speed_against_the_synchronous_row(tmp_path: Path) -> None:
    baseline = synthetic_run(tmp_path, "ssgd", epochs=6, final_error=0.02, rate=10_000.0)
    quick = synthetic_run(tmp_path, "asgd", epochs=6, final_error=0.04, rate=30_000.0)
    (row,) = rows_of(tmp_path).values()
    assert row[:3] == ("asgd", "4", "ssgd")
    # At the worse of the two runs' best: the quick one needs all its epochs to be there.
    assert row[3] == f"{max(slowest(baseline), slowest(quick)):.2f}"
    (synchronous,) = collect([baseline]).runs
    reached = next(p for p in synchronous.points if 100 * p.value <= slowest(quick))
    samples, speed, time = map(float, row[4:])
    assert samples == pytest.approx(6_000 / reached.samples, abs=0.005)
    assert samples > 1
    assert speed == pytest.approx(3, rel=0.1)
    assert time == pytest.approx(samples / speed, abs=0.01)
    assert time < 1, "what it lost in samples it won in speed"


def test_seeds_are_held_against_their_like_and_the_spread_is_told(tmp_path: Path) -> None:
    for seed, rate in ((1, 10_000.0), (2, 20_000.0), (3, 10_000.0)):
        same = {"epochs": 3, "final_error": 0.03, "seed": seed}
        synthetic_run(tmp_path, "ssgd", rate=10_000.0, **same)
        if seed < 3:
            synthetic_run(tmp_path, "asgd", rate=rate, **same)
    ratio, _, spread = rows_of(tmp_path)["asgd"][6].partition(" (")
    least, _, most = spread.rstrip(")").partition(" to ")
    assert float(least) < float(ratio) < float(most)
    assert float(ratio) == pytest.approx((float(least) * float(most)) ** 0.5, abs=0.01)


def test_without_a_synchronous_row_the_sequential_one_is_the_measure(tmp_path: Path) -> None:
    synthetic_run(tmp_path, "sgd")
    synthetic_run(tmp_path, "asgd", workers=4)
    synthetic_run(tmp_path, "ssgd", workers=8)
    synthetic_run(tmp_path, "asgd", workers=8)
    table = table_of(tmp_path)
    assert table is not None
    assert [row[:3] for row in table.rows] == [
        ("asgd", "4", "sgd"),
        ("ssgd", "8", "sgd"),
        ("asgd", "8", "ssgd, 8 workers"),
    ]


def test_virtual_seconds_are_not_held_against_real_ones(tmp_path: Path) -> None:
    synthetic_run(tmp_path, "sgd")
    synthetic_run(tmp_path, "ssgd")
    synthetic_run(tmp_path, "asgd", driver="simulator")
    assert set(rows_of(tmp_path)) == {"ssgd"}
    synthetic_run(tmp_path, "ssgd", driver="simulator")
    rows = rows_of(tmp_path)
    assert rows["asgd, simulated"][2] == "ssgd, simulated"


def test_there_is_no_table_where_nothing_can_be_held_against_another(tmp_path: Path) -> None:
    synthetic_run(tmp_path, "asgd")
    assert table_of(tmp_path) is None
    # Two that could be meant are none.
    for lr in (0.1, 0.2):
        synthetic_run(tmp_path, "sgd", job={"lr": lr})
    assert table_of(tmp_path) is None


def test_the_report_has_the_table(tmp_path: Path) -> None:
    synthetic_run(tmp_path / "runs", "ssgd")
    synthetic_run(tmp_path / "runs", "asgd")
    text = write_report([tmp_path / "runs"], tmp_path / "report").markdown.read_text()
    _, _, section = text.partition("## Why sooner or later")
    assert "| asgd | 4 | ssgd |" in section
    assert "samples × divided by samples/s ×" in section

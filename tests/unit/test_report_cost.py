"""Cost of rows with and without the server's rank, and time to a target against workers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from synthetic_runs import synthetic_run

from mpi_dcasgd.reporting.collect import collect
from mpi_dcasgd.reporting.criteria import common_target
from mpi_dcasgd.reporting.effort import cost_note, cost_table, show_rank_seconds
from mpi_dcasgd.reporting.groups import Group, group_runs
from mpi_dcasgd.reporting.scaling import draw_scaling, scales


def groups_of(root: Path) -> tuple[Group, ...]:
    return tuple(group_runs(collect([root]).runs))


def test_the_server_is_a_rank_that_costs(tmp_path: Path) -> None:
    asgd = synthetic_run(tmp_path, "asgd", workers=4, epochs=2, final_error=0.02)
    synthetic_run(tmp_path, "ssgd", workers=4, epochs=2, final_error=0.2)
    wall_s = json.loads((asgd / "summary.json").read_text())["wall_s"]
    groups = groups_of(tmp_path)
    table = cost_table(groups, 0.05)
    assert table is not None
    rows = {row[0]: dict(zip(table.header[:6], row, strict=False)) for row in table.rows}
    assert (rows["asgd"]["ranks"], rows["ssgd"]["ranks"]) == ("5", "4")
    assert float(rows["asgd"]["rank-s"]) == pytest.approx(5 * wall_s, abs=0.01)
    assert float(rows["asgd"]["without server"]) == pytest.approx(4 * wall_s, abs=0.01)
    assert rows["ssgd"]["rank-s"] == rows["ssgd"]["without server"]
    # One has reached the target at its end, the other never.
    cells = {row[0]: row[6:] for row in table.rows}
    assert cells["asgd"] == (rows["asgd"]["rank-s"], rows["asgd"]["without server"])
    assert cells["ssgd"] == ("-", "-")
    assert "joules" not in " ".join(table.header) + cost_note(groups).lower()


def test_joules_are_shown_where_they_were_recorded(tmp_path: Path) -> None:
    file = synthetic_run(tmp_path, "asgd", epochs=1) / "summary.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"energy_j": 1234.5, "gpu_energy_j": 99.6})
    )
    table = cost_table(groups_of(tmp_path), None)
    assert table is not None
    assert table.header[-2:] == ("joules (rank 0's host)", "joules (its GPUs)")
    assert table.rows[0][-2:] == ("1,234", "100")
    assert "Joules" in cost_note(groups_of(tmp_path))


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.5, "0.50 rank-s"), (300, "300 rank-s"), (5400, "1.50 device-h")]
)
def test_cost_is_in_hours_where_it_is_hours(seconds: float, shown: str) -> None:
    assert show_rank_seconds(seconds) == shown


def test_perfect_scaling_starts_at_the_soonest_of_the_smallest(tmp_path: Path) -> None:
    for workers, rate in ((2, 1_000.0), (8, 3_000.0)):
        synthetic_run(tmp_path, "asgd", workers=workers, rate=rate, epochs=2)
        synthetic_run(tmp_path, "ssgd", workers=workers, rate=rate / 2, epochs=2)
    groups = groups_of(tmp_path)
    target = common_target(groups)
    assert target is not None
    assert scales(groups, target)
    assert not scales([group for group in groups if group.num_workers == 2], target)
    figure = Figure()
    draw_scaling(figure, groups, "digits", target, "3 % test error")
    (axis,) = figure.axes
    perfect, *measured = axis.lines
    first, last = perfect.get_ydata()
    assert last == pytest.approx(first / 4), "four times the workers, a quarter of the time"
    soonest = min(line.get_ydata()[0] for line in measured if len(line.get_xdata()) == 2)
    assert first == pytest.approx(soonest)

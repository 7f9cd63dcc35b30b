"""The study of stability's edge: its formulas, how it decides, and its tables from made-up rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mpi_dcasgd.rules.algorithms import resolve_rule
from mpi_dcasgd.tools.results.edge_quadratic import CURVATURE, MOMENTUM, grown, grows, predicted
from mpi_dcasgd.tools.results.stabilitys_edge import page
from mpi_dcasgd.tools.stable_rates import largest_stable

ERROR = {"part": "error", "study": "stabilitys-edge-kept", "algorithm": "asgd"}


@pytest.mark.parametrize("staleness", [0, 1, 2, 5])
@pytest.mark.parametrize("momentum", ["none", "heavy-ball", "shifted"])
def test_formulas_are_those_of_the_rules_themselves(momentum: str, staleness: int) -> None:
    part: dict[str, Any] = {"name": momentum}
    part |= {} if momentum == "none" else {"momentum": MOMENTUM}
    part |= {"dampening": MOMENTUM} if momentum == "heavy-ball" else {}
    rule = resolve_rule("asgd", {"momentum": part})
    assert largest_stable(rule, staleness + 1) == pytest.approx(
        predicted(momentum, staleness), rel=1e-4
    )


def test_simulated_runs_grow_above_the_edge_and_shrink_below(tmp_path: Path) -> None:
    edge = predicted("none", 1) / CURVATURE
    assert [grows(tmp_path, "none", 1, share * edge, 200) for share in (0.9, 1.1)] == [False, True]


def test_a_run_that_has_converged_to_rounding_has_not_grown() -> None:
    assert not grown([1.0, 0.1, 0.01, 1e-12, 1e-13, 1e-13, 3e-13, 2e-13, 3e-13])
    assert not grown([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0])


def test_tables_say_how_far_numbers_are_from_the_formulas() -> None:
    rows: list[dict[str, Any]] = [
        {"part": "quadratic", "momentum": "none", "staleness": 1, "stable": 1.02, "runs": 9},
        {
            "part": "minimum",
            "staleness": 0,
            "curvature": 20.0,
            "leaves": 0.095,
            "runs": 6,
        },
        {**ERROR, "workers": 8, "lr": 0.2, "error": 0.5},
        {**ERROR, "workers": 8, "lr": 0.2, "error": None},
        {**ERROR, "workers": 8, "lr": 0.2, "algorithm": "stable-asgd", "error": 0.15},
        {**ERROR, "workers": 8, "lr": 0.025, "study": "stabilitys-edge-tuned", "error": 0.14},
    ]
    tables = page(rows).tables
    assert "| none | 1 | 1.0200 | 1.0000 | +2.0 % | 9 |" in tables["quadratic"]
    assert "| 0 | 0.09500 | 0.10000 | -5.0 % | 20.00 | 6 |" in tables["minimum"]
    lines = [line.split(" | ")[1:] for line in tables["error"].splitlines()[2:]]
    assert [line[0] for line in lines] == ["kept", "by the rule", "tuned"]
    assert lines[0][2] == "50.00 %; 1 diverge"
    assert lines[1][1] == "0.0209"  # 0.2 sin(pi / 30)

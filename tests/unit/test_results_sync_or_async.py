"""The study of synchronous and asynchronous training: times to the target, paired speed-ups."""

from __future__ import annotations

from typing import Any

from mpi_dcasgd.tools.results.sync_or_async import page


def row(algorithm: str, seed: int, *, simulated: bool = False, **its: Any) -> dict[str, Any]:
    return {
        "cluster": "slow-4",
        "run": f"{algorithm}-w4-s{seed}{'-simulated' if simulated else ''}",
        "algorithm": algorithm,
        "workers": 4,
        "seed": seed,
        "lr": 0.2,
        "error": 0.03,
        "staleness_mean": 3.0,
        "time_s": 20.0,
        "curve": [[90, 10.0, 0.08], [180, 20.0, 0.03]],
        **its,
    }


def cells(table: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]
    ]


def test_speed_ups_are_paired_by_seed_and_the_server_is_paid_for() -> None:
    rows = [
        row("ssgd", 0),
        row("ssgd", 1, curve=[[90, 30.0, 0.04]]),
        row("asgd", 0, curve=[[90, 5.0, 0.04]]),
        row("asgd", 1, curve=[[90, 10.0, 0.039]]),
        row("rennala", 0, curve=[[90, 5.0, 0.041], [180, 9.0, None]]),
    ]
    ssgd, asgd, rennala = cells(page(rows).tables["times"])
    assert ssgd[3:6] == ["25.0 ± 63.5", "1.00 ± 0.00", "100 ± 254"]
    # 20 / 5 and 30 / 10; five ranks, since one of them serves.
    assert asgd[3:6] == ["7.5 ± 31.8", "3.50 ± 6.35", "38 ± 159"]
    assert rennala[3:6] == ["", "", ""]
    assert (asgd[-1], rennala[-1]) == ("2 of 2", "0 of 1")


def test_predictions_stand_beside_what_was_measured() -> None:
    rows = [row("asgd", 0), row("asgd", 0, simulated=True, time_s=21.0, staleness_mean=2.9)]
    assert cells(page(rows).tables["times"])[0][-1] == "1 of 1"
    (told,) = cells(page(rows).tables["predicted"])
    assert told[2:] == ["20.00", "21.00", "+5.0 %", "3.00", "2.90", "20.0, 20.0"]

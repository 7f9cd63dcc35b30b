"""The report's verdict, against numbers made up so that winner, tie and noise are known."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest

from mpi_dcasgd.learning.measures import Measures
from mpi_dcasgd.reporting.collect import Point, RunResult, UnfinishedRun
from mpi_dcasgd.reporting.criteria import common_target
from mpi_dcasgd.reporting.document import Bullets
from mpi_dcasgd.reporting.first_screen import FirstScreen
from mpi_dcasgd.reporting.paired import paired
from mpi_dcasgd.reporting.tasks import TaskRuns, by_task

DRIVERS = {"sgd": "sequential", "ssgd": "horovod"}


def made_up(
    algorithm: str,
    seed: int,
    time_s: float,
    error: float,
    *,
    workers: int = 4,
    folder: Path = Path("study"),
    driver: str | None = None,
    waiting: float = 0.0,
    slow: float = 1.0,
    samples: int = 1_000,
    cpus: int = 64,
    measures: Measures | None = None,
) -> RunResult:
    """A run that is at its final error after ``time_s``, and at ten times that after half of it."""
    driver = driver or DRIVERS.get(algorithm, "mpi")
    measures = measures or Measures()
    ranks = workers + (driver in ("mpi", "simulator"))
    summary: dict[str, Any] = {
        "algorithm": algorithm,
        "driver": driver,
        "num_workers": workers,
        "world_size": ranks,
        "seed": seed,
        f"test_{measures.primary}": error,
        "wall_s": time_s,
        "samples_per_s": samples / time_s,
        "epochs": 2,
        "num_samples": 500,
        "staleness_mean": 3.0,
        "staleness_histogram": {"3": 20} if driver == "mpi" else {},
        **measures.as_recorded(),
    }
    points = tuple(
        Point(epoch, part * time_s, int(part * samples), value, value, {}, 0.1)
        for epoch, part, value in ((1, 0.5, min(0.9, 10 * error)), (2, 1.0, error))
    )
    accounts = tuple(
        {
            "worker": number,
            "updates": 10,
            "compute_s": (1 - waiting) * (slow if number == 0 else 1.0),
            "wait_s": waiting * (slow if number == 0 else 1.0),
        }
        for number in range(workers)
    )
    return RunResult(
        path=folder / f"{algorithm}-w{workers}-s{seed}",
        job={},
        summary=summary,
        environment={
            "cpus": cpus,
            "ranks": [{"host": "c1", "device": "cpu"} for _ in range(ranks)],
        },
        points=points,
        workers=accounts,
        staleness={},
    )


def screen(*runs: RunResult, target: float | None = None) -> FirstScreen:
    (part,) = by_task(runs)
    return FirstScreen.of(part, [] if target is None else [target])


def part_of(*runs: RunResult) -> TaskRuns:
    (part,) = by_task(runs)
    return part


def clear() -> list[RunResult]:
    """Of three seeds each: asgd is 4, 5 and 6 s sooner, and the errors are noise."""
    return [
        *(made_up("ssgd", s, t, e) for s, t, e in ((1, 14, 0.03), (2, 15, 0.02), (3, 16, 0.03))),
        *(made_up("asgd", s, 10, e) for s, e in ((1, 0.02), (2, 0.03), (3, 0.025))),
    ]


def test_a_clear_winner_is_told_with_how_much_and_how_surely() -> None:
    time, result, cost, *_ = screen(*clear(), target=0.03).sentences()
    # The differences 4, 5 and 6: the quantile of 2 degrees of freedom is 4.303, over sqrt(3).
    assert time == (
        "By time to 3 % test error: asgd (10.0 s) wins. Next is ssgd (15.0 s), 5.00 s more"
        " (95 % interval 2.52 to 7.48 s; 3 seeds)."
    )
    assert result == (
        "By final test error: no clear winner. asgd (2.50 %) is first, but ssgd is within noise of"
        " it: ssgd (2.67 %), 0.17 points more (95 % interval -2.42 to 2.75 points; 3 seeds)."
    )
    # With the server's rank 5 ranks against 4: 50 against 56, 60 and 64.
    assert cost.startswith(
        "By device-hours to 3 % test error, the server's rank counted: asgd (50.0 rank-s) wins."
        " Next is ssgd (60.0 rank-s), 10.0 rank-s more (95 % interval 0.06"
    )


def test_the_interval_is_that_of_students_t() -> None:
    stats = pytest.importorskip("scipy.stats")
    theirs, ours = {1: 4.0, 2: 7.5, 3: 5.0, 9: 1.0}, {1: 3.0, 2: 4.0, 3: 5.5, 4: 0.0}
    difference = paired(theirs, ours)
    assert difference is not None
    assert difference.seeds == 3, "only those that both have"
    low, high = stats.ttest_rel([4.0, 7.5, 5.0], [3.0, 4.0, 5.5]).confidence_interval(0.95)
    assert (difference.low, difference.high) == (pytest.approx(low), pytest.approx(high))
    assert difference.mean == pytest.approx(statistics.fmean([1.0, 3.5, -0.5]))


def test_a_tie_is_called_one() -> None:
    runs = [made_up(name, seed, 10, 0.02) for name in ("ssgd", "asgd") for seed in (1, 2)]
    time, *_ = screen(*runs, target=0.02).sentences()
    assert time == "By time to 2 % test error: a tie at 10.0 s of ssgd and asgd."


def test_means_that_differ_in_the_last_bit_are_a_tie() -> None:
    assert statistics.fmean((0.1, 0.2, 0.3)) != statistics.fmean((0.2, 0.2, 0.2))
    errors = {"ssgd": (0.1, 0.2, 0.3), "asgd": (0.2, 0.2, 0.2)}
    runs = [
        made_up(name, seed, 10, error)
        for name, of in errors.items()
        for seed, error in enumerate(of)
    ]
    [result] = [text for text in screen(*runs).sentences() if text.startswith("By final")]
    assert result.startswith("By final test error: a tie at 20.00 % of ")


def test_beside_a_tie_every_other_row_is_named() -> None:
    errors = {
        "sgd": (0.2, 0.21, 0.22),
        "asgd": (0.2, 0.21, 0.22),
        "dcasgd-a": (0.1, 0.3, 0.26),
        "ssgd": (0.4, 0.41, 0.42),
    }
    runs = [
        made_up(name, seed, 10, error)
        for name, of in errors.items()
        for seed, error in enumerate(of)
    ]
    [result] = [text for text in screen(*runs).sentences() if text.startswith("By final")]
    assert result == (
        "By final test error: a tie at 21.00 % of sgd and asgd. Not told apart from them: dcasgd-a."
        " Behind it beyond noise: ssgd."
    )


def test_with_one_seed_no_interval_is_claimed() -> None:
    one = screen(made_up("ssgd", 1, 15, 0.03), made_up("asgd", 1, 10, 0.02), target=0.03)
    time, *_ = one.sentences()
    assert time == (
        "By time to 3 % test error: asgd (10.0 s) is first, then ssgd (15.0 s); one seed each, so"
        " no interval is claimed and the order may be chance."
    )
    assert all(verdict.winner is None for verdict in one.verdicts())
    assert any(text.startswith("One seed:") for text in one.cautions())


def test_rows_without_a_common_seed_are_not_paired() -> None:
    time, *_ = screen(
        made_up("ssgd", 1, 15, 0.03), made_up("asgd", 2, 10, 0.03), target=0.03
    ).sentences()
    assert "no seed in common, so no interval is claimed" in time


def test_a_target_that_nobody_reached_has_no_winner() -> None:
    time, *_ = screen(*clear(), target=0.001).sentences()
    assert time == (
        "By time to 0.1 % test error: no winner. Not ranked, since some run did not get there:"
        " ssgd and asgd."
    )


def test_a_row_with_a_run_that_diverged_is_never_crowned() -> None:
    bad = [made_up("dcasgd-a", seed, 1, 0.001 if seed < 3 else math.nan) for seed in (1, 2, 3)]
    time, result, *_ = screen(*clear(), *bad, target=0.03).sentences()
    assert "asgd (10.0 s) wins" in time
    assert time.endswith("did not get there: dcasgd-a.")
    assert result.endswith("since some run diverged or has no result: dcasgd-a.")


def test_a_metric_that_rises_is_won_by_the_highest() -> None:
    accuracy = Measures("accuracy", higher_is_better=True, units={})
    runs = [
        *(made_up("ssgd", s, 10, 0.5 + s / 100, measures=accuracy) for s in (1, 2, 3)),
        *(made_up("asgd", s, 10, 0.7 + s / 99, measures=accuracy) for s in (1, 2, 3)),
    ]
    _, result, *_ = screen(*runs).sentences()
    assert result.startswith("By final test accuracy: asgd (0.7202) wins. Next is ssgd (0.52),")
    assert "0.2002 less (95 % interval -0.20" in result


def test_without_a_target_three_quarters_of_the_rows_reached_it() -> None:
    runs = [made_up(f"rule-{n}", 1, 10, 0.01234 * n) for n in (1, 2, 3, 40)]
    assert common_target(part_of(*runs).groups) == pytest.approx(0.0371), (
        "rounded so that it is reached"
    )
    chosen = screen(*runs)
    assert "Nobody has set a target: 3.71 % test error" in chosen.note()
    assert "Nobody" not in screen(*runs, target=0.1).note()


def test_the_reasons_are_those_of_the_records() -> None:
    runs = []
    for seed in (1, 2):
        runs.append(made_up("ssgd", seed, 20, 0.02, waiting=0.4, slow=3.0))
        runs.append(made_up("asgd", seed, 10, 0.02, waiting=0.25, samples=1_200))
    *_, rates, waits, server = screen(*runs, target=0.02).sentences()
    assert rates == (
        "Why: asgd got through 2.40 times as many samples a second as ssgd, and needed 1.20 times"
        " as many: that is what staleness (3.0 updates on average) cost."
    )
    assert waits == (
        "The workers of ssgd waited 40 % of their time for the slowest, which takes 3.0 times as"
        " long as the fastest."
    )
    assert server.startswith("The workers of asgd waited 25 % of their time for the server:")


def test_fewer_samples_are_put_down_to_the_updates_made_of_them() -> None:
    runs = []
    for seed in (1, 2):
        runs.append(made_up("ssgd", seed, 20, 0.02, samples=2_000))
        runs.append(made_up("asgd", seed, 10, 0.02))
    text = " ".join(screen(*runs, target=0.02).sentences())
    assert "fewer, in spite of staleness (3.0 updates on average); it makes an update of" in text
    assert "each minibatch, ssgd one of every 4." in text


def cautions(*runs: RunResult) -> str:
    return " ".join(screen(*runs).cautions())


def test_what_is_unfair_is_said_and_nothing_else() -> None:
    fair = [made_up(name, seed, 10, 0.02) for name in ("asgd", "dcasgd-a") for seed in (1, 2, 3)]
    assert cautions(*fair).startswith("Untuned:")
    assert "seed" not in cautions(*fair)
    assert "processors" not in cautions(*fair)
    assert "a rank of its own" in cautions(*fair, made_up("ssgd", 1, 10, 0.02))
    assert "1/W of the updates" in cautions(*fair, made_up("ssgd", 1, 10, 0.02))
    assert "1/W of the updates" not in cautions(*fair)
    assert "5 ranks shared 2 processors" in cautions(*fair, made_up("asgd", 4, 9, 0.02, cpus=2))


@pytest.mark.parametrize(
    ("chosen", "said", "unsaid"),
    [
        ([("asgd", 5, []), ("ssgd", 5, [])], "Tuned with 5 runs for each: asgd lr 0.2", "edge"),
        ([("asgd", 5, []), ("ssgd", 3, [])], "Unequal budgets of tuning, in runs: asgd 5", "edge"),
        ([("asgd", 5, ["lr"]), ("ssgd", 5, [])], "At the edge of its grid: lr of asgd", "Unequal"),
        ([("asgd", 5, [])], "Untuned, beside rows that were tuned: ssgd.", "Unequal"),
        ("half of a file", "Untuned: nothing says", "Tuned with"),
        (None, "Untuned: nothing says", "Tuned with"),
    ],
)
def test_how_rows_were_tuned_is_said(tmp_path: Path, chosen: Any, said: str, unsaid: str) -> None:
    if isinstance(chosen, list):
        entries = [
            {"algorithm": name, "runs": runs, "values": {"lr": 0.2}, "edge": edge}
            for name, runs, edge in chosen
        ]
        (tmp_path / "tuning.json").write_text(json.dumps({"chosen": entries}))
    elif chosen:
        (tmp_path / "tuning.json").write_text('{"chosen": [{"algor')
    text = cautions(
        *(made_up(n, s, 10, 0.02, folder=tmp_path) for n in ("asgd", "ssgd") for s in (1, 2, 3))
    )
    assert said in text
    assert unsaid not in text


def test_a_tie_when_rows_were_tuned_is_said(tmp_path: Path) -> None:
    entry = {"algorithm": "asgd", "runs": 4, "values": {"lr": 0.2}}
    chosen = [
        {**entry, "workers": 4, "tied": 4, "tie_by_final": False},
        {**entry, "algorithm": "ssgd", "tied": 2, "tie_by_final": True},
    ]
    (tmp_path / "tuning.json").write_text(json.dumps({"chosen": chosen}))
    rows = [made_up(name, 1, 10, 0.02, folder=tmp_path) for name in ("asgd", "ssgd")]
    text = cautions(*rows)
    assert "4 of 4 settings of asgd with 4 workers tied when it was tuned; the first was" in text
    assert "2 of 4 settings of ssgd tied when it was tuned; the better final value decided." in text


def test_an_algorithm_that_tuning_left_out_is_named_even_beside_one_row(tmp_path: Path) -> None:
    chosen = [{"algorithm": "asgd", "runs": 4, "values": {"lr": 0.2}}]
    lost = {"algorithm": "dcasgd-c", "workers": 8, "runs": 4, "values": {}, "diverged": 3}
    record = {"chosen": chosen, "left_out": [lost | {"cut_off": 1}]}
    (tmp_path / "tuning.json").write_text(json.dumps(record))
    told = (
        "Left out by tuning: dcasgd-c with 8 workers, of whose 4 tuning runs 3 diverged and 1 did"
        " not reach the target in time."
    )
    assert told in cautions(made_up("asgd", 1, 10, 0.02, folder=tmp_path))
    rows = [made_up(name, 1, 10, 0.02, folder=tmp_path) for name in ("asgd", "dcasgd-c")]
    text = cautions(*rows)
    assert told in text
    assert "Untuned, beside rows that were tuned: dcasgd-c." in text


def test_simulated_rows_do_not_compete_with_real_ones_in_seconds() -> None:
    runs = clear() + [made_up("dcasgd-a", s, 0.1, 0.02, driver="simulator") for s in (1, 2, 3)]
    shown = screen(*runs, target=0.03)
    time, result, *_ = shown.sentences()
    assert "dcasgd" not in time
    assert "dcasgd-a" in result
    assert "Time and cost are judged among the real rows alone." in shown.cautions()
    assert any("seconds are virtual" in text for text in shown.cautions())


def test_rows_of_several_sizes_are_called_by_them_and_the_broken_are_named() -> None:
    runs = [made_up("asgd", s, 80 / w, 0.02, workers=w) for w in (4, 8) for s in (1, 2)]
    shown = screen(*runs, target=0.02)
    assert "asgd with 8 workers (10.0 s) wins. Next is asgd with 4 workers" in shown.sentences()[0]
    broken = [UnfinishedRun(Path(f"study/r{n}"), "?", "unreadable", "x") for n in range(7)]
    *_, last = next(
        block for block in shown.blocks("", broken)[::-1] if isinstance(block, Bullets)
    ).items
    assert last.startswith("Left out: r0 (unreadable), r1 (unreadable), ")
    assert last.endswith("r4 (unreadable) and 2 more.")


def test_one_row_has_nothing_to_be_compared_with() -> None:
    alone = screen(made_up("asgd", 1, 10, 0.02))
    assert alone.sentences() == alone.cautions() == []

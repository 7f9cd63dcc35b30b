"""Tables of studies, from made-up runs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import yaml

import mpi_dcasgd
from mpi_dcasgd.config.study import load_study
from mpi_dcasgd.shipped import shipped
from mpi_dcasgd.tools.results import (
    compensation_cifar10,
    delay_compensation,
    demo,
    edge_minimum,
    made_up,
    stabilitys_edge,
)
from mpi_dcasgd.tools.results.kept import Kept
from mpi_dcasgd.tools.results.runs import study_file


def arm(algorithm: str, errors: list[float | None], **more: Any) -> list[dict[str, Any]]:
    both = {"algorithm": algorithm, "lr": 0.1, "workers": 8, "staleness_mean": 7.0} | more
    return [
        both | {"error": error, "seed": seed, "staleness_max": 9, "curve": [[1, 50.0, error]]}
        for seed, error in enumerate(errors)
    ]


def lines_of(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


@pytest.mark.parametrize(
    ("module", "prefix", "tuned"),
    [
        (delay_compensation, "delay-compensation", {"unequal", "equal", "wide"}),
        (compensation_cifar10, "compensation-cifar10", {"unequal", "equal"}),
    ],
)
def test_a_study_of_delay_compensation_has_all_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, prefix: str, tuned: set[str]
) -> None:
    made: dict[str, Any] = {}

    def part_rows(kept: Kept, name: str, part: str, **options: Any) -> list[Any]:
        made[name] = options
        assert name == f"{prefix}-{part}"
        assert options["tuned"] == (part in tuned)
        return []

    monkeypatch.setattr(module, "part_rows", part_rows)
    module.run(Kept(tmp_path), short=False)
    assert made.keys() == {file.stem for file in shipped("jobs/studies").glob(f"{prefix}-*.yaml")}
    for name, options in made.items():
        assert not options["changes"], "a short form alone has changes"
        study = yaml.safe_load(shipped(f"jobs/studies/{name}.yaml").read_text())
        assert ("tune" in study) == options["tuned"]


def test_a_difference_is_paired_by_seed_and_noise_is_called_so() -> None:
    rows = [
        *arm("sgd", [0.10, 0.10], workers=1, part="unequal"),
        *arm("asgd", [0.20, 0.22, 0.24], part="unequal"),
        *arm("dcasgd-c", [0.19, 0.21, 0.23], part="unequal", dc_lambda=2),
        *arm("dcasgd-a", [0.18, 0.26, 0.22], part="unequal", dc_lambda=20),
        *arm("ssgd", [None, 0.1, 0.1], part="unequal"),
    ]
    tables = delay_compensation.page(rows).tables
    assert list(tables) == ["unequal"], "there is nothing to show of other parts"
    lines = lines_of(tables["unequal"])
    told = {line[1]: line for line in lines}
    assert told["`sgd`"][4] == "10.00 ± 0.00"
    assert told["`asgd`"][4:6] == ["22.00 ± 4.97", ""]
    assert told["`dcasgd-c`"][3] == "2"
    assert told["`dcasgd-c`"][5] == "-1.00 ± 0.00"
    assert told["`dcasgd-a`"][5] == "+0.00 ± 8.61, within noise"
    assert told["`ssgd`"][4] == "10.00 ± 0.00; 1 diverge"
    assert told["`asgd`"][8] == "never"
    assert told["`ssgd`"][8] == "50 ± 0; 1 never"


def test_lambdas_are_in_rows_and_rates_in_columns() -> None:
    rows = [
        row | {"part": "lambda"}
        for rate, error in ((0.02, 0.2), (0.2, 0.4))
        for row in (
            *arm("asgd", [error], lr=rate),
            *arm("dcasgd-a", [error / 2], lr=rate, dc_lambda=2, mean_square="global"),
            *arm("dcasgd-a", [None], lr=rate, dc_lambda=2, mean_square="per_worker"),
        )
    ]
    assert lines_of(delay_compensation.page(rows).tables["lambda"]) == [
        ["`asgd`", "0", "", "20.00", "40.00"],
        ["`dcasgd-a`", "2", "global", "10.00", "20.00"],
        ["`dcasgd-a`", "2", "per_worker", "diverges", "diverges"],
    ]


def test_warm_up_is_beside_none() -> None:
    rows = [
        row | {"part": "warmup"}
        for row in (
            *arm("asgd", [0.3, 0.32, None]),
            *arm("asgd", [0.2, 0.22, 0.2], warmup_epochs=1.0),
            *arm("dcasgd-a", [0.1], dc_lambda=10, warmup_epochs=1.0),
        )
    ]
    assert lines_of(delay_compensation.page(rows).tables["warmup"]) == [
        ["`asgd`", "0", "0.1", "31.00 ± 12.71; 1 diverge", "20.67 ± 2.87", "-10.00 ± 0.00"],
        ["`dcasgd-a`", "10", "0.1", "", "10.00", ""],
    ]


def test_errors_are_told_as_the_paper_tells_them() -> None:
    rows = [
        *arm("sgd", [0.1], workers=1, part="unequal"),
        *arm("ssgd", [0.2], part="unequal"),
        *arm("asgd", [0.9], part="unequal"),
        *arm("asgd", [0.3], part="equal"),
        *arm("dcasgd-a", [0.25], part="equal", dc_lambda=2),
    ]
    assert lines_of(delay_compensation.page(rows).tables["beside"]) == [
        ["1", "10.00", "", "", "", ""],
        ["8", "", "20.00", "30.00", "", "25.00"],
    ]


def test_momentum_is_beside_its_rate() -> None:
    rows = [
        row | {"part": "momentum"}
        for row in (*arm("asgd", [0.2]), *arm("asgd", [0.3], lr=0.01, momentum=0.9))
    ]
    assert lines_of(delay_compensation.page(rows).tables["momentum"]) == [
        ["8", "`asgd`", "0", "0.1", "20.00"],
        ["8", "`asgd`", "0.9", "0.01", "30.00"],
    ]


def test_the_demo_shows_who_waits_and_at_which_rates_runs_train() -> None:
    slow = {"samples_per_s": 1234.5, "gradients": [8, 2], "busy_s": [5.0, 10.0], "time_s": 10.0}
    rows = [
        *arm("asgd", [0.03], part="slow", **slow),
        *arm("asgd", [0.02, 0.04], part="rates"),
        *arm("asgd", [0.9, 0.9], part="rates", lr=0.2),
        *arm("sgd", [0.01, 0.01], part="rates"),
    ]
    tables = demo.page(rows).tables
    assert lines_of(tables["slow"]) == [["asgd", "1,234", "50%, 0%", "8, 2", "9", "3.0"]]
    assert lines_of(tables["rates"]) == [
        ["`asgd`", "3.0 ± 12.7", "90.0 ± 0.0", "2"],
        ["`sgd`", "1.0 ± 0.0", "", "2"],
    ]


@pytest.mark.parametrize("there", [False, True])
def test_short_forms_make_images_up_where_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    place = tmp_path / "fashion-mnist"
    if there:
        place.mkdir()
    monkeypatch.setattr(made_up, "FASHION_MNIST", place)
    studies: dict[str, Any] = {}
    minima: list[Any] = []

    def rows(kept: Kept, name: str, *others: Any, changes: Any, **options: Any) -> list[Any]:
        studies[name] = load_study(study_file(kept.folder, name, changes))
        return []

    def left_at(folder: Path, staleness: int, tolerance: float, data: Any) -> dict[str, Any]:
        minima.append(mpi_dcasgd.load_job(shipped(edge_minimum._JOB), **edge_minimum._others(data)))
        return {}

    monkeypatch.setattr(delay_compensation, "part_rows", rows)
    monkeypatch.setattr(stabilitys_edge, "compared", rows)
    monkeypatch.setattr(stabilitys_edge, "left_at", left_at)
    monkeypatch.setattr(stabilitys_edge, "stable_below", lambda *settings: {})
    shown = io.StringIO()
    for module in (delay_compensation, stabilitys_edge):
        module.run(Kept(tmp_path / module.__name__, shown), short=True)
    assert len(studies) == 4
    jobs = [*minima, *(each.job for study in studies.values() for each in study.elements)]
    assert {job.data.name for job in jobs} == {"fashion-mnist" if there else "synthetic"}
    assert ("made-up images instead" in shown.getvalue()) == (not there)
    # The network of the minimum sees as many samples either way.
    assert len(minima) == 2
    if not there:
        assert {job.data.num_train for job in minima} == {500}

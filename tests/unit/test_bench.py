"""``mpi-dcasgd bench``: what is measured, and how it is told."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator

import pytest
import torch

from mpi_dcasgd.cli import main
from mpi_dcasgd.learning.models.mlp import Mlp
from mpi_dcasgd.rules.algorithms import ALGORITHMS, PARTS
from mpi_dcasgd.tools.bench import recording, update
from mpi_dcasgd.tools.bench.show import as_table
from mpi_dcasgd.tools.bench.simulator import Case, measure_overhead
from mpi_dcasgd.tools.bench.spread import Spread
from mpi_dcasgd.tools.bench.update import Measured, built_in_rules, measure

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="there is no C++ compiler"
)


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(update, "_LEAST_S", 0.0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_every_algorithm_and_every_part_is_measured() -> None:
    rules = built_in_rules()
    assert rules.keys() >= ALGORITHMS.keys()
    for role, parts in PARTS.items():
        used = {type(part) for rule in rules.values() for r, part in rule.parts() if r == role}
        assert used == set(parts.values())


@pytest.mark.slow
@needs_compiler
def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--params", "80000", "--repeats", "2", "--rules", "dcasgd-a", "asgd", "ssp"]
    assert main(["bench", "update", "--json", *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    told = json.loads(out)
    assert told["machine"]["threads"] == 1
    assert told["machine"]["repeats"] == 2
    results = {entry["rule"]: entry for entry in told["results"]}
    assert list(results) == ["dcasgd-a", "asgd", "ssp"]
    assert {**results["asgd"], "rule": "ssp"} == results["ssp"]
    for rule, vectors in (("dcasgd-a", 7), ("asgd", 4)):
        entry = results[rule]
        assert (entry["num_params"], entry["kernel"]) == (80_000, "compiled")
        assert entry["vectors_moved"] == vectors
        moved = entry["update_bytes_per_s"] * entry["update_s"]
        assert moved == pytest.approx(vectors * 4 * 80_000)
        assert entry["triad_bytes_per_s"] * entry["triad_s"] == pytest.approx(3 * 4 * 80_000)
        least, most = entry["update_over_triad_min"], entry["update_over_triad_max"]
        assert 0 < least <= entry["update_over_triad"] <= most


@pytest.mark.slow
@needs_compiler
def test_groups_are_measured_beside_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--params", "8000", "--repeats", "2", "--rules", "weight_decay: l2", "--groups", "3"]
    assert main(["bench", "update", "--json", *words]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["results"]
    assert entry["groups"] == 3
    least, most = entry["grouped_over_one_min"], entry["grouped_over_one_max"]
    assert 0 < least <= entry["grouped_over_one"] <= most
    assert entry["grouped_s"] > 0
    assert main(["bench", "update", *words]) == 0
    *_, head, rule, row = capsys.readouterr().out.splitlines()
    assert head.endswith("| 3 groups ms | over one group (min to max) |")
    assert head.count("|") == rule.count("|") == row.count("|")


def test_rules_of_one_chain_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update, "Chain", lambda rule, params, workers, fuse: _Still())
    monkeypatch.setattr(update, "_triad", lambda num_params: lambda: None)
    rules = {name: built_in_rules()[name] for name in ("asgd", "dcasgd-c", "ssp")}
    found = [(m.rules, m.num_params) for m in measure(rules, (10, 20), 1)]
    same = ("asgd", "ssp")
    assert found == [(same, 10), (("dcasgd-c",), 10), (same, 20), (("dcasgd-c",), 20)]


class _Still:
    """A chain that does nothing."""

    kernel = "blocks"
    vectors_moved = 4

    def apply(self, *vectors: object) -> None:
        pass


def test_table() -> None:
    ratio = Spread.of([1.5, 0.5, 2.5])
    measured = Measured(
        rules=("asgd", "ssp"),
        num_params=25_600_000,
        kernel="blocks",
        vectors_moved=4,
        update_s=Spread.of([0.0128]),
        blocks_s=Spread.of([0.03]),
        plain_s=Spread.of([0.3]),
        triad_s=Spread.of([0.0128]),
        update_over_triad=ratio,
        prepare_s=1.0,
    )
    where = {"cpu": "a CPU", "cpus": 2, "load": [0.1, 0.2, 0.3], "threads": 1, "repeats": 3}
    head, _, *_, row = as_table(where, [measured]).splitlines()
    assert "a CPU, 2 CPUs, load 0.1" in head
    assert row == (
        "| asgd, ssp | 25.60 M | 4 | 12.8 (blocks) | 30 | 300 | 32.0 | 24.0 | 1.50 (0.50 to 2.50) |"
    )


def test_an_unknown_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "update", "--rules", "dcasgda"]) == 2
    assert "--rules dcasgda: unknown; did you mean dcasgd-a?" in capsys.readouterr().err


def test_the_simulator_is_measured_beside_a_plain_loop() -> None:
    case = Case(
        "small",
        Mlp(hidden=(4,)),
        (1, 2, 2),
        8,
        gradients=6,
        epochs=2,
        rounds=3,
    )
    found = measure_overhead(case, "dcasgd-a", "auto", 3, torch.device("cpu"))
    assert (found.case, found.algorithm, found.kernel) == ("small", "dcasgd-a", "blocks")
    assert (found.workers, found.rounds) == (3, 3)
    assert 0 < found.ratio.least <= found.ratio.median <= found.ratio.most
    least, most = (ratio * found.plain_s for ratio in (found.ratio.least, found.ratio.most))
    assert 0.1 * least < found.simulated_s < 10 * most


def test_what_recording_costs_is_measured_with_all_that_is_on() -> None:
    found = {cost.form: cost for cost in recording.measure(pushes=2000, rounds=3)}
    assert list(found) == list(recording.FORMS)
    nothing, trace, everything = found.values()
    assert nothing.push_bytes == 0
    assert 4 < trace.push_bytes < 40
    # Four floats a push, in a file of their own with a heading of eight bytes.
    assert everything.push_bytes == pytest.approx(trace.push_bytes + 16 + 8 / 2000)
    assert everything.entry()["pushes_per_s_at_1_percent"] * everything.push_s.median == 0.01
    assert all(0 < cost.push_s.least <= cost.push_s.most for cost in found.values())

"""Benchmarks that start processes: what they start, and what they make of the answers."""

from __future__ import annotations

import doctest
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from in_process import command

from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.rules.algorithms import resolve_rule
from mpi_dcasgd.rules.chain import Chain
from mpi_dcasgd.rules.part import Facts
from mpi_dcasgd.runs.jobs import load_job
from mpi_dcasgd.tools.bench import mpi, peer_ray, peer_update, peers, spread, training, worlds
from mpi_dcasgd.tools.bench.peer_update import PlainServer
from mpi_dcasgd.tools.bench.training import Course, Rates, samples_per_s
from mpi_dcasgd.tools.bench.worlds import Starter, answer_in, finish

COURSE = Course(workers=4, slow=4.0, algorithm="dcasgd-a", backend="ddp", step_s=0.002, steps=8)


@pytest.mark.parametrize("module", [spread, worlds])
def test_examples(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.failed == 0
    assert found.attempted > 0


# --- bench mpi ------------------------------------------------------------------------------


def test_the_limit_is_a_message_and_then_an_update() -> None:
    case = mpi.Case(2, 1000, "asgd", "messages", [30.0, 20.0], [100.0, 100.0], [50.0, 25.0])
    entry = case.entry()
    assert entry["over_raw"] == pytest.approx(0.25)
    assert (entry["over_raw_min"], entry["over_raw_max"]) == pytest.approx((0.2, 0.3))
    # 1 / (1/100 + 1/50) and 1 / (1/100 + 1/25)
    assert (entry["over_limit_min"], entry["over_limit_max"]) == pytest.approx((0.9, 1.0))
    assert (entry["over_update_min"], entry["over_update_max"]) == pytest.approx((0.6, 0.8))
    assert entry["transport"] == "messages"
    head, rule, row = mpi.as_table([case]).splitlines()
    assert head.count("|") == rule.count("|") == row.count("|")
    assert "| 0.95 (0.90 to 1.00) | 0.70 (0.60 to 0.80) |" in row


def test_an_answer_is_found_among_what_launchers_print() -> None:
    assert answer_in('[host] a warning\n[{"a": 1}]\nbye\n') == [{"a": 1}]
    with pytest.raises(LaunchError, match=r"without an answer.*\n.*only words"):
        answer_in("only words\n")


def test_a_process_that_fails_is_told_with_what_it_said() -> None:
    with pytest.raises(LaunchError, match="status 3:\nno memory"):
        finish(
            [sys.executable, "-c", "import sys; print('no memory', file=sys.stderr); sys.exit(3)"]
        )


# --- bench training -------------------------------------------------------------------------


def test_each_kind_of_run_is_a_job_on_as_many_ranks(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(training._JOB)
    kinds = COURSE.kinds()
    jobs = {name: load_job(file, words=words) for name, (_, words) in kinds.items()}
    assert {name: ranks for name, (ranks, _) in kinds.items()} == {
        "solo": 0,
        "solo_slow": 0,
        "async": 5,
        "sync": 4,
        "async_straggler": 5,
        "sync_straggler": 4,
    }
    slowed = {name: dict(job.inject.slow) for name, job in jobs.items()}
    last = {3: 4.0}
    assert slowed == {
        "solo": {},
        "solo_slow": {0: 4.0},
        "async": {},
        "sync": {},
        "async_straggler": last,
        "sync_straggler": last,
    }
    assert [job.algorithm for job in jobs.values()] == ["sgd", "sgd", *["dcasgd-a", "ssgd"] * 2]
    assert jobs["sync"].sync.backend == "ddp"
    # As many steps of each worker, fewer where all wait for the slow one.
    steps = {name: job.data.num_train // job.batch_size for name, job in jobs.items()}  # type: ignore[attr-defined]
    assert list(steps.values()) == [8, 2, 32, 32, 32, 8]


def test_a_job_of_ones_own_is_as_long_as_it_says(tmp_path: Path) -> None:
    course = Course(2, 4.0, "asgd", "ddp", 0.0, 8, tmp_path / "own.yaml", ("epochs=3",))
    assert course.kinds()["solo"] == (0, ("epochs=3", "algorithm=sgd"))
    assert course.kinds()["async_straggler"][1][-1] == 'inject={"slow": {1: 4.0}}'


def test_the_rate_is_that_of_the_run(tmp_path: Path) -> None:
    started: list[int] = []

    def run(ranks: int, program: Sequence[str]) -> None:
        started.append(ranks)
        assert command(*program[3:]) == 0

    rates = [samples_per_s(COURSE, name, tmp_path / name, run) for name in ("solo", "solo_slow")]
    assert started == [0, 0]
    assert all(0 < rate <= 32 / 0.002 for rate in rates)
    assert rates[1] <= 32 / 0.008


def test_a_run_without_a_result_is_told(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="the run async of the benchmark ended without a result"):
        samples_per_s(COURSE, "async", tmp_path / "none", lambda ranks, program: None)


def test_ratios_of_training() -> None:
    found = Rates(
        COURSE,
        {
            "solo": [100.0, 200.0],
            "solo_slow": [25.0, 50.0],
            "async": [400.0, 400.0],
            "sync": [200.0, 800.0],
            "async_straggler": [325.0, 325.0],
            "sync_straggler": [100.0, 100.0],
        },
    )
    entry = json.loads(json.dumps(found.entry()))
    assert (entry["async_over_ideal_min"], entry["async_over_ideal_max"]) == (0.5, 1.0)
    assert (entry["async_over_sync_min"], entry["async_over_sync_max"]) == (0.5, 2.0)
    assert entry["async_over_ideal_straggler_max"] == 1.0
    assert entry["async_over_sync_straggler"] == 3.25
    shown = training.as_table(found)
    assert "4 workers, 2 ms a step" in shown
    assert "| dcasgd-a, worker 3 4 times as slow | 325 |" in shown
    assert "| `async_over_sync_straggler` | 3.25 (3.25 to 3.25) |" in shown


def test_training_measures_every_kind_in_turns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def rate(course: Course, name: str, path: Path, run: Callable[..., None]) -> float:
        asked.append(name)
        assert course.words == ("lr=0.1",)
        return 10.0

    monkeypatch.setattr(training, "samples_per_s", rate)
    assert command("bench", "training", "lr=0.1", "--rounds", "2", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert asked == [*COURSE.kinds(), *COURSE.kinds()]
    (entry,) = told["results"]
    assert (entry["step_s"], entry["workers"], entry["async_over_ideal"]) == (0.02, 4, 0.25)
    assert command("bench", "training", "--algorithm", "ssgd") == 2
    assert "--algorithm ssgd: has no server" in capsys.readouterr().err


# --- bench peers ----------------------------------------------------------------------------


def test_peers_do_the_same_update() -> None:
    server = PlainServer(50, 2)
    weights = server.weights.clone()
    chain = Chain(resolve_rule("dcasgd-a"), weights, 2, "blocks")
    snapshots = [weights.clone() for _ in range(2)]
    generator = torch.Generator().manual_seed(1)
    for version, worker in enumerate((0, 1, 1, 0)):
        grad = 100 * torch.randn(50, generator=generator)
        facts = Facts(peer_update._LR, peer_update._LR, 1, version, worker, 2, 1.0)
        chain.apply(weights, grad, snapshots[worker], facts)
        sent = server.push_and_pull(worker, grad)
        torch.testing.assert_close(sent, weights, rtol=0, atol=1e-7)
        assert sent is not server.weights
    assert not torch.equal(snapshots[1], snapshots[0])


def test_a_rate_is_of_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(peer_update.time, "perf_counter", lambda: now[0])
    asked = []

    def run(rounds: int) -> None:
        asked.append(rounds)
        now[0] += 0.01 * rounds

    assert peer_update.rate_of(run, 3) == pytest.approx(300.0)
    assert asked == [2, 2, 32, 120], "a first one that does not count, then longer ones"


class FakeRay(ModuleType):
    """Actors that answer at once."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.alive: list[Any] = []
        self.cpus = 0

    def init(self, num_cpus: int, **others: Any) -> None:
        self.cpus = num_cpus

    def remote(self, kind: type) -> Any:
        def make(*arguments: Any) -> Any:
            genuine = kind(*arguments)

            class Actor:
                def __getattr__(self, name: str) -> Any:
                    return SimpleNamespace(
                        remote=lambda *given: Result(
                            getattr(genuine, name)(
                                *(
                                    each.value if isinstance(each, Result) else each
                                    for each in given
                                )
                            )
                        )
                    )

            self.alive.append(Actor())
            return self.alive[-1]

        return SimpleNamespace(remote=make)

    def wait(self, results: list[Any], num_returns: int = 1) -> tuple[list[Any], list[Any]]:
        return results[:num_returns], results[num_returns:]

    def kill(self, actor: Any) -> None:
        self.alive.remove(actor)

    def shutdown(self) -> None:
        self.cpus = 0


class Result:
    def __init__(self, value: Any) -> None:
        self.value = value


def test_ray_is_driven_as_its_example_does_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(peer_update, "_LEAST_S", 0.0)
    pushed: list[int] = []
    genuine = PlainServer.push_and_pull

    def push(self: PlainServer, worker: int, grad: torch.Tensor) -> torch.Tensor:
        pushed.append(worker)
        return genuine(self, worker, grad)

    monkeypatch.setattr(PlainServer, "push_and_pull", push)
    peer_ray.main({"workers": 2, "sizes": [5, 7]})
    rates = json.loads(capsys.readouterr().out)
    assert len(rates) == 2
    assert min(rates) > 0
    # Two rounds to warm up and two that count, of each worker, at both sizes.
    assert pushed == [0, 1] * (2 + 2) * 2
    assert (ray.alive, ray.cpus) == ([], 0)


def test_peers_are_measured_in_turns_and_those_missing_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def rpc(workers: int, sizes: Sequence[int]) -> list[float]:
        asked.append("rpc")
        return [2.0 * workers for _ in sizes]

    def ours(
        workers: int,
        sizes: Sequence[int],
        rules: Sequence[str],
        rounds: int,
        starter: Starter,
        transports: Sequence[str],
    ) -> list[mpi.Case]:
        assert transports == ["shared"]
        asked.append("ours")
        return [
            mpi.Case(workers, size, rules[0], "messages", [60.0], [1.0], [1.0]) for size in sizes
        ]

    monkeypatch.setattr(peers, "missing_peers", lambda: {"ray": "ray is not installed: pip"})
    monkeypatch.setattr(peers, "rpc_rates", rpc)
    monkeypatch.setattr(mpi, "measure", ours)
    words = ["bench", "peers", "--workers", "1", "--params", "10", "20", "--rounds", "2"]
    assert command(*words, "--json") == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert asked == ["rpc", "ours"] * 2
    assert [(r["params"], r["over_rpc"], r["rpc_per_s"]) for r in results] == [
        (10, 30.0, [2.0, 2.0]),
        (20, 30.0, [2.0, 2.0]),
    ]
    assert "over_ray" not in results[0]
    assert results[0]["skipped"] == {"ray": "ray is not installed: pip"}
    assert command(*words) == 0
    *_, row, empty, note = capsys.readouterr().out.splitlines()
    assert row.endswith("| 60 | 2 | 30.00 (30.00 to 30.00) |")
    assert (empty, note) == ("", "Ray was not measured: ray is not installed: pip")


@pytest.mark.slow
def test_torchs_rpc_is_measured() -> None:
    (rate,) = peers.rpc_rates(1, [64])
    assert rate > 0

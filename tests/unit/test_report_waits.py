"""Who waits, run by run: pictures of a few steps in the report."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from synthetic_runs import synthetic_run

from mpi_dcasgd import simulate
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.reporting import reasons, timeline
from mpi_dcasgd.reporting import who_waits as module
from mpi_dcasgd.reporting.collect import collect
from mpi_dcasgd.reporting.document import Block, Drawing, Paragraph
from mpi_dcasgd.reporting.groups import group_runs
from mpi_dcasgd.reporting.strips import Bar, Strips
from mpi_dcasgd.reporting.timeline import timeline_of, usual_span
from mpi_dcasgd.reporting.who_waits import who_waits
from mpi_dcasgd.reporting.write import write_report

JOB = {
    "epochs": 1,
    "batch_size": 10,
    "lr": 0.1,
    "data": {"name": "synthetic", "num_train": 600, "num_test": 20, "shape": [4]},
    "model": {"name": "mlp", "hidden": (4,)},
}
CLUSTER = {
    "delays": {"model": "constant"},
    "slow": {1: 3},
    "network": {"latency_s": 0.02},
    "server": {"service_s": 0.05},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synchronous and an asynchronous run, each with a worker three times slower."""
    root = tmp_path_factory.mktemp("waits")
    for algorithm in ("ssgd", "asgd"):
        job = JOB | {"algorithm": algorithm}
        simulate(job, workers=2, cluster=CLUSTER, run_dir=root / algorithm)
    return root


def sections(blocks: list[Block]) -> dict[str, str]:
    """The sentences of each run by its name."""
    texts = [block.text for block in blocks if isinstance(block, Paragraph)][1:]
    return dict(text.split(". ", 1) for text in texts)


def test_the_report_shows_who_waits_in_a_page_and_beside_markdown(
    runs: Path, tmp_path: Path
) -> None:
    written = write_report([runs], tmp_path)
    page, text = written.html.read_text(), written.markdown.read_text()
    assert "<summary>Who waits, run by run</summary>" in page
    assert page.count('<div class="strips"') == 2
    for name in ("ssgd", "asgd"):
        assert f"](timeline-{name}.svg)" in text
        ElementTree.parse(tmp_path / f"timeline-{name}.svg")
    found = sections(who_waits(written.groups, tmp_path))
    # The fast worker waits two steps of three; without a barrier only for messages and the server.
    assert re.match(r"Worker 0 waits .* for 6\d % of a step, worker 1 for \d %\.", found["ssgd"])
    assert re.match(r"Worker 0 waits for 8 % of its time, worker 1 for 3 %\.", found["asgd"])
    assert re.search(r"The server is busy for [67] %\.", found["asgd"])


@pytest.mark.parametrize("after_s", [0.0, 0.005, 0.015, 0.5])
def test_what_lies_outside_of_the_span_makes_no_difference_within_it(
    runs: Path, after_s: float
) -> None:
    folder = RunFolder(runs / "asgd")
    trace = folder.trace()
    steps = folder.steps(len(trace))
    # From the moment at which a push was applied, or a little later: its reply is on its way.
    begin, end = trace.time_us[40] / 1e6 + after_s, trace.time_us[50] / 1e6
    whole = timeline_of("run", trace, steps)
    inside = [s for s in whole.slices if s.end_s >= begin and s.start_s <= end]
    found = timeline_of("run", trace, steps, begin, end).slices
    assert [(s.worker, s.kind, s.push) for s in found] == [
        (s.worker, s.kind, s.push) for s in inside
    ]
    assert [s.start_s for s in found] == pytest.approx([s.start_s for s in inside], abs=1e-6)
    assert [s.end_s for s in found] == pytest.approx([s.end_s for s in inside], abs=1e-6)


class LongTrace:
    """As much of a trace of two workers in turn as a timeline asks for."""

    restarts = ()

    def __init__(self, pushes: int) -> None:
        self.worker = np.arange(pushes) % 2
        self.time_us = np.arange(1, pushes + 1) * 1000
        self.meta: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.worker)


def test_a_span_of_a_long_run_is_laid_out_without_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    laid_out = []
    of_worker = timeline._of_worker

    def counted(worker: int, pushes: Any, *others: Any) -> Any:
        laid_out.append(len(pushes))
        return of_worker(worker, pushes, *others)

    monkeypatch.setattr(timeline, "_of_worker", counted)
    trace: Any = LongTrace(200_000)
    steps = np.full((len(trace), 4), 0.0005, dtype=np.float32)
    found = timeline_of("long", trace, steps, *usual_span(trace))
    assert max(laid_out) < 100
    assert len({one.push for one in found.slices}) < 30


def test_a_run_without_step_times_or_with_a_damaged_trace_is_no_reason_for_no_report(
    tmp_path: Path,
) -> None:
    one = synthetic_run(tmp_path / "runs", "asgd", workers=2)
    other = synthetic_run(tmp_path / "runs", "asgd", workers=2, seed=2)
    groups = group_runs(collect([tmp_path / "runs"]).runs)
    found = sections(who_waits(groups, tmp_path))
    assert found[one.name] == "Only the ends of its steps are known."
    (other / "trace.bin").write_bytes(b"something else")
    assert list(sections(who_waits(groups, tmp_path))) == [one.name]


def test_of_very_many_runs_each_row_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (1, 2, 3):
        synthetic_run(tmp_path / "runs", "asgd", workers=2, seed=seed)
    groups = group_runs(collect([tmp_path / "runs"]).runs)
    assert len(sections(who_waits(groups, tmp_path))) == 3
    monkeypatch.setattr(module, "_MOST_RUNS", 2)
    blocks = who_waits(groups, tmp_path)
    assert len(sections(blocks)) == 1
    assert isinstance(blocks[0], Paragraph)
    assert blocks[0].text.startswith("The first run of each row.")


def test_runs_of_one_name_have_pictures_of_their_own(tmp_path: Path) -> None:
    for study in ("a", "b"):
        synthetic_run(tmp_path / study, "asgd", workers=2)
    groups = group_runs(collect([tmp_path / "a", tmp_path / "b"]).runs)
    paths = [b.path for b in who_waits(groups, tmp_path) if isinstance(b, Drawing)]
    assert len(set(paths)) == 2


def test_of_many_workers_the_quickest_and_the_slowest_are_drawn(tmp_path: Path) -> None:
    synthetic_run(tmp_path / "runs", "asgd", workers=40, epochs=10)
    [run] = collect([tmp_path / "runs"]).runs
    found = module._of_run(run)
    assert found is not None
    assert found.text.endswith("16 of 40 workers are drawn.")
    assert len(found.strips.rows) == 16
    assert module._spread(range(40))[::15] == [0, 39]


def test_bars_are_cut_at_the_ends_and_what_is_short_can_be_seen() -> None:
    rows = [("server", [Bar("apply", 5.0, 5.0)]), ("worker 0", [Bar("compute", 0.0, 20.0)])]
    strips = Strips(rows, (2.0, 10.0), "s")
    markup = strips.to_html('a "quoted" text')
    assert 'aria-label="a &quot;quoted&quot; text"' in markup
    assert "M375 1h1.2v8" in markup
    assert "M0 11h999v8" in markup
    assert "<span>2.00 s</span><span>10.00 s</span>" in markup
    assert "server applies" in markup
    assert "reply" not in markup


def test_a_server_that_is_idle_is_not_called_busy(runs: Path) -> None:
    [sync, ours] = sorted(collect([runs]).runs, key=lambda run: run.algorithm != "ssgd")
    assert sync.server_busy is None or sync.staleness == {}
    assert ours.server_busy == pytest.approx(0.05 * 60 / ours.summary["wall_s"], rel=0.02)
    groups = group_runs([ours])
    waited = [{"compute_s": 6.0, "wait_s": 4.0}]
    for busy, end in ((0.02, "which was busy for 2 % of it"), (0.9, "it is busy, and more")):
        run = SimpleNamespace(workers=waited, server_busy=busy)
        group: Any = SimpleNamespace(label=groups[0].label, manner="", runs=[run])
        sentence = reasons._server(group)
        assert "waited 40 % of their time for the server" in sentence
        assert end in sentence

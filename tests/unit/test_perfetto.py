"""Perfetto itself reads timelines: nothing is dropped, moved or complained of."""

from __future__ import annotations

import json
from pathlib import Path

import perfetto_page as perfetto
import pytest

from mpi_dcasgd import simulate
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.runs.timeline import timeline

QUERIES = {
    "complaints": "select name, value from stats where severity != 'info' and value > 0",
    "rows": """select thread.name, slice.name, count(*), max(depth) from slice
        join thread_track on thread_track.id = track_id join thread using (utid)
        group by 1, 2 order by 1, 2""",
    "arrows": """select begin.name, end.name, count(*) from flow
        join slice begin on begin.id = slice_out join slice end on end.id = slice_in
        group by 1, 2""",
    "seconds": "select name, sum(dur) / 1e9 from slice where name = 'apply' group by 1",
    "load": "select count(*) from counter",
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(perfetto.lacking()), reason=perfetto.lacking() or "is here"),
]


def test_perfetto_shows_all_of_a_timeline(tmp_path: Path) -> None:
    run = simulate(
        {
            "algorithm": "dcasgd-a",
            "epochs": 1,
            "batch_size": 10,
            "lr": 0.1,
            "data": {"name": "synthetic", "num_train": 200, "num_test": 20, "shape": [4]},
            "model": {"name": "mlp", "hidden": (4,)},
        },
        workers=3,
        cluster={
            "delays": {"model": "gamma"},
            "network": {"latency_s": 0.02},
            "server": {"service_s": 0.05},
        },
        run_dir=tmp_path / "run",
    ).path
    made = timeline(run, tmp_path / "t.json").path
    found = perfetto.ask(made.read_bytes(), QUERIES, tmp_path)

    events = json.loads(made.read_text())["traceEvents"]
    names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    expected: dict[tuple[str, str], int] = {}
    for event in events:
        if event["ph"] == "X":
            key = names[event["tid"]], event["name"]
            expected[key] = expected.get(key, 0) + 1
    pushes = len(RunFolder(run).trace())
    assert found["complaints"] == []
    assert {(row, name): count for row, name, count, _ in found["rows"]} == expected
    assert {depth for *_, depth in found["rows"]} == {0}
    assert found["arrows"] == [["compute", "apply", pushes]]
    assert found["seconds"] == [["apply", pytest.approx(0.05 * pushes, rel=1e-3)]]
    assert found["load"] == [[pushes]]


def test_perfetto_complains_of_what_is_no_timeline(tmp_path: Path) -> None:
    """So that its silence above means something."""
    lost = {
        "ph": "f",
        "name": "push",
        "cat": "push",
        "id": 7,
        "pid": 1,
        "tid": 1,
        "ts": 5,
        "bp": "e",
    }
    apart = {"ph": "X", "name": "step", "cat": "step", "pid": 1, "tid": 1, "ts": 10, "dur": 5}
    over = {**apart, "ts": 12}
    trace = json.dumps({"traceEvents": [lost, apart, over]}).encode()
    found = perfetto.ask(trace, {"complaints": QUERIES["complaints"]}, tmp_path)
    assert found["complaints"] != []

"""Records of another form than a report relies on leave their run out, by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic_runs import synthetic_run

from mpi_dcasgd.reporting.collect import collect

DELETED = object()


def changed(values: dict[str, Any], key: str, value: Any) -> str:
    new = {name: old for name, old in values.items() if name != key}
    return json.dumps(new if value is DELETED else new | {key: value})


@pytest.mark.parametrize(
    ("event", "key", "value", "told"),
    [
        (None, "world_size", DELETED, "summary: world_size: got None"),
        (None, "world_size", 0, "summary: world_size: got 0; allowed: 1 or more"),
        (None, "model", ["mlp"], "summary: model: got ['mlp']"),
        ("evaluation", "time_s", None, "evaluation: time_s: got None; allowed: a number"),
        ("evaluation", "epoch", "x", "evaluation: epoch: got 'x'"),
        ("worker", "updates", DELETED, "worker: updates: got None"),
        ("worker", "wait_s", "x", "worker: wait_s: got 'x'"),
    ],
)
def test_a_run_with_a_value_of_another_form_is_left_out(
    tmp_path: Path, event: str | None, key: str, value: Any, told: str
) -> None:
    synthetic_run(tmp_path, seed=1, epochs=1)
    run = synthetic_run(tmp_path, seed=2, epochs=1)
    if event is None:
        file = run / "summary.json"
        file.write_text(changed(json.loads(file.read_text()), key, value))
    else:
        file = run / "metrics.jsonl"
        events = [json.loads(line) for line in file.read_text().splitlines()]
        lines = [
            changed(each, key, value) if each["event"] == event else json.dumps(each)
            for each in events
        ]
        file.write_text("\n".join(lines) + "\n")
    found = collect([tmp_path])
    assert [each.seed for each in found.runs] == [1]
    (left_out,) = found.unfinished
    assert (left_out.path, left_out.status) == (run, "unreadable")
    assert told in left_out.reason


@pytest.mark.parametrize("lines", [0, 2])
def test_a_record_that_was_cut_off_is_left_out(tmp_path: Path, lines: int) -> None:
    synthetic_run(tmp_path, seed=1, epochs=1)
    file = synthetic_run(tmp_path, seed=2, epochs=1) / "metrics.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:lines]))
    found = collect([tmp_path])
    assert [each.seed for each in found.runs] == [1]
    (left_out,) = found.unfinished
    assert "have no end, though the run completed" in left_out.reason

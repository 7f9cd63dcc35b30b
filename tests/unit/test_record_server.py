"""What the real server says, through the recorder, is what the trace gives back."""

from __future__ import annotations

import io
import json
import random
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic.dataclasses import dataclass
from toy import World

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.record.description import RunDescription
from mpi_dcasgd.record.recorder import Recorder
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.settings import RecordSettings
from mpi_dcasgd.record.trace import read_trace
from mpi_dcasgd.rules.admission import AcceptAll, Admission, Verdict
from mpi_dcasgd.rules.part import Facts
from mpi_dcasgd.server.records import Action


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DropVeryStale(Admission):
    def verdict(self, facts: Facts) -> Verdict:
        return "drop" if facts.staleness > 3 else "apply"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class HoldThree(Admission):
    def verdict(self, facts: Facts) -> Verdict:
        return "hold"

    def collect(self, num_workers: int) -> int:
        return 3


@pytest.mark.parametrize(
    ("admission", "action"),
    [(AcceptAll(), None), (DropVeryStale(), Action.DROPPED), (HoldThree(), Action.HELD)],
)
def test_versions_that_are_not_stored_are_those_of_the_server(
    tmp_path: Path, admission: Admission, action: Action | None
) -> None:
    folder = RunFolder.create(tmp_path / "run", name="toy", algorithm="asgd", now=datetime.now(UTC))
    world = World(4)
    world.server.rule = replace(world.server.rule, admission=admission)
    run = RunDescription(
        name="toy",
        algorithm="asgd",
        driver="test",
        num_workers=4,
        world_size=5,
        epochs=world.plan.epochs,
        seed=3,
        model="softmax",
        data="toy",
        batch_size=world.plan.batch_size,
        num_samples=world.plan.num_samples,
    )
    rng = random.Random(0)
    # Worker 0 is rarely chosen, so that it is far behind when it is.
    weights = {0: 1, 1: 6, 2: 6, 3: 6}
    world.run(lambda working: rng.choices(working, [weights[w] for w in working])[0])
    recorder = Recorder(folder, run, RecordSettings(), stream=io.StringIO(), environ={})
    recorder.started(0.0)
    told = [answer.record for answer in world.answers]
    for number, record in enumerate(told):
        recorder.update(record, 0.001 * number)
    recorder.ended("completed", 1.0)

    read = list(read_trace(folder.trace_bin, strict=True).records())
    keys = ("worker", "ticket", "version", "staleness", "action")
    assert [[getattr(r, k) for k in keys] for r in read] == [
        [getattr(r, k) for k in keys] for r in told
    ]
    if action is not None:
        assert action in {record.action for record in told}
    summary = json.loads(folder.summary_json.read_text())
    tally = world.server.tally
    assert summary["updates"] == tally.applied == world.server.version
    assert summary["samples"] == world.server.samples == world.plan.total_samples
    assert summary["dropped"] == tally.dropped
    assert {int(k): n for k, n in summary["staleness_histogram"].items()} == tally.staleness

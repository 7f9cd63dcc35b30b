"""Benchmark of the records of a run: what each push costs the server that writes them down.

Time of the processor, that of the thread which flushes the trace included: what else the machine
does weighs little in it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mpi_dcasgd.drivers.account import Account
from mpi_dcasgd.record.description import RunDescription
from mpi_dcasgd.record.recorder import Recorder
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.settings import RecordSettings
from mpi_dcasgd.server.records import Action, UpdateRecord
from mpi_dcasgd.tools.bench.spread import Spread, table

WORKERS = 8
PUSHES = 200_000
FORMS = ("nothing", "trace and metrics", "and where the time went")
"""What is recorded: a job with ``record.trace: false``, one without steps.bin, and any other."""

_RATE = 10_000  # pushes of a second: a line of metrics comes as often as in a fast run


@dataclass(frozen=True)
class Cost:
    """Cost of recording.

    Attributes:
        form: One of `FORMS`.
        push_s: Seconds of processor time a push.
        push_bytes: Bytes in the run folder a push.
    """

    form: str
    push_s: Spread
    push_bytes: float

    @property
    def one_percent(self) -> float:
        """Pushes a second of which recording takes 1 % of a core."""
        return 0.01 / self.push_s.median

    def entry(self) -> dict[str, Any]:
        """Return the numbers under their names."""
        numbers = {"push_bytes": self.push_bytes, "pushes_per_s_at_1_percent": self.one_percent}
        return {"form": self.form, **self.push_s.entry("push_s"), **numbers}


def measure(pushes: int = PUSHES, rounds: int = 7) -> list[Cost]:
    """Record made-up pushes in each form, in turns.

    Args:
        pushes: Of a sample.
        rounds: Samples of each form.
    """
    samples = [[_sample(form, pushes) for form in FORMS] for _ in range(rounds)]
    return [
        Cost(form, Spread.of([seconds for seconds, _ in column]), column[0][1])
        for form, column in zip(FORMS, zip(*samples, strict=True), strict=True)
    ]


def as_table(costs: Sequence[Cost]) -> str:
    """Return a Markdown table."""
    heads = ["recorded", "µs a push", "bytes a push", "pushes/s at 1 % of a core"]
    rows = [
        [
            cost.form,
            f"{1e6 * cost.push_s.median:.2f} "
            f"({1e6 * cost.push_s.least:.2f} to {1e6 * cost.push_s.most:.2f})",
            f"{cost.push_bytes:.1f}",
            f"{cost.one_percent:,.0f}",
        ]
        for cost in costs
    ]
    return table(heads, rows, words=1)


def _sample(form: str, pushes: int) -> tuple[float, float]:
    """Return seconds and bytes a push."""
    records = [_push(number) for number in range(pushes)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder.create(
            Path(scratch, "run"), name="bench", algorithm="asgd", now=datetime.now(UTC)
        )
        recorder = Recorder(folder, _run(), RecordSettings(trace=form != "nothing"), environ={})
        accounts = [Account(worker=worker) for worker in range(WORKERS)]
        if form == FORMS[-1]:
            recorder.follow(accounts, lambda: 0.0)
        begun_s = time.process_time()
        for number, record in enumerate(records):
            recorder.update(record, number / _RATE)
        recorder.close()
        spent_s = time.process_time() - begun_s
        written = sum(file.stat().st_size for file in folder.path.glob("*.*"))
    return spent_s / pushes, written / pushes


def _run() -> RunDescription:
    return RunDescription(
        name="bench",
        algorithm="asgd",
        driver="mpi",
        num_workers=WORKERS,
        world_size=WORKERS + 1,
        epochs=1000,
        seed=0,
        model="mlp",
        data="digits",
        batch_size=16,
        num_samples=1437,
    )


def _push(number: int) -> UpdateRecord:
    samples = 16 * (number + 1)
    return UpdateRecord(
        worker=number * 5 % WORKERS,
        ticket=number,
        version=number,
        staleness=min(number, WORKERS - 1),
        action=Action.APPLIED,
        samples=16,
        loss=1 / (1 + number),
        grad_norm=0.5,
        lr=0.1,
        total_samples=samples,
        epoch=samples / 1437,
    )

"""What all drivers do around the server: tell the time, evaluate, report."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from mpi_dcasgd.drivers.evaluator import Evaluator, Scored, Snapshot
from mpi_dcasgd.drivers.observer import Evaluation, Observer, Status, WorkerTotals
from mpi_dcasgd.learning.flat import FlatLayout
from mpi_dcasgd.server.records import Action, UpdateRecord
from mpi_dcasgd.server.server import ParameterServer


class Conductor:
    """Follows a server through a run, on the clock of one driver.

    Args:
        server: Whose samples decide when to evaluate.
        observer: Who is told.
        evaluator: Evaluates snapshots while training goes on.
        every: Epochs from one evaluation to the next; the final weights always are evaluated.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        server: ParameterServer,
        observer: Observer,
        evaluator: Evaluator,
        every: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server
        self._observer = observer
        self._evaluator = evaluator
        self._every = every
        self._clock = clock
        self._origin = clock()
        self._evaluated_at = -1
        self._loss_sum = 0.0
        self._loss_samples = 0

    @property
    def time_s(self) -> float:
        """Seconds since training began."""
        return self._clock() - self._origin

    def begin(self, startup_s: float) -> None:
        """Training begins now."""
        self._origin = self._clock()
        self._observer.started(startup_s)

    def after(self, record: UpdateRecord) -> None:
        """A push has been dealt with."""
        self._observer.update(record, self.time_s)
        if record.action is Action.NONFINITE:
            self._observer.message(
                f"refused a gradient that is not finite: worker {record.worker}, "
                f"ticket {record.ticket}, version {record.version}, loss {record.loss}"
            )
            return
        if record.action is Action.DROPPED:
            return
        self._loss_sum += record.loss * record.samples
        self._loss_samples += record.samples
        stride = self._every * self._server.plan.num_samples
        if self._server.samples // stride > (self._server.samples - record.samples) // stride:
            self._submit(record.lr)
        self.poll()

    def poll(self) -> None:
        """Pass on evaluations that have finished meanwhile."""
        for scored in self._evaluator.collect():
            self._tell(scored)

    def message(self, text: str) -> None:
        """One line for people."""
        self._observer.message(text)

    def finish(
        self,
        totals: Sequence[WorkerTotals],
        *,
        reason: str = "",
        closing: Callable[[], None] = lambda: None,
    ) -> None:
        """Training is over: evaluate the final weights and close the record.

        Args:
            totals: Where each worker's time went.
            reason: Why the run stopped before its last ticket, if it did.
            closing: What has to be done before the record may say that the run has ended.
        """
        ended_s = self.time_s
        server = self._server
        if self._evaluated_at != server.version:
            self._submit(server.schedule(server.samples))
        for scored in self._evaluator.finish():
            self._tell(scored)
        for worker in totals:
            self._observer.worker(worker)
        closing()
        status: Status = "interrupted" if reason else "completed"
        self._observer.ended(
            status,
            ended_s,
            weights_sha256=weights_sha256(server.weights, server.layout),
            reason=reason,
        )

    def state_dict(self) -> dict[str, Any]:
        """What the next evaluation goes on from, in plain values."""
        return {
            "loss_sum": self._loss_sum,
            "loss_samples": self._loss_samples,
            "evaluated_at": self._evaluated_at,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        self._loss_sum = saved["loss_sum"]
        self._loss_samples = saved["loss_samples"]
        self._evaluated_at = saved["evaluated_at"]

    def _submit(self, lr: float) -> None:
        server = self._server
        self._evaluated_at = server.version
        mean_loss = self._loss_sum / self._loss_samples if self._loss_samples else float("nan")
        self._loss_sum, self._loss_samples = 0.0, 0
        self._evaluator.submit(
            Snapshot(
                weights=server.weights.clone(),
                version=server.version,
                samples=server.samples,
                epoch=server.samples // server.plan.num_samples,
                time_s=self.time_s,
                train_loss=mean_loss,
                lr=lr,
            )
        )

    def _tell(self, scored: Scored) -> None:
        snapshot = scored.snapshot
        self._observer.evaluation(
            Evaluation(
                time_s=snapshot.time_s,
                eval_s=scored.eval_s,
                version=snapshot.version,
                samples=snapshot.samples,
                epoch=snapshot.epoch,
                test_error=scored.test_error,
                test_loss=scored.test_loss,
                train_loss=snapshot.train_loss,
                lr=snapshot.lr,
            )
        )


def weights_sha256(weights: Tensor, layout: FlatLayout) -> str:
    """A name for exactly these weights: SHA-256 over parameters and statistics, pads left out."""
    digest = hashlib.sha256()
    cpu = weights.detach().cpu()
    for field in (*layout.params, *layout.stats):
        digest.update(cpu[field.offset : field.offset + field.size].numpy().tobytes())
    return digest.hexdigest()

"""Work that all drivers share around the server: keep time, evaluate, report."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from mpi_dcasgd.drivers.account import Account, add_up
from mpi_dcasgd.drivers.best_weights import BestWeights
from mpi_dcasgd.drivers.checkpointing import Checkpointer
from mpi_dcasgd.drivers.evaluator import Evaluator, Scored, WeightsCopy
from mpi_dcasgd.drivers.observer import Evaluation, Observer, Status
from mpi_dcasgd.learning.flat import FlatLayout
from mpi_dcasgd.pages import copy_of
from mpi_dcasgd.server.records import Action, UpdateRecord
from mpi_dcasgd.server.server import ParameterServer
from mpi_dcasgd.wording import counted


class Conductor:
    """Follows a server through a run, on the clock of one driver.

    Args:
        server: Whose samples decide when to evaluate.
        observer: Who is told.
        evaluator: Evaluates copies of the weights while training goes on.
        every: Epochs from one evaluation to the next; the final weights always are evaluated.
        clock: Seconds, monotonic.

    Attributes:
        checkpointer: Takes the state of the run, where there is to be one.
        meanwhile: Called many times a second while an evaluation is waited for.
        accounts: Where each worker's time went until now, in a driver that knows before the end.
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
        self._looked_at = server.samples
        self._loss_sum = 0.0
        self._loss_samples = 0
        self._unscored: deque[WeightsCopy] = deque()
        self._spent: list[Account] = []
        self._hangs = ""
        self.checkpointer: Checkpointer | None = None
        self.meanwhile: Callable[[], None] = lambda: None
        self.accounts: Callable[[], Sequence[Account]] = tuple

    def while_evaluating(self, alive: Callable[[], None]) -> None:
        """Have something called after each batch that is evaluated, on another thread."""
        self._evaluator.alive = alive

    @property
    def time_s(self) -> float:
        """Seconds since training began."""
        return self._clock() - self._origin

    def begin(self, startup_s: float) -> None:
        """Training begins now."""
        self._origin = self._clock()
        if self.checkpointer:
            self.checkpointer.begin()
        self._observer.started(startup_s)

    def resume(self, saved: Mapping[str, Any]) -> None:
        """Training has begun, and goes on where ``state_dict`` was taken."""
        self.load_state_dict(saved)
        if self.checkpointer:
            self.checkpointer.begin()
        server = self._server
        self._observer.message(
            f"resumed after {counted(server.samples / server.plan.num_samples, 'epoch', '.4g')}, "
            f"{counted(server.version, 'update')} and {self.time_s:.1f} s"
        )

    def after(self, record: UpdateRecord) -> None:
        """A push has been dealt with, and the server's books agree."""
        self.told(record)
        if record.action in (Action.APPLIED, Action.HELD):
            self.checkpoint()

    def told(self, record: UpdateRecord) -> None:
        """A push has been dealt with; the driver takes checkpoints at a moment of its own."""
        self._observer.update(record, self.time_s)
        before, self._looked_at = self._looked_at, self._server.samples
        if record.action in (Action.APPLIED, Action.HELD):
            self._loss_sum += record.loss * record.samples
            self._loss_samples += record.samples
        stride = self._every * self._server.plan.num_samples
        if self._looked_at // stride > before // stride:
            self._submit()
        if record.action is Action.NONFINITE:
            self._observer.message(
                f"refused a gradient that is not finite: worker {record.worker}, "
                f"ticket {record.ticket}, version {record.version}, loss {record.loss}"
            )
            return
        if record.action is Action.DROPPED:
            return
        self.poll()

    def checkpoint(self) -> None:
        """Save the state of the run if it is time to; never in the middle of a push."""
        if self.checkpointer:
            self.checkpointer.look()
            self._complain(self.checkpointer)

    def poll(self) -> None:
        """Pass on evaluations that have finished meanwhile."""
        for scored in self._evaluator.collect():
            self._tell(scored)
            self._complain(self._evaluator.best)

    def message(self, text: str) -> None:
        """One line for people."""
        self._observer.message(text)

    def fault(self, text: str, missing: Sequence[str]) -> None:
        """One line about a worker that is gone or back, and who is gone now."""
        self._observer.fault(text, missing)

    def stopping(self, *, wait: bool = False) -> None:
        """The run is to stop: save its state before workers are waited for.

        Args:
            wait: Return when it is saved; otherwise that is done in the background.
        """
        if self.checkpointer:
            self.checkpointer.last() if wait else self.checkpointer.take()
            self._complain(self.checkpointer)

    def finish(
        self,
        totals: Sequence[Account],
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
        self._spent, self.accounts = add_up(self._spent, totals), tuple
        if self.checkpointer:
            # First: the run that goes on has neither the evaluation nor the end that follow.
            self.checkpointer.last() if reason else self.checkpointer.finish()
            complaint = self._complain(self.checkpointer)
            reason = "; ".join(filter(None, (reason, complaint))) if reason else ""
        if self._evaluated_at != server.version:
            self._submit()
        for scored in self._evaluator.finish(lambda: self.meanwhile()):
            self._tell(scored)
        self._complain(self._evaluator.best)
        for account in self._spent:
            self._observer.worker(account)
        closing()
        status: Status = "interrupted" if reason else "completed"
        self._observer.ended(
            status,
            ended_s,
            weights_sha256=weights_sha256(server.weights, server.layout),
            finite_weights=bool(torch.isfinite(server.weights).all()),
            reason=reason,
        )

    def close(self) -> None:
        """End all threads, at the end of a run or in the middle of one that failed."""
        self._evaluator.close()
        if self.checkpointer:
            self.checkpointer.finish()

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run continues from, in plain values."""
        return {
            "loss_sum": self._loss_sum,
            "loss_samples": self._loss_samples,
            "evaluated_at": self._evaluated_at,
            "time_s": self.time_s,
            "spent": [asdict(account) for account in add_up(self._spent, self.accounts())],
            "unscored": [asdict(copy) for copy in self._unscored],
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        self._loss_sum = saved["loss_sum"]
        self._loss_samples = saved["loss_samples"]
        self._evaluated_at = saved["evaluated_at"]
        self._looked_at = self._server.samples
        self._origin = self._clock() - saved["time_s"]
        self._spent = [Account(**account) for account in saved["spent"]]
        for copy in saved["unscored"]:
            self._queue(WeightsCopy(**copy))

    def _complain(self, writer: Checkpointer | BestWeights | None) -> str:
        complaint = writer.complaint() if writer else ""
        if not complaint:
            return ""
        hangs = writer.hangs if isinstance(writer, Checkpointer) else self._hangs
        if hangs == self._hangs:
            self._observer.message(complaint)
        else:
            self._observer.fault(complaint, [hangs] if hangs else [])
        self._hangs = hangs
        return complaint

    def _submit(self) -> None:
        server = self._server
        self._evaluated_at = server.version
        mean_loss = self._loss_sum / self._loss_samples if self._loss_samples else float("nan")
        self._loss_sum, self._loss_samples = 0.0, 0
        self._queue(
            WeightsCopy(
                weights=copy_of(server.weights),
                version=server.version,
                samples=server.samples,
                epoch=server.samples // server.plan.num_samples,
                time_s=self.time_s,
                train_loss=mean_loss,
                lr=server.schedule(max(0, server.samples - 1)),
            )
        )

    def _queue(self, copy: WeightsCopy) -> None:
        self._unscored.append(copy)
        self._evaluator.submit(copy, lambda: self.meanwhile())

    def _tell(self, scored: Scored) -> None:
        copy = self._unscored.popleft()  # they are scored in order
        self._observer.evaluation(
            Evaluation(
                time_s=copy.time_s,
                eval_s=scored.eval_s,
                version=copy.version,
                samples=copy.samples,
                epoch=copy.epoch,
                test=scored.test,
                validation=scored.validation,
                train_loss=copy.train_loss,
                lr=copy.lr,
            )
        )


def weights_sha256(weights: Tensor, layout: FlatLayout) -> str:
    """A name for exactly these weights: SHA-256 over parameters and statistics, pads left out.

    Parameters are taken in the model's order, so that equal weights in other groups have one name.
    """
    digest = hashlib.sha256()
    cpu = weights.detach().cpu()
    for field in (*layout.in_model_order, *layout.stats):
        digest.update(cpu[field.offset : field.offset + field.size].numpy().tobytes())
    return digest.hexdigest()

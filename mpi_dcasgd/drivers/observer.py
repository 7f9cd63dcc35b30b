"""Observers: the interface by which drivers report on a run, without files or terminal.

A driver calls an :class:`Observer`; ``record/`` has the one that writes the run folder. All times
are ``time_s``, seconds on a monotonic clock since training began, so start-up and compilation are
kept apart from training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from mpi_dcasgd.drivers.account import Account
from mpi_dcasgd.server.records import UpdateRecord

Status = Literal["completed", "interrupted", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Result of evaluating one copy of the weights.

    Attributes:
        time_s: Time at which the copy was made, not at which its evaluation was done.
        eval_s: Duration of the evaluation.
        version: Updates applied in the copy.
        samples: Training samples applied in the copy.
        epoch: Whole passes over the training data that the copy has seen.
        test: Mean of each metric over the test split, by its name.
        validation: The same over the validation split; None where there is none.
        train_loss: Mean loss of the pushed minibatches since the evaluation before this one.
        lr: Learning rate of the schedule at the last sample before the copy.
    """

    time_s: float
    eval_s: float
    version: int
    samples: int
    epoch: int
    test: Mapping[str, float]
    validation: Mapping[str, float] | None = None
    train_loss: float
    lr: float

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> Evaluation:
        """Make one of its fields, as a checkpoint has them; version 0.1 had two of test's."""
        values = dict(saved)
        if "test" not in values:
            values["test"] = {name: values.pop(f"test_{name}") for name in ("error", "loss")}
        return cls(**values)

    @property
    def choosing(self) -> Mapping[str, float]:
        """The metrics that weights are chosen by: those of the validation split if there is one."""
        return self.test if self.validation is None else self.validation


class Observer(Protocol):
    """Receiver of a run's events. Calls come from one thread, in the order of ``time_s``."""

    def started(self, startup_s: float) -> None:
        """Report that training begins, after a start-up (imports, data, MPI, compilation)."""

    def update(self, record: UpdateRecord, time_s: float) -> None:
        """Report a push that the server has handled; must be fast, since there are many."""

    def evaluation(self, evaluation: Evaluation) -> None:
        """Report an evaluation."""

    def worker(self, account: Account) -> None:
        """Report where a worker's time went, at the end of the run."""

    def message(self, text: str) -> None:
        """Report a line for people and for the log."""

    def fault(self, text: str, missing: Sequence[str]) -> None:
        """Report that a worker is gone, or back.

        Args:
            text: A line for people and for the log.
            missing: All workers that are gone now, a few words each.
        """

    def ended(
        self,
        status: Status,
        time_s: float,
        *,
        weights_sha256: str = "",
        finite_weights: bool | None = None,
        reason: str = "",
    ) -> None:
        """Report the end of the run, after which nothing is reported.

        Args:
            status: Outcome of the run.
            time_s: Time at which training stopped.
            weights_sha256: SHA-256 of the final weights, if there are any.
            finite_weights: Whether none of them is NaN or infinite; None if nobody has looked.
            reason: Reason for the end, unless the run completed.
        """


class NullObserver:
    """Observer that ignores everything, for tests and benchmarks."""

    def started(self, startup_s: float) -> None:
        pass

    def update(self, record: UpdateRecord, time_s: float) -> None:
        pass

    def evaluation(self, evaluation: Evaluation) -> None:
        pass

    def worker(self, account: Account) -> None:
        pass

    def message(self, text: str) -> None:
        pass

    def fault(self, text: str, missing: Sequence[str]) -> None:
        pass

    def ended(
        self,
        status: Status,
        time_s: float,
        *,
        weights_sha256: str = "",
        finite_weights: bool | None = None,
        reason: str = "",
    ) -> None:
        pass


class Fanout:
    """Observer that passes everything on to several others, in the order given."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def started(self, startup_s: float) -> None:
        for observer in self._observers:
            observer.started(startup_s)

    def update(self, record: UpdateRecord, time_s: float) -> None:
        for observer in self._observers:
            observer.update(record, time_s)

    def evaluation(self, evaluation: Evaluation) -> None:
        for observer in self._observers:
            observer.evaluation(evaluation)

    def worker(self, account: Account) -> None:
        for observer in self._observers:
            observer.worker(account)

    def message(self, text: str) -> None:
        for observer in self._observers:
            observer.message(text)

    def fault(self, text: str, missing: Sequence[str]) -> None:
        for observer in self._observers:
            observer.fault(text, missing)

    def ended(
        self,
        status: Status,
        time_s: float,
        *,
        weights_sha256: str = "",
        finite_weights: bool | None = None,
        reason: str = "",
    ) -> None:
        for observer in self._observers:
            observer.ended(
                status,
                time_s,
                weights_sha256=weights_sha256,
                finite_weights=finite_weights,
                reason=reason,
            )

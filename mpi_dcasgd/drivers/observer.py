"""What a driver tells about a run while it goes on: facts only, no files and no terminal.

A driver calls an :class:`Observer`; ``record/`` holds the one that writes the run folder. All
times are ``time_s``, seconds on a monotonic clock since training began, so that start-up and
compilation are told apart from training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from mpi_dcasgd.drivers.account import Account
from mpi_dcasgd.server.records import UpdateRecord

Status = Literal["completed", "interrupted", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The test set, seen by one snapshot of the weights.

    Attributes:
        time_s: When the snapshot was taken, not when its evaluation was done.
        eval_s: How long the evaluation took.
        version: Updates applied in the snapshot.
        samples: Training samples applied in the snapshot.
        epoch: Whole passes over the training data that the snapshot has seen.
        test_error: Wrong answers over all answers, in [0, 1].
        test_loss: Mean loss over the test set.
        train_loss: Mean loss of the pushed minibatches since the evaluation before this one.
        lr: Learning rate of the schedule at the last sample before the snapshot.
    """

    time_s: float
    eval_s: float
    version: int
    samples: int
    epoch: int
    test_error: float
    test_loss: float
    train_loss: float
    lr: float


class Observer(Protocol):
    """Whoever wants to know. Calls come from one thread, in the order of ``time_s``."""

    def started(self, startup_s: float) -> None:
        """Training begins now; getting here (imports, data, MPI, compilation) took this long."""

    def update(self, record: UpdateRecord, time_s: float) -> None:
        """The server dealt with one push. Called for every one: it has to be quick."""

    def evaluation(self, evaluation: Evaluation) -> None:
        """A snapshot was evaluated."""

    def worker(self, account: Account) -> None:
        """A worker is done."""

    def message(self, text: str) -> None:
        """One line that a person should see and that belongs in the log."""

    def ended(
        self, status: Status, time_s: float, *, weights_sha256: str = "", reason: str = ""
    ) -> None:
        """The run is over; nothing is told after this.

        Args:
            status: How it ended.
            time_s: When training stopped.
            weights_sha256: Of the final weights, if there are any.
            reason: Why, unless it completed.
        """


class NullObserver:
    """Listens to nothing: for tests and for benchmarks of what is being observed."""

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

    def ended(
        self, status: Status, time_s: float, *, weights_sha256: str = "", reason: str = ""
    ) -> None:
        pass


class Fanout:
    """Tells several observers, in the order given."""

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

    def ended(
        self, status: Status, time_s: float, *, weights_sha256: str = "", reason: str = ""
    ) -> None:
        for observer in self._observers:
            observer.ended(status, time_s, weights_sha256=weights_sha256, reason=reason)

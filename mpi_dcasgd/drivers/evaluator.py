"""Evaluation of copies of the weights while training continues."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from mpi_dcasgd.drivers.best_weights import BestWeights
from mpi_dcasgd.learning.data import Split
from mpi_dcasgd.learning.evaluation import evaluate
from mpi_dcasgd.learning.flat import FlatModel
from mpi_dcasgd.learning.subject import Subject

MAX_PENDING = 4
"""Number of copies that may wait for evaluation; each is as large as the weights."""

_LOOK_EVERY_S = 0.1


@dataclass(frozen=True)
class WeightsCopy:
    """Weights to be evaluated, and where training stood when they were copied."""

    weights: Tensor
    version: int
    samples: int
    epoch: int
    time_s: float
    train_loss: float
    lr: float


@dataclass(frozen=True)
class Scored:
    """Result of an evaluation: the mean of each metric by its name.

    Attributes:
        test: On the test split.
        validation: On the validation split; None where there is none.
        eval_s: Duration of the evaluation.
    """

    test: Mapping[str, float]
    validation: Mapping[str, float] | None
    eval_s: float

    @property
    def choosing(self) -> Mapping[str, float]:
        """The metrics that weights are chosen by: those of the validation split if there is one."""
        return self.test if self.validation is None else self.validation


class Evaluator:
    """A thread with a model of its own. PyTorch releases the interpreter while it computes.

    Args:
        flat: A model that nobody else uses, on the device where evaluation is to run.
        subject: The task, and the splits that are evaluated.
        clock: Seconds, monotonic.
        background: On a thread of its own; otherwise whoever submits a copy waits for its score,
            and the order of a run's records is always the same.

    Attributes:
        best: Keeps the best weights, where they are to be kept.
        alive: Called after each batch that is evaluated, on whichever thread does so.
    """

    def __init__(
        self,
        flat: FlatModel,
        subject: Subject,
        clock: Callable[[], float] = time.monotonic,
        *,
        background: bool = True,
    ) -> None:
        self._flat = flat
        self._subject = subject
        self._clock = clock
        self._todo: queue.Queue[WeightsCopy | None] = queue.Queue(MAX_PENDING)
        self._done: queue.SimpleQueue[Scored | BaseException] = queue.SimpleQueue()
        self.best: BestWeights | None = None
        self.alive: Callable[[], None] = lambda: None
        self._thread: threading.Thread | None = None
        if background:
            self._thread = threading.Thread(target=self._run, name="evaluator", daemon=True)
            self._thread.start()

    def submit(self, copy: WeightsCopy, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Queue a copy for evaluation; block while ``MAX_PENDING`` others are before it.

        Args:
            copy: What to evaluate.
            meanwhile: Called many times a second while it blocks.
        """
        if self._thread is None:
            self._done.put(self._score(copy))
            return None
        while True:
            try:
                return self._todo.put(copy, timeout=_LOOK_EVERY_S)
            except queue.Full:
                meanwhile()

    def collect(self) -> list[Scored]:
        """Return the results since the last call, in order of submission.

        Raises:
            Exception: Whatever evaluation raised.
        """
        found: list[Scored] = []
        # Nobody else takes anything out, so what is there stays there.
        while not self._done.empty():
            result = self._done.get_nowait()
            if isinstance(result, BaseException):
                raise result
            found.append(result)
        return found

    def finish(self, meanwhile: Callable[[], None] = lambda: None) -> list[Scored]:
        """Wait for all that was submitted, end the thread and return the results.

        Args:
            meanwhile: Called many times a second.
        """
        if self._thread is not None:
            self._todo.put(None)
            while self._thread.is_alive():
                self._thread.join(_LOOK_EVERY_S)
                meanwhile()
        self._keep_best()
        return self.collect()

    def close(self) -> None:
        """End the thread, in the middle of a run that failed; results are lost."""
        if self._thread is not None and self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                while True:
                    self._todo.get_nowait()
            self._todo.put(None)
            self._thread.join()
        self._keep_best()

    def _keep_best(self) -> None:
        if self.best is not None:
            self.best.flush(self._flat)

    def _run(self) -> None:
        while (copy := self._todo.get()) is not None:
            try:
                self._done.put(self._score(copy))
            except BaseException as error:  # handed to the training thread, which raises it
                self._done.put(error)

    def _score(self, copy: WeightsCopy) -> Scored:
        started = self._clock()
        self._flat.weights.copy_(copy.weights)
        test, validation = self._measured(self._subject.test), None
        if self._subject.validation is not None:
            validation = self._measured(self._subject.validation)
        scored = Scored(test, validation, self._clock() - started)
        if self.best is not None:
            self.best.look(self._flat, scored.choosing, copy.weights, copy.version)
        return scored

    def _measured(self, split: Split) -> dict[str, float]:
        device = self._flat.weights.device
        return evaluate(self._flat.model, self._subject.task, split, device, alive=self.alive)

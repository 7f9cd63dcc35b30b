"""Training of a task's model: the batch and the gradient of a ticket.

A worker, the sequential driver and the simulator all ask the same two things of a learner: the
batch of a ticket (``load``, which may run ahead on another thread) and the gradient at the
weights that the flat model has read last, or holds (``gradient``).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mpi_dcasgd.errors import ConfigError, UserError
from mpi_dcasgd.learning.data.dataset import ResidentSplit, augments
from mpi_dcasgd.learning.flat import FlatModel
from mpi_dcasgd.learning.guard import failed
from mpi_dcasgd.learning.loaders.lookahead import Lookahead
from mpi_dcasgd.learning.loaders.split import LoadedSplit
from mpi_dcasgd.learning.models.factory import LONE_SAMPLE, lone_sample_problem
from mpi_dcasgd.learning.nest import to_device
from mpi_dcasgd.learning.settings import ComputeSettings
from mpi_dcasgd.learning.step import loss_of
from mpi_dcasgd.learning.subject import Subject
from mpi_dcasgd.learning.tickets import TicketPlan
from mpi_dcasgd.places import place_of
from mpi_dcasgd.wording import counted


class Batch(NamedTuple):
    """One ticket's samples, as the learner that loaded them takes them.

    Attributes:
        nest: Tensors on the device, as the task takes them; of a ``CapturedLearner`` what it makes
            them of.
    """

    ticket: int
    samples: int
    nest: Any


class Gradient(NamedTuple):
    """Result of a ticket; the vector itself is the flat model's ``grad``.

    Attributes:
        loss: Mean over the samples.
        norm: Euclidean norm of the gradient; not finite if any element is not.
        stats_finite: Whether the statistics behind the gradient are; None where nobody looked.
    """

    ticket: int
    samples: int
    loss: float
    norm: float
    stats_finite: bool | None = None


class Learner:
    """A task's model in training.

    Args:
        flat: The model bound to its vectors; it is trained on the vectors' device.
        subject: The task and its data.
        plan: Which samples belong to which ticket.
        compute: How gradients are computed; None for the defaults.
    """

    def __init__(
        self,
        flat: FlatModel,
        subject: Subject,
        plan: TicketPlan,
        compute: ComputeSettings | None = None,
    ) -> None:
        self.flat = flat
        self.subject = subject
        self.plan = plan
        self.device = flat.weights.device
        self.settings = ComputeSettings() if compute is None else compute
        self._train = subject.train
        self._loss = loss_of(subject.task.loss, self.settings, self.device)
        self._grad = flat.grad[: flat.layout.num_params]
        # To make a generator takes longer than to fetch a batch from memory.
        self._augments = augments(subject.train)
        self._is_resident = isinstance(subject.train, ResidentSplit)
        self._lookahead: Lookahead[Batch] | None = None
        if isinstance(subject.train, LoadedSplit):
            self._lookahead = Lookahead(self._begin, subject.train.at_once)

    @property
    def loads_in_background(self) -> bool:
        """False if batches must be loaded by the thread that computes with them."""
        return bool(getattr(self._train, "in_background", True))

    def expect(self, tickets: Iterable[int]) -> None:
        """Let processes begin with tickets that will be loaded, where processes load them."""
        if self._lookahead is not None:
            self._lookahead.expect(tickets)

    def load(self, ticket: int) -> Batch:
        """The ticket's samples, augmented with the ticket's own randomness."""
        if self._lookahead is not None:
            return self._lookahead.take(ticket)
        indices, rng = self._drawn(ticket)
        if self.settings.accumulate == 1:
            return Batch(ticket, len(indices), self._fetched(indices, rng))
        parts = self._parts(indices)
        return self._batch(ticket, parts, [self._fetched(part, rng) for part in parts])

    def skip(self, ticket: int) -> None:
        """Let go of a ticket that is not computed, though it was expected."""
        if self._lookahead is not None:
            self._lookahead.take(ticket)

    def gradient(self, batch: Batch) -> Gradient:
        """Mean gradient over the batch at the current weights, left in ``flat.grad``."""
        loss = self.compute(batch)
        return Gradient(batch.ticket, batch.samples, loss, norm_of(self._grad))

    def compute(self, batch: Batch) -> float:
        """Compute the gradient and return only the mean loss."""
        self._prepare(batch.ticket)
        if self.settings.accumulate == 1:
            return self._compute(batch.nest, batch.samples).item()
        total, done = 0.0, 0
        for samples, nest in batch.nest:
            share = samples / batch.samples
            loss = self._forward(nest, samples) * share
            self.flat.take_gradient(loss, more=done > 0)
            self.flat.note_statistics(share, more=done > 0)
            total += loss.item()
            done += samples
        return total

    def try_loss(self, batch: Batch) -> Tensor:
        """Compute the loss alone, of the batch's first part, with all that its gradient needs."""
        self._prepare(batch.ticket)
        samples, nest = batch.samples, batch.nest
        if self.settings.accumulate > 1:
            samples, nest = nest[0]
        return self._forward(nest, samples)

    def _drawn(self, ticket: int) -> tuple[NDArray[np.int64], np.random.Generator | None]:
        """Sample numbers of a ticket, and its own randomness if any is needed to load them."""
        return self.plan.indices(ticket), self.plan.generator(ticket) if self._augments else None

    def _begin(self, ticket: int) -> Callable[[], Batch]:
        """Begin to load a ticket; return a function that waits for it."""
        assert isinstance(self._train, LoadedSplit)
        indices, rng = self._drawn(ticket)
        parts = self._parts(indices)
        wait = self._train.begin(parts, rng)
        return lambda: self._batch(ticket, parts, [to_device(n, self.device) for n in wait()])

    def _parts(self, indices: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return np.array_split(indices, min(self.settings.accumulate, len(indices)))

    def _batch(
        self, ticket: int, parts: Sequence[NDArray[np.int64]], nests: Sequence[Any]
    ) -> Batch:
        samples = sum(map(len, parts))
        if self.settings.accumulate == 1:
            return Batch(ticket, samples, nests[0])
        sizes = (len(part) for part in parts)
        return Batch(ticket, samples, list(zip(sizes, nests, strict=True)))

    def _fetched(self, indices: NDArray[np.int64], rng: np.random.Generator | None) -> Any:
        nest = self._train.batch(indices, rng)
        return nest if self._is_resident else to_device(nest, self.device)

    def _prepare(self, ticket: int) -> None:
        # What is drawn must not depend on who computes the ticket, so its seed is the ticket's.
        seed = self.plan.torch_seed(ticket)
        _seed(seed, self.device)
        if not self.subject.task.capturable:
            random.seed(seed)
            np.random.seed(seed % 2**32)
        if not self.flat.model.training:
            self.flat.model.train()

    def _compute(self, nest: Any, samples: int) -> Tensor:
        """The mean loss; its gradient and the batch statistics are left in ``flat.grad``."""
        flat = self.flat
        loss = self._forward(nest, samples)
        flat.take_gradient(loss)
        flat.note_statistics()
        return loss.detach()

    def _forward(self, nest: Any, samples: int) -> Tensor:
        try:
            return self._loss(self.flat.model, nest)
        except UserError:
            raise
        except Exception as error:
            raise self._failed(error, samples) from error

    def _failed(self, error: Exception, samples: int) -> ConfigError:
        """Make the message about a loss that raised an exception, of so many samples."""
        what = f"{type(self.subject.task).__name__}.loss"
        if LONE_SAMPLE not in str(error):
            return failed(what, error)
        plan = self.plan
        if samples == 1:
            accumulate = self.settings.accumulate
            problem = lone_sample_problem(plan.num_samples, plan.batch_size, accumulate)
            return ConfigError(what, [problem + place_of(error)])
        given = f"it was given {counted(samples, 'sample')} (batch_size: {plan.batch_size})"
        return ConfigError(what, [f"{line}; {given}" for line in failed(what, error).problems])


def norm_of(vector: Tensor) -> float:
    """Euclidean norm; not finite only if the vector is not."""
    norm = float(torch.linalg.vector_norm(vector))
    if math.isfinite(norm):
        return norm
    # The squares of large but finite elements overflow in float32. Not float64 from the start:
    # on the CPU that takes four times as long, as long as a whole update.
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64))


def _seed(seed: int, device: torch.device) -> None:
    """Seed what the model may draw from on this device.

    ``torch.manual_seed`` also notes, with a formatted stack trace, that backends which nobody
    uses are to be seeded once they are: more than a small model's whole step.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    elif device.type == "cuda":
        torch.default_generator.manual_seed(seed)
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    else:
        torch.manual_seed(seed)

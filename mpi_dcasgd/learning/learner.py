"""Training of a model on a data set: the batch and the gradient of a ticket.

A worker, the sequential driver and the simulator all ask the same two things of a learner: the
batch of a ticket (``load``, which may run ahead on another thread) and the gradient at the
weights that the flat model has read last, or holds (``gradient``).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mpi_dcasgd.learning.data import Dataset, Split, augments
from mpi_dcasgd.learning.flat import FlatModel
from mpi_dcasgd.learning.tickets import TicketPlan

EVALUATION_BATCH = 512


class Batch(NamedTuple):
    """One ticket's samples, as the learner that loaded them takes them.

    Attributes:
        tensors: On the device, inputs (n, *shape) float32 and targets (n,) int64; of a
            ``CapturedLearner`` also what it makes them of.
    """

    ticket: int
    samples: int
    tensors: tuple[Tensor, ...]


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
    """A model on a data set.

    Args:
        flat: The model bound to its vectors; it is trained on the vectors' device.
        dataset: Where batches come from.
        plan: Which samples belong to which ticket.
    """

    def __init__(self, flat: FlatModel, dataset: Dataset, plan: TicketPlan) -> None:
        self.flat = flat
        self.dataset = dataset
        self.plan = plan
        self.device = flat.weights.device
        self._grad = flat.grad[: flat.layout.num_params]
        # To make a generator takes longer than to fetch a batch from memory.
        self._augments = augments(dataset.train)

    def load(self, ticket: int) -> Batch:
        """The ticket's samples, augmented with the ticket's own randomness."""
        indices, rng = self._drawn(ticket)
        inputs, targets = self.dataset.train.batch(indices, rng)
        if inputs.device != self.device:
            inputs = inputs.to(self.device, non_blocking=True)
            targets = targets.to(self.device, non_blocking=True)
        return Batch(ticket, len(indices), (inputs, targets))

    def gradient(self, batch: Batch) -> Gradient:
        """Mean gradient over the batch at the current weights, left in ``flat.grad``."""
        loss = self.compute(batch)
        return Gradient(batch.ticket, batch.samples, loss, norm_of(self._grad))

    def compute(self, batch: Batch) -> float:
        """Compute the gradient and return only the mean loss."""
        self._prepare(batch.ticket)
        return self._compute(*batch.tensors).item()

    def _drawn(self, ticket: int) -> tuple[NDArray[np.int64], np.random.Generator | None]:
        """Sample numbers of a ticket, and its own randomness if any is needed to load them."""
        return self.plan.indices(ticket), self.plan.generator(ticket) if self._augments else None

    def _prepare(self, ticket: int) -> None:
        # Dropout must not depend on who computes the ticket, so its seed is the ticket's.
        _seed(self.plan.torch_seed(ticket), self.device)
        if not self.flat.model.training:
            self.flat.model.train()

    def _compute(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss; its gradient and the batch statistics are left in ``flat.grad``."""
        flat = self.flat
        loss = cross_entropy(flat.model(inputs), targets)
        flat.take_gradient(loss)
        flat.note_statistics()
        return loss.detach()

    def warm_up(self) -> None:
        """Compute a gradient and forget it: the first one in a process costs extra.

        Leaves batch statistics behind the weights and the gradient in ``flat.grad``; both are
        overwritten by the next pull and the next gradient.
        """
        self.gradient(self.load(0))


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


@torch.no_grad()
def evaluate(model: nn.Module, split: Split, device: torch.device) -> dict[str, float]:
    """Measure ``model`` on a split, in evaluation mode.

    Returns:
        Metric to its mean: the error as a fraction of 1, and the loss.
    """
    model.eval()
    wrong, loss = 0, 0.0
    for start in range(0, len(split), EVALUATION_BATCH):
        indices = np.arange(start, min(start + EVALUATION_BATCH, len(split)), dtype=np.int64)
        inputs, targets = (t.to(device) for t in split.batch(indices, None))
        scores = model(inputs)
        wrong += int((scores.argmax(1) != targets).sum())
        loss += float(cross_entropy(scores, targets, reduction="sum"))
    return {"error": wrong / len(split), "loss": loss / len(split)}

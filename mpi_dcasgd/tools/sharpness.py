"""The largest curvature of a task's training loss, by Lanczos' method on Hessian-vector products.

Curvature is that of the loss as training sees it: minibatches as they are trained on, with their
augmentation and dropout, and BatchNorm by the minibatch. Where parameter groups have factors f of
the learning rate, it is that of the weights divided by the root of f, since one rate acts on those.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from mpi_dcasgd.errors import ConfigError, UserError
from mpi_dcasgd.learning.guard import failed
from mpi_dcasgd.learning.learner import Batch, Learner

Product = Callable[[Tensor], Tensor]

_BASIS = 40
"""Vectors, each as large as the model, that are kept at a time."""

_ROUNDS = 10  # restarts from the best vector so far


@dataclass(frozen=True)
class Largest:
    """The largest eigenvalue of a symmetric matrix.

    Attributes:
        value: The estimate; never above the largest eigenvalue but for rounding.
        error: Norm of what the matrix makes of the unit vector found less ``value`` times it: an
            eigenvalue lies within this distance of ``value``.
        products: Products of the matrix with a vector that it took.
    """

    value: float
    error: float
    products: int


def largest_eigenvalue(product: Product, start: Tensor, tolerance: float = 1e-3) -> Largest:
    """Find the largest eigenvalue, the most positive one, of a symmetric matrix.

    Args:
        product: Multiplies the matrix with a vector, shape (n,).
        start: A random vector, shape (n,).
        tolerance: Error wanted, relative to the value.

    Returns:
        The best that was found; its error says whether the tolerance was reached.

    Example:
        >>> diagonal = torch.tensor([1.0, -7.0, 3.0])
        >>> round(largest_eigenvalue(lambda v: diagonal * v, torch.ones(3)).value, 4)
        3.0
    """
    products, best = 0, start / torch.linalg.vector_norm(start)
    for _ in range(_ROUNDS):
        best, made = _ritz(product, best, tolerance)
        image = product(best)
        products += made + 1
        value = float(best @ image)
        # Not what the recurrence says of its own error: this one has its rounding, too.
        error = float(torch.linalg.vector_norm(image - value * best))
        if not error > tolerance * abs(value):  # also if it is no number
            break
    return Largest(value, error, products)


def _ritz(product: Product, start: Tensor, tolerance: float) -> tuple[Tensor, int]:
    """The best unit vector of one Krylov space, and the products that it took."""
    size = min(_BASIS, len(start))
    basis = torch.empty(size, len(start), dtype=start.dtype, device=start.device)
    basis[0] = start
    tridiagonal = torch.zeros(size, size, dtype=torch.float64)
    for step in range(size):
        ahead = product(basis[step])
        known = basis[: step + 1]
        tridiagonal[step, step] = float(basis[step] @ ahead)
        for _ in range(2):  # the second time for what rounding has left
            ahead = ahead - known.T @ (known @ ahead)
        off = float(torch.linalg.vector_norm(ahead))
        inner = tridiagonal[: step + 1, : step + 1]
        if not (math.isfinite(off) and bool(torch.isfinite(inner).all())):
            return torch.full_like(start, math.nan), step + 1
        values, vectors = torch.linalg.eigh(inner)
        left = off * abs(float(vectors[-1, -1]))
        scale = float(values.abs().max())
        enough = left <= 0.5 * tolerance * abs(float(values[-1])) or off <= 1e-6 * scale
        if enough or step + 1 == size:
            break
        basis[step + 1] = ahead / off
        tridiagonal[step, step + 1] = tridiagonal[step + 1, step] = off
    found = known.T @ vectors[:, -1].to(known)
    return found / torch.linalg.vector_norm(found), step + 1


def largest_curvature(
    learner: Learner, samples: int, tolerance: float = 1e-3
) -> tuple[Largest, int]:
    """Find the largest eigenvalue of the Hessian of the training loss at the learner's weights.

    Args:
        learner: Its model has the weights; no gradient of it is recorded.
        samples: Training samples whose mean loss is taken: whole minibatches, those that
            training begins with, at least so many or all.
        tolerance: Error wanted, relative to the value.

    Returns:
        The curvature, and the samples that it was taken over.

    Raises:
        ConfigError: The loss is not finite at these weights, or has no second derivatives.
    """
    batches: list[Batch] = []
    seen, tickets = 0, learner.plan.tickets_per_epoch
    for ticket in range(tickets):
        if seen >= samples:
            break
        batches.append(learner.load(ticket))
        seen += batches[-1].samples
    curvature = _Curvature(learner, batches)
    rng = torch.Generator().manual_seed(0)
    start = torch.randn(curvature.size, generator=rng).to(learner.device)
    found = largest_eigenvalue(curvature, start, tolerance)
    if not math.isfinite(found.value):
        raise ConfigError(
            "sharpness",
            ["the loss or its curvature is not finite at these weights; did the run diverge?"],
        )
    return found, seen


class _Curvature:
    """Product of the Hessian of the mean loss of minibatches with a vector."""

    def __init__(self, learner: Learner, batches: Sequence[Batch]) -> None:
        layout = learner.flat.layout
        named = dict(learner.flat.model.named_parameters())
        self._learner, self._batches = learner, batches
        self._tried = False
        self._params = [named[field.name] for field in layout.params]
        factors = [
            next((s.lr for s in layout.stretches if s.begin <= field.offset < s.end), 1.0)
            for field in layout.params
        ]
        self._roots = [math.sqrt(factor) for factor in factors]
        self.size = sum(parameter.numel() for parameter in self._params)

    def __call__(self, vector: Tensor) -> Tensor:
        sizes = [parameter.numel() for parameter in self._params]
        parts = [
            root * part.view_as(parameter)
            for root, part, parameter in zip(
                self._roots, torch.split(vector, sizes), self._params, strict=True
            )
        ]
        total = torch.zeros_like(vector)
        samples = sum(batch.samples for batch in self._batches)
        for batch in self._batches:
            turned = self._of(batch, parts)
            flat = [root * one.reshape(-1) for root, one in zip(self._roots, turned, strict=True)]
            total += torch.cat(flat) * (batch.samples / samples)
        return total

    def _of(self, batch: Batch, parts: Sequence[Tensor]) -> Sequence[Tensor]:
        try:
            with _twice_differentiable():
                loss = self._learner.try_loss(batch)
                grads = torch.autograd.grad(
                    loss, self._params, create_graph=True, allow_unused=True, materialize_grads=True
                )
                slope = sum((g * p).sum() for g, p in zip(grads, parts, strict=True))
                if not isinstance(slope, Tensor) or not slope.requires_grad:
                    return [torch.zeros_like(part) for part in parts]  # the loss is linear
                if not self._tried:
                    # A pass that is asked for certain inputs walks around a function which can
                    # be differentiated once only, without a word; this one raises.
                    torch.autograd.backward(slope, retain_graph=True)
                    self._tried = True
                return torch.autograd.grad(
                    slope, self._params, allow_unused=True, materialize_grads=True
                )
        except UserError:
            raise
        except RuntimeError as error:
            name = type(self._learner.subject.task).__name__
            raise failed(f"second derivative of {name}.loss", error) from error


@contextmanager
def _twice_differentiable() -> Iterator[None]:
    """Compute attention and recurrent layers by kernels that have second derivatives."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=False):
        yield

"""The weights, and all that an update of them reads and writes beside a worker's snapshot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor

from mpi_dcasgd.learning.flat import FlatLayout
from mpi_dcasgd.learning.learner import norm_of
from mpi_dcasgd.rules.chain import Chain, Rule
from mpi_dcasgd.rules.fuse import Fuse
from mpi_dcasgd.rules.part import Facts
from mpi_dcasgd.rules.stretch import lasting_rate
from mpi_dcasgd.server.accumulator import GradientAccumulator
from mpi_dcasgd.server.passage import Passage, Undo
from mpi_dcasgd.server.state import saved


class ModelState:
    """Weights with running statistics, the rule that updates them, and the gradients it holds.

    Args:
        weights: Initial ``[parameters | statistics]``, shape (layout.size,); updated in place.
        layout: Layout of the weights; parameters come before statistics.
        rule: Rule that applies gradients.
        schedule: Learning rate by samples applied.
        num_workers: Number of workers.
        stats_rate: Share by which running statistics move towards pushed ones, (num_stats,).
        fuse: Way in which an update is computed (``rules.chain.Chain``).
        cuts: Elements at which all chunks but the first begin, of vectors that come in chunks.

    Attributes:
        version: Number of updates so far.
        samples: Number of samples applied so far; counted by the server.
    """

    def __init__(
        self,
        weights: Tensor,
        layout: FlatLayout,
        rule: Rule,
        schedule: Callable[[int], float],
        num_workers: int,
        stats_rate: Tensor,
        fuse: Fuse,
        cuts: Sequence[int] = (),
    ) -> None:
        self.weights = weights
        self.layout = layout
        self.schedule = schedule
        self.chain = Chain(
            rule,
            weights[: layout.num_params],
            num_workers,
            fuse,
            stretches=layout.stretches,
            cuts=cuts,
        )
        self._pieces = [slice(*ends) for ends in pairwise((0, *cuts, layout.num_params))]
        self._undo = Undo()
        self.version = 0
        self.samples = 0
        self._num_workers = num_workers
        self._stats_rate = stats_rate.to(weights.device)
        self._lr_max = 0.0
        self._rate: float | None = None  # to look ahead with, of the last update
        self._held = GradientAccumulator(layout.size, weights.device, weights.dtype)

    @property
    def num_held(self) -> int:
        """Number of gradients that are held for a common step."""
        return self._held.count

    def facts(self, worker: int, staleness: int, grad_norm: float) -> Facts:
        """Return what the rule is told about a push, at the present rate and version."""
        rate = self.schedule(self.samples)
        self._lr_max = max(self._lr_max, rate)
        return Facts(
            lr=rate,
            lr_max=self._lr_max,
            staleness=staleness,
            version=self.version,
            worker=worker,
            num_workers=self._num_workers,
            grad_norm=grad_norm,
        )

    def apply(
        self, vector: Tensor, snapshot: Tensor, facts: Facts, passage: Passage | None = None
    ) -> float:
        """Make one update, and renew the snapshot of the worker that pushed.

        Args:
            vector: ``[gradient | statistics]``, shape (layout.size,); left as it is.
            snapshot: The weights that the worker was sent, shape (layout.size,); becomes those
                that it is sent next.
            facts: What is known about the push.
            passage: Brings the vector chunk by chunk; None if all of it is there.

        Returns:
            The learning rate of the update.

        Raises:
            BrokenOffError: The vector is not all there; nothing has changed.
        """
        if passage is None:
            weights, grad, sent = self.weights, vector, snapshot
            if self.layout.num_stats:
                border = self.layout.num_params
                weights, grad, sent = weights[:border], vector[:border], snapshot[:border]
                self._apply_statistics(vector, snapshot)
            rate = self.chain.apply(weights, grad, sent, facts)
        else:
            rate = self._apply_chunks(vector, snapshot, facts, passage)
        self._rate = lasting_rate(self.chain.rule, facts)
        self.version += 1
        return rate

    def _apply_statistics(self, vector: Tensor, snapshot: Tensor) -> None:
        border = self.layout.num_params
        stats = self.weights[border:]
        stats.lerp_(vector[border:], self._stats_rate)
        snapshot[border:].copy_(stats)

    def _apply_chunks(
        self, vector: Tensor, snapshot: Tensor, facts: Facts, passage: Passage
    ) -> float:
        """Make the update chunk by chunk as the push comes in, or leave everything as it was."""
        chain, undo, worker = self.chain, self._undo, facts.worker
        border = self.layout.num_params
        weights, grad, sent = self.weights[:border], vector[:border], snapshot[:border]
        rate = chain.begin(facts)
        try:
            for chunk, piece in enumerate(self._pieces):
                if not passage.arrive(chunk):
                    state = chain.state_of_chunk(chunk, worker)
                    undo.keep((weights[piece], sent[piece], *state))
                chain.apply_chunk(chunk, weights, grad, sent, worker)
                if piece.stop == border and self.layout.num_stats:  # they are in the last chunk
                    self._apply_statistics(vector, snapshot)
                passage.leave(chunk)
        except BaseException:
            # Chunks of the snapshot that are being sent are sent again.
            undo.restore()
            raise
        undo.forget()
        return rate

    def hold(self, vector: Tensor, samples: int, facts: Facts) -> None:
        """Keep a gradient, a mean over ``samples``, for a common step.

        Args:
            vector: As of ``apply``.
            samples: Of the push.
            facts: What is known about the push.
        """
        self._held.add(vector, samples)

    def apply_held(self, snapshot: Tensor, facts: Facts) -> float:
        """Make one update along the mean of the held gradients; arguments as of ``apply``."""
        mean = self._held.take()
        norm = norm_of(mean[: self.layout.num_params])
        return self.apply(mean, snapshot, facts._replace(grad_norm=norm))

    def send(self, worker: int, snapshot: Tensor) -> None:
        """Renew a worker's snapshot without an update."""
        self.renew(snapshot, self.facts(worker, 0, 0.0))

    def renew(self, snapshot: Tensor, facts: Facts) -> None:
        """Renew the snapshot of the worker that ``facts`` are of, without an update."""
        border = self.layout.num_params
        self.chain.send(self.weights[:border], snapshot[:border], facts, self._rate)
        snapshot[border:].copy_(self.weights[border:])

    def state_dict(self) -> dict[str, Any]:
        """Return the state in plain values; tensors are copies on the CPU."""
        return {
            "weights": saved(self.weights),
            "version": self.version,
            "samples": self.samples,
            "rule": {
                name: [saved(vector) for vector in vectors]
                for name, vectors in self.chain.state_dict().items()
            },
            "held": self._held.state_dict(),
            "lr_max": self._lr_max,
            "rate": self._rate,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``, with as many workers; further keys are ignored."""
        self._load(state)
        self.chain.load_state_dict(state["rule"])

    def take_over(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``, with any number of workers (``Chain.take_over``)."""
        self._load(state)
        self.chain.take_over(state["rule"])

    def _load(self, state: Mapping[str, Any]) -> None:
        self.weights.copy_(state["weights"])
        self.version = state["version"]
        self.samples = state["samples"]
        self._held.load_state_dict(state["held"])
        self._lr_max = state["lr_max"]
        self._rate = state.get("rate")  # missing in the first checkpoints

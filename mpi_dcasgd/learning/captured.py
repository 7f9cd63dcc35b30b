"""A gradient's computation recorded once, and launched from then on as a whole.

On a GPU a small network's step is hundreds of kernels of a few microseconds each, and launching
them one by one takes longer than they do. A CUDA graph launches all of them at once: making the
batch of samples that lie on the device, augmentation, forward and backward pass, the copy into the
flat vector and its norm. What changes from ticket to ticket goes into memory that stays where it
is: the recipe of the batch, the weights, the seed. What comes out is one small vector, read once.

The graph does the same operations in the same order, so it finds the same bits.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning.data import ResidentSplit
from mpi_dcasgd.learning.flat import FlatModel
from mpi_dcasgd.learning.learner import Batch, Gradient, Learner, norm_of
from mpi_dcasgd.learning.nest import map_tensors, tensors_of
from mpi_dcasgd.learning.settings import ComputeSettings
from mpi_dcasgd.learning.subject import Subject
from mpi_dcasgd.learning.tickets import TicketPlan

_WARM_UPS = 3  # what cuDNN, cuBLAS and autograd set up at their first calls cannot be recorded

_log = logging.getLogger(__name__)


class Graphs(Protocol):
    """Records device work so that all of it can be launched at once."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Do ``work`` some times, then record it; the result repeats it on the same memory.

        Raises:
            RuntimeError: It cannot be recorded: it waits for the device, say.
        """
        ...


class CudaGraphs:
    """CUDA graphs of one device that share their memory: only one of them runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        with torch.cuda.device(self._device):
            beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            beside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(beside):
                for _ in range(_WARM_UPS):
                    work()
            torch.cuda.current_stream().wait_stream(beside)
            graph = torch.cuda.CUDAGraph()
            # Horovod's and NCCL's own threads may ask the device something meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                work()
        return graph.replay


class _Step(NamedTuple):
    """The gradient of batches of one size: ``repeat`` reads them from ``inputs``."""

    inputs: list[Tensor]
    repeat: Callable[[], None]


class CapturedLearner(Learner):
    """A learner whose gradient is recorded once for each size of batch.

    A model that cannot be recorded is computed as ``Learner`` does, after a warning.

    Args:
        flat: The model bound to its vectors, which stay where they are.
        subject: The task and its data; a ``ResidentSplit`` makes batches within the graph.
        plan: Which samples belong to which ticket.
        graphs: Records.
        compute: How gradients are computed, in one part.
    """

    def __init__(
        self,
        flat: FlatModel,
        subject: Subject,
        plan: TicketPlan,
        graphs: Graphs,
        compute: ComputeSettings | None = None,
    ) -> None:
        super().__init__(flat, subject, plan, compute)
        self._graphs: Graphs | None = graphs
        self._steps: dict[tuple[torch.Size, ...], _Step] = {}
        # Loss, norm of the gradient, whether the statistics are finite: one wait for all three.
        self._told = torch.zeros(3, device=self.device)

    @property
    def captured(self) -> bool:
        """True until a gradient could not be recorded."""
        return self._graphs is not None

    def load(self, ticket: int) -> Batch:
        """The recipe of the ticket's batch where the samples are on the device, else the batch."""
        train = self._train
        if not isinstance(train, ResidentSplit):
            return super().load(ticket)
        indices, rng = self._drawn(ticket)
        recipe = torch.from_numpy(train.recipe(indices, rng))
        return Batch(ticket, len(indices), recipe)

    def gradient(self, batch: Batch) -> Gradient:
        self._prepare(batch.ticket)
        given_tensors = tensors_of(batch.nest)
        shapes = tuple(tensor.shape for tensor in given_tensors)
        step = self._steps.get(shapes)
        if step is None:
            step = self._record(batch)
            if self.captured:
                self._steps[shapes] = step
        for mine, given in zip(step.inputs, given_tensors, strict=True):
            mine.copy_(given, non_blocking=True)
        step.repeat()
        loss, norm, stats_finite = self._told.tolist()
        if not math.isfinite(norm):
            norm = norm_of(self._grad)
        return Gradient(batch.ticket, batch.samples, loss, norm, bool(stats_finite))

    def compute(self, batch: Batch) -> float:
        return self.gradient(batch).loss

    def try_loss(self, batch: Batch) -> Tensor:
        if isinstance(self._train, ResidentSplit):
            batch = batch._replace(nest=self._train.make(batch.nest.to(self.device)))
        return super().try_loss(batch)

    def _record(self, batch: Batch) -> _Step:
        nest = map_tensors(lambda tensor: tensor.to(self.device, copy=True), batch.nest)
        inputs = tensors_of(nest)

        def work() -> None:
            self._work(nest, batch.samples)

        if self._graphs is None:
            return _Step(inputs, work)
        # Recording computes, and with `batchnorm: latest` that moves the statistics.
        before = self.flat.weights.clone()
        try:
            return _Step(inputs, self._graphs.record(work))
        except (RuntimeError, ConfigError) as error:
            self._graphs = None
            cause = error.__cause__ or error
            reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
            _log.warning(
                "gradients are computed kernel by kernel, which is slower for a small model: the "
                "computation cannot be recorded as a graph (%s); `capture: off` does not try",
                reason,
            )
            return _Step(inputs, work)
        finally:
            self.flat.weights.copy_(before)
            self._prepare(batch.ticket)

    def _work(self, nest: Any, samples: int) -> None:
        train, told = self._train, self._told
        made = train.make(nest) if isinstance(train, ResidentSplit) else nest
        told[0].copy_(self._compute(made, samples))
        told[1].copy_(torch.linalg.vector_norm(self._grad))
        told[2].copy_(torch.isfinite(self.flat.grad[self.flat.layout.num_params :]).all())


def make_learner(
    flat: FlatModel,
    subject: Subject,
    plan: TicketPlan,
    compute: ComputeSettings | None = None,
    *,
    capture: bool = True,
) -> Learner:
    """Make the learner for the model's device: recorded on a GPU, if that is wanted and can be."""
    device = flat.weights.device
    whole = compute is None or compute.accumulate == 1
    if capture and device.type == "cuda" and subject.task.capturable and whole:
        return CapturedLearner(flat, subject, plan, CudaGraphs(device), compute)
    return Learner(flat, subject, plan, compute)

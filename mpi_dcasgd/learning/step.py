"""The forward pass of a worker: the task's loss, computed as the job's ``compute`` section says."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning.nest import map_tensors, tensors_of
from mpi_dcasgd.learning.settings import ComputeSettings

Loss = Callable[[nn.Module, Any], Tensor]

_FORMS = 8
"""Forms of minibatches that are compiled: PyTorch's own limit, beyond which it stops compiling."""


def loss_of(loss: Loss, compute: ComputeSettings, device: torch.device) -> Loss:
    """Make the function that computes a loss in the way that is wanted.

    Args:
        loss: The task's.
        compute: The job's section.
        device: Where the model is.

    Returns:
        ``loss`` itself where nothing else is wanted.
    """
    made = _compiled(loss) if compute.compile else loss
    if compute.precision == "bfloat16":
        made = _in_bfloat16(made, device)
    return _channels_last(made) if compute.channels_last else made


def _compiled(loss: Loss) -> Loss:
    with _without_warnings():
        # Never with dynamic shapes: which sizes a worker met first would then decide about the
        # bits.
        made: Loss = torch.compile(loss, dynamic=False)
    forms: set[tuple[torch.Size, ...]] = set()

    def compiled(model: nn.Module, nest: Any) -> Tensor:
        form = tuple(tensor.shape for tensor in tensors_of(nest))
        if form in forms:
            return made(model, nest)
        forms.add(form)
        if len(forms) > _FORMS:
            raise ConfigError(
                "compute",
                [
                    f"compile: minibatches of more than {_FORMS} different shapes; pad samples to "
                    "one shape, or omit compile"
                ],
            )
        with _without_warnings():
            return made(model, nest)

    return compiled


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Leave out what the compiler warns of in PyTorch's own code, which nobody here can mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _in_bfloat16(loss: Loss, device: torch.device) -> Loss:
    def rounded(model: nn.Module, nest: Any) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            return loss(model, nest).float()

    return rounded


def _channels_last(loss: Loss) -> Loss:
    def turned(model: nn.Module, nest: Any) -> Tensor:
        return loss(model, map_tensors(_turned, nest))

    return turned


def _turned(tensor: Tensor) -> Tensor:
    if tensor.dim() != 4 or not tensor.is_floating_point():
        return tensor
    return tensor.contiguous(memory_format=torch.channels_last)

"""Check a model against its data, on shapes alone, before a run starts.

The meta device computes shapes without memory, so that this costs next to nothing at any size.
Jobs are checked without it, by what the models themselves know (``ModelSource.fits``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning.data.dataset import Facts
from mpi_dcasgd.learning.models.base import ModelSource
from mpi_dcasgd.learning.models.factory import (
    LONE_SAMPLE,
    build_model,
    lone_sample,
    lone_sample_problem,
)


def without_memory(model: ModelSource, data: Facts) -> nn.Module:
    """Build the model as shapes, or, if it computes while it is built, as it is.

    Raises:
        ConfigError: It does not take the data; keys relative to ``model``.
    """
    try:
        with torch.device("meta"):
            return build_model(model, data.input_shape, data.num_classes)
    except (NotImplementedError, RuntimeError):
        return build_model(model, data.input_shape, data.num_classes)


def check_last_batch(
    model: ModelSource,
    data: Facts,
    batch_size: int,
    module: nn.Module | None = None,
    *,
    accumulate: int = 1,
) -> list[str]:
    """Find out whether the model trains on an epoch's last minibatch if that is a single sample.

    Args:
        model: The settings.
        data: The sizes of what it is trained on.
        batch_size: Of one worker.
        module: From ``without_memory``, if it has been built already.
        accumulate: Parts that a minibatch is computed in.

    Returns:
        The problem, beginning with the key of the job, or nothing.
    """
    sizes = data.num_train, batch_size, accumulate
    if not lone_sample(*sizes):
        return []
    if model.shapes_known:
        takes = model.takes_one_sample(data.input_shape)
    else:
        takes = _trains_on_one(module or without_memory(model, data), data.input_shape)
    return [] if takes else [lone_sample_problem(*sizes)]


def check_output(
    module: nn.Module,
    name: str,
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    tokens: bool = False,
) -> None:
    """Run the model on shapes alone and look at what comes out.

    Args:
        module: The model.
        name: Its name, for messages.
        input_shape: Of a sample.
        num_classes: Scores that it must give, for each sample or each token.
        tokens: Samples are windows of tokens, whole numbers.

    Raises:
        ConfigError: It does not take such samples, or gives no score for each class.
    """
    tensors = {
        key: torch.empty_like(tensor, device="meta")
        for key, tensor in (*module.named_parameters(), *module.named_buffers())
    }
    kind = torch.int64 if tokens else torch.float32
    inputs = torch.empty((2, *input_shape), dtype=kind, device="meta")
    module.eval()
    try:
        with torch.no_grad():
            outputs = torch.func.functional_call(module, tensors, (inputs,))
    except NotImplementedError:
        return  # an operator that has no meta kernel: then training will tell
    except (RuntimeError, ValueError, AssertionError, TypeError, IndexError) as error:
        raise ConfigError(
            "model",
            [
                f"name: {name} cannot take {'windows of tokens' if tokens else 'samples'} of shape "
                f"{input_shape}{'' if tokens else ', channels first'}: {_first_line(error)}"
            ],
        ) from error
    finally:
        module.train()
    expected = (2, *input_shape, num_classes) if tokens else (2, num_classes)
    if not isinstance(outputs, Tensor) or outputs.shape != expected:
        shape = tuple(getattr(outputs, "shape", ())) or type(outputs).__name__
        what = f"windows of {input_shape} tokens and a vocabulary of" if tokens else "samples and"
        classes = num_classes if tokens else f"{num_classes} classes"
        wanted = f"; allowed: {expected}" if tokens else ""
        raise ConfigError("model", [f"name: {name} gives {shape} for 2 {what} {classes}{wanted}"])


def _trains_on_one(module: nn.Module, input_shape: tuple[int, ...]) -> bool:
    device = next((parameter.device for parameter in module.parameters()), None)
    try:
        with torch.no_grad():
            module.train()(torch.zeros((1, *input_shape), device=device))
    except ValueError as error:
        return LONE_SAMPLE not in str(error)
    except (NotImplementedError, RuntimeError):
        pass  # not to be found out on shapes alone
    return True


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__

"""The table of models, and the way from a job's ``model:`` section to a module."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mpi_dcasgd.errors import ConfigError, UserError, did_you_mean
from mpi_dcasgd.extension import Table, import_object, is_path
from mpi_dcasgd.learning.models.base import ModelSource
from mpi_dcasgd.learning.models.torchvision_models import (
    NAMES,
    TorchvisionModel,
    torchvision_names,
)

if TYPE_CHECKING:
    from torch import nn

_RESNET = "mpi_dcasgd.learning.models.resnet_cifar:CifarResNet"

MODELS: Table[ModelSource] = Table(
    ModelSource,
    {
        "mlp": "mpi_dcasgd.learning.models.mlp:Mlp",
        "cnn": "mpi_dcasgd.learning.models.cnn:Cnn",
        "transformer": "mpi_dcasgd.learning.models.transformer:Transformer",
        "lstm": "mpi_dcasgd.learning.models.lstm:Lstm",
        "resnet20": _RESNET,
        "resnet32": _RESNET,
        "resnet44": _RESNET,
        "resnet56": _RESNET,
        "resnet110": _RESNET,
    },
)
"""Name in job files to where the settings are; torchvision's names lead to ``TorchvisionModel``."""


def find_model(name: object, given: Iterable[str] = ()) -> type[ModelSource]:
    """Look up the settings class of a model: built in, torchvision's, or the user's own.

    Args:
        name: A key of ``MODELS``, one of torchvision's names, or ``package.module:Name`` of a
            ``ModelSource``, of a function that returns a module, or of a module class.
        given: Keys that a job gives, for a function that takes any.

    Raises:
        UserError: There is no such model. A name that nobody knows is asked of torchvision, which
            takes seconds to import.
    """
    if isinstance(name, str):
        if name in MODELS:
            return MODELS[name]
        if is_path(name):
            return _own(name, given)
        if name in NAMES:
            return TorchvisionModel
    try:
        theirs = torchvision_names()
    except UserError as error:
        near = did_you_mean(str(name), [*MODELS, *NAMES])
        raise UserError(
            f"{name!r} is not built in{near} (allowed: {', '.join(MODELS)}, or "
            f"package.module:Name), and {error}"
        ) from error
    if name in theirs:
        return TorchvisionModel
    raise UserError(
        f"unknown {name!r}{did_you_mean(str(name), [*MODELS, *theirs])} (allowed: "
        f"{', '.join(MODELS)}, one of torchvision's {len(theirs)} classification models, or "
        "package.module:Name)"
    )


def build_model(
    model: ModelSource,
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    tokens: bool = False,
) -> nn.Module:
    """Build the model with fresh weights, which follow from torch's global random state alone.

    Args:
        model: The settings.
        input_shape: Of a sample; images as (channels, height, width).
        num_classes: Width of the output.
        tokens: Samples are windows of tokens, each of which gets ``num_classes`` scores.

    Raises:
        ConfigError: The settings are wrong or the model does not fit the data; keys relative to
            ``model``.
    """
    problems = model.check() or model.fits(input_shape, num_classes)
    if problems:
        raise ConfigError("model", problems)
    module = model.build(input_shape, num_classes)
    # A model that knows which shapes it takes does not know whether they are of tokens.
    if tokens or not model.shapes_known:
        from mpi_dcasgd.learning.models.shapes import check_output

        check_output(module, model.name, input_shape, num_classes, tokens=tokens)
    return module


LONE_SAMPLE = "more than 1 value per channel"
"""What PyTorch says of a single sample in BatchNorm."""


def lone_sample(num_train: int, batch_size: int, accumulate: int = 1) -> bool:
    """Return whether some minibatch, or a part of one, is a single sample.

    Args:
        num_train: Training samples.
        batch_size: Of one worker.
        accumulate: Parts that each minibatch is computed in, one after the other.
    """
    if not num_train:
        return False
    sizes = (min(batch_size, num_train), num_train % batch_size or batch_size)
    return any(size // min(accumulate, size) == 1 for size in sizes)


def lone_sample_problem(num_train: int, batch_size: int, accumulate: int = 1) -> str:
    """Say that the last minibatch, or a part, is too small for a model with BatchNorm."""
    if batch_size == 1:
        return (
            "batch_size: got 1, and of a single sample BatchNorm takes no statistics; choose a "
            "larger size"
        )
    if not lone_sample(num_train, batch_size):
        return (
            f"compute.accumulate: {num_train} samples in minibatches of {batch_size}, each in up "
            f"to {accumulate} parts, leave one for a part, and of a single sample BatchNorm takes "
            "no statistics; choose fewer parts, or another batch_size"
        )
    return (
        f"batch_size: {num_train} samples in minibatches of {batch_size} leave one for "
        "the last, and of a single sample BatchNorm takes no statistics; choose another size"
    )


def _own(path: str, given: Iterable[str]) -> type[ModelSource]:
    found = import_object(path)
    if isinstance(found, type) and issubclass(found, ModelSource):
        return found
    from mpi_dcasgd.learning.models.function import function_model

    return function_model(path, given)

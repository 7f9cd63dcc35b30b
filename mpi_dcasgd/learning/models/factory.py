"""From a job's ``model:`` section to a module that fits its data."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from mpi_dcasgd.errors import ConfigError, UserError, did_you_mean
from mpi_dcasgd.learning.models.cnn import cnn
from mpi_dcasgd.learning.models.mlp import mlp
from mpi_dcasgd.learning.models.resnet_cifar import DEPTHS, CifarResNet
from mpi_dcasgd.learning.settings import ModelSettings
from mpi_dcasgd.learning.vision import torchvision

_RESNETS = {f"resnet{depth}": depth for depth in DEPTHS}
BUILT_IN = ("mlp", "cnn", *_RESNETS)
"""Names that need no torchvision; none of them is also torchvision's."""

_DEFAULTS = {"hidden": (128,), "dropout": 0.0, "batchnorm": False}
_USED_BY = {"hidden": ("mlp", "cnn"), "dropout": ("mlp", "cnn"), "batchnorm": ("cnn",)}

_ONE_OUTPUT: dict[str, dict[str, Any]] = {
    # Without their auxiliary outputs, which training here has no loss for.
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


def model_names() -> list[str]:
    """All valid names: the built-in ones, then torchvision's if it can be imported."""
    try:
        return [*BUILT_IN, *_torchvision_names()]
    except UserError:
        return list(BUILT_IN)


def check_model(settings: ModelSettings) -> list[str]:
    """What is wrong with the settings, one line each beginning with the key."""
    name = settings.name
    problems = []
    if name not in BUILT_IN:
        try:
            names = [*BUILT_IN, *_torchvision_names()]
        except UserError as error:
            return [f"name: {name!r} is not built in ({', '.join(BUILT_IN)}), and {error}"]
        if name not in names:
            return [
                f"name: unknown {name!r}{did_you_mean(name, names)} (allowed: "
                f"{', '.join(BUILT_IN)}, or one of torchvision's {len(names) - len(BUILT_IN)} "
                "classification models)"
            ]
        problems += [
            f"options.{key}: follows from the data and a fresh start; leave it out"
            for key in ("weights", "num_classes", "progress")
            if key in settings.options
        ]
        if name in _ONE_OUTPUT and settings.options.get("aux_logits"):
            problems.append("options.aux_logits: auxiliary outputs are not supported; leave it out")
    elif settings.options:
        problems.append(f"options: for torchvision's models only; {name} takes none")
    problems += [
        f"{key}: {name} has no such setting (it is for {' and '.join(users)}); leave it out"
        for key, users in _USED_BY.items()
        if name not in users and getattr(settings, key) != _DEFAULTS[key]
    ]
    return problems


def build_model(
    settings: ModelSettings, input_shape: tuple[int, ...], num_classes: int
) -> nn.Module:
    """The model with fresh weights, which follow from torch's global random state alone.

    Args:
        settings: Which one.
        input_shape: Of a sample; images as (channels, height, width).
        num_classes: Width of the output.

    Raises:
        ConfigError: The settings are wrong or the model does not fit the data; keys relative to
            ``model``.
    """
    problems = check_model(settings)
    if problems:
        raise ConfigError("model", problems)
    if settings.name != "mlp" and len(input_shape) != 3:
        raise ConfigError(
            "model",
            [f"name: {settings.name} needs images (channels, height, width); got {input_shape}"],
        )
    name = settings.name
    if name == "mlp":
        return mlp(math.prod(input_shape), settings.hidden, num_classes, settings.dropout)
    if name == "cnn":
        if min(input_shape[1:]) < 4:
            raise ConfigError(
                "model", [f"name: cnn needs images of 4 x 4 pixels or more; got {input_shape}"]
            )
        return cnn(input_shape, settings.hidden, num_classes, settings.dropout, settings.batchnorm)
    if name in _RESNETS:
        return CifarResNet(_RESNETS[name], input_shape[0], num_classes)
    return _torchvision_model(settings, input_shape, num_classes)


def _torchvision_model(
    settings: ModelSettings, input_shape: tuple[int, ...], num_classes: int
) -> nn.Module:
    name = settings.name
    options = {**_ONE_OUTPUT.get(name, {}), **settings.options}
    try:
        model: nn.Module = torchvision().models.get_model(
            name, weights=None, num_classes=num_classes, **options
        )
    except Exception as error:
        # Anything may come of a wrong option; without options it is not the user's mistake.
        if not settings.options:
            raise
        raise ConfigError(
            "model", [f"options: {name} does not take them: {_first_line(error)}"]
        ) from error
    _check_fit(model, name, input_shape, num_classes)
    return model


def _check_fit(model: nn.Module, name: str, input_shape: tuple[int, ...], num_classes: int) -> None:
    """Run the model on shapes alone (the meta device): it costs next to nothing at any size."""
    tensors = {
        key: torch.empty_like(tensor, device="meta")
        for key, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    inputs = torch.empty((2, *input_shape), device="meta")
    model.eval()
    try:
        with torch.no_grad():
            outputs = torch.func.functional_call(model, tensors, (inputs,))
    except NotImplementedError:
        return  # an operator that has no meta kernel: then training will tell
    except (RuntimeError, ValueError, AssertionError, TypeError, IndexError) as error:
        raise ConfigError(
            "model",
            [
                f"name: {name} cannot take samples of shape {input_shape}, channels first: "
                f"{_first_line(error)}"
            ],
        ) from error
    finally:
        model.train()
    if not isinstance(outputs, Tensor) or outputs.shape != (2, num_classes):
        shape = tuple(getattr(outputs, "shape", ())) or type(outputs).__name__
        raise ConfigError(
            "model",
            [f"name: {name} gives {shape} for 2 samples and {num_classes} classes"],
        )


def _torchvision_names() -> list[str]:
    models = torchvision().models
    return list(models.list_models(module=models))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__

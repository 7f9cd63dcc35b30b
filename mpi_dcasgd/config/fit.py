"""Whether a job's model takes its data, found out on shapes alone."""

from __future__ import annotations

import torch
from torch import nn

from mpi_dcasgd.errors import ConfigError, UserError
from mpi_dcasgd.learning.data import Facts, describe
from mpi_dcasgd.learning.models import build_model
from mpi_dcasgd.learning.settings import DataSettings, ModelSettings

_checked: dict[str, list[str]] = {}  # a study asks about the same model many times


def check_fit(model: ModelSettings, data: DataSettings, batch_size: object) -> list[str]:
    """What keeps the model from taking the data, a line each beginning with the dotted key.

    Data that are not here, or would have to be searched for their classes, fit for now: a job may
    be checked on another machine than the one that it runs on.
    """
    if data.name == "imagefolder":
        return []
    key = f"{model} {data} {batch_size}"
    if key not in _checked:
        try:
            facts = describe(data)
            module = without_memory(model, facts)
            size = batch_size if type(batch_size) is int and batch_size > 0 else facts.num_train
            _checked[key] = check_last_batch(module, facts, size)
        except ConfigError as error:
            _checked[key] = [f"{error.where}.{line}" for line in error.problems]
        except UserError:
            return []
    return _checked[key]


def check_last_batch(module: nn.Module, data: Facts, batch_size: int) -> list[str]:
    """Whether the model trains on an epoch's last minibatch if that is a single sample.

    BatchNorm takes no statistics of one number a channel, which is what one sample leaves it where
    images have shrunk to a pixel, or never had any.

    Args:
        module: From ``without_memory``.
        data: What it is trained on.
        batch_size: Of one worker.
    """
    if data.num_train % batch_size != 1 and batch_size != 1:
        return []
    device = next((parameter.device for parameter in module.parameters()), None)
    try:
        with torch.no_grad():
            module.train()(torch.zeros((1, *data.input_shape), device=device))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            return []
        return [
            f"batch_size: {data.num_train} samples in minibatches of {batch_size} leave one for "
            "the last, and of a single sample BatchNorm takes no statistics; choose another size"
        ]
    except (NotImplementedError, RuntimeError):
        pass  # not to be found out on shapes alone
    return []


def without_memory(model: ModelSettings, data: Facts) -> nn.Module:
    """The model as shapes, or, if it computes while it is built, as it is.

    Raises:
        ConfigError: It does not take the data; keys relative to ``model``.
    """
    try:
        with torch.device("meta"):
            return build_model(model, data.input_shape, data.num_classes)
    except (NotImplementedError, RuntimeError):
        return build_model(model, data.input_shape, data.num_classes)

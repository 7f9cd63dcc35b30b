"""Whether a job's model takes its data, found out on shapes alone."""

from __future__ import annotations

import torch
from torch import nn

from mpi_dcasgd.errors import ConfigError, UserError
from mpi_dcasgd.learning.data import Facts, describe
from mpi_dcasgd.learning.models import build_model
from mpi_dcasgd.learning.settings import DataSettings, ModelSettings

_checked: dict[str, list[str]] = {}  # a study asks about the same model many times


def check_fit(model: ModelSettings, data: DataSettings) -> list[str]:
    """What keeps the model from taking the data, a line each beginning with the dotted key.

    Data that are not here, or would have to be searched for their classes, fit for now: a job may
    be checked on another machine than the one that it runs on.
    """
    if data.name == "imagefolder":
        return []
    key = f"{model} {data}"
    if key not in _checked:
        try:
            without_memory(model, describe(data))
            _checked[key] = []
        except ConfigError as error:
            _checked[key] = [f"{error.where}.{line}" for line in error.problems]
        except UserError:
            return []
    return _checked[key]


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

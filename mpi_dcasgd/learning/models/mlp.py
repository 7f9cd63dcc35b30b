"""A perceptron with hidden layers, for inputs of any shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.learning.models.base import ModelSource
from mpi_dcasgd.learning.settings import Count

if TYPE_CHECKING:
    from torch import nn


Activation = Literal["relu", "tanh", "gelu"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Mlp(ModelSource):
    """Perceptron with hidden layers, for inputs of any shape, which it flattens."""

    shapes_known: ClassVar[bool] = True

    name: Literal["mlp"] = "mlp"
    hidden: Annotated[
        tuple[Count, ...], Field(strict=False, description="units of each hidden layer")
    ] = (128,)
    dropout: Annotated[
        float, Field(ge=0, lt=1, description="dropped fraction of hidden units in training")
    ] = 0.0
    batchnorm: Annotated[
        bool, Field(description="normalise after each hidden layer, which then has no bias")
    ] = False
    activation: Annotated[
        Activation,
        Field(description="of hidden units; tanh and gelu are smooth, so that curvature is too"),
    ] = "relu"

    def takes_one_sample(self, input_shape: tuple[int, ...]) -> bool:
        return not (self.batchnorm and self.hidden)

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        return mlp(
            math.prod(input_shape),
            self.hidden,
            num_classes,
            self.dropout,
            self.activation,
            batchnorm=self.batchnorm,
        )


def hidden_layers(
    inputs: int,
    hidden: Sequence[int],
    dropout: float,
    activation: Activation = "relu",
    *,
    batchnorm: bool = False,
) -> tuple[list[nn.Module], int]:
    """Linear, BatchNorm, activation and dropout for each layer, and the width of the last one."""
    from torch import nn

    made = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}[activation]
    layers: list[nn.Module] = []
    for units in hidden:
        layers.append(nn.Linear(inputs, units, bias=not batchnorm))
        if batchnorm:
            layers.append(nn.BatchNorm1d(units))
        layers.append(made())
        if dropout:
            layers.append(nn.Dropout(dropout))
        inputs = units
    return layers, inputs


def mlp(
    inputs: int,
    hidden: Sequence[int],
    num_classes: int,
    dropout: float = 0.0,
    activation: Activation = "relu",
    *,
    batchnorm: bool = False,
) -> nn.Module:
    """Softmax regression on the last of ``hidden`` layers; with none, on the inputs.

    Args:
        inputs: Elements of a sample, which is flattened.
        hidden: Units of each hidden layer.
        num_classes: Width of the output.
        dropout: Fraction of hidden units dropped in training.
        activation: Of hidden units.
        batchnorm: Normalise after each hidden layer, which then has no bias.
    """
    from torch import nn

    layers, width = hidden_layers(inputs, hidden, dropout, activation, batchnorm=batchnorm)
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(width, num_classes))

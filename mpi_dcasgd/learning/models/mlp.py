"""A perceptron with hidden layers, for inputs of any shape."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def hidden_layers(
    inputs: int, hidden: Sequence[int], dropout: float
) -> tuple[list[nn.Module], int]:
    """Linear, ReLU and dropout for each hidden layer, and the width of the last one."""
    layers: list[nn.Module] = []
    for units in hidden:
        layers += [nn.Linear(inputs, units), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
        inputs = units
    return layers, inputs


def mlp(inputs: int, hidden: Sequence[int], num_classes: int, dropout: float = 0.0) -> nn.Module:
    """Softmax regression on the last of ``hidden`` ReLU layers; with none, on the inputs.

    Args:
        inputs: Elements of a sample, which is flattened.
        hidden: Units of each hidden layer.
        num_classes: Width of the output.
        dropout: Fraction of hidden units dropped in training.
    """
    layers, width = hidden_layers(inputs, hidden, dropout)
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(width, num_classes))

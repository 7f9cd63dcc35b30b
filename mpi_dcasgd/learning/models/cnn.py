"""A small convolutional network, for digits of 8 x 8 up to CIFAR's 32 x 32 pixels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from mpi_dcasgd.learning.models.mlp import mlp

_CHANNELS = (32, 64)


def cnn(
    input_shape: tuple[int, ...],
    hidden: Sequence[int],
    num_classes: int,
    dropout: float = 0.0,
    batchnorm: bool = False,
) -> nn.Module:
    """Two blocks of a 3 x 3 convolution, ReLU and 2 x 2 max pooling, then an ``mlp`` as head.

    Args:
        input_shape: (channels, height, width), both sides at least 4.
        hidden: Units of the head's hidden layers.
        num_classes: Width of the output.
        dropout: Fraction of the head's hidden units dropped in training.
        batchnorm: Normalise after each convolution, which then has no bias.
    """
    channels, height, width = input_shape
    layers: list[nn.Module] = []
    for filters in _CHANNELS:
        layers.append(nn.Conv2d(channels, filters, 3, padding=1, bias=not batchnorm))
        if batchnorm:
            layers.append(nn.BatchNorm2d(filters))
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        channels, height, width = filters, height // 2, width // 2
    return nn.Sequential(*layers, mlp(channels * height * width, hidden, num_classes, dropout))

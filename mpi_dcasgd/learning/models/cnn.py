"""A small convolutional network, for digits of 8 x 8 up to CIFAR's 32 x 32 pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.learning.models.base import ModelSource, need_images
from mpi_dcasgd.learning.models.mlp import mlp
from mpi_dcasgd.learning.settings import Count

if TYPE_CHECKING:
    from torch import nn

_CHANNELS = (32, 64)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Cnn(ModelSource):
    """Small convolutional network for images of 4 x 4 pixels or more.

    Two blocks of a 3 x 3 convolution, ReLU and 2 x 2 max pooling, then an ``mlp`` as head.
    """

    shapes_known: ClassVar[bool] = True

    name: Literal["cnn"] = "cnn"
    hidden: Annotated[
        tuple[Count, ...],
        Field(strict=False, description="units of each hidden layer of the head"),
    ] = (128,)
    dropout: Annotated[
        float, Field(ge=0, lt=1, description="dropped fraction of the head's hidden units")
    ] = 0.0
    batchnorm: Annotated[
        bool, Field(description="normalise after each convolution, which then has no bias")
    ] = False

    def fits(self, input_shape: tuple[int, ...], num_classes: int) -> list[str]:
        problems = need_images(self.name, input_shape)
        if not problems and min(input_shape[1:]) < 4:
            problems = [f"name: cnn needs images of 4 x 4 pixels or more; got {input_shape}"]
        return problems

    # One sample is enough for BatchNorm: the second one still sees 2 x 2 pixels.

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        from torch import nn

        channels, height, width = input_shape
        layers: list[nn.Module] = []
        for filters in _CHANNELS:
            layers.append(nn.Conv2d(channels, filters, 3, padding=1, bias=not self.batchnorm))
            if self.batchnorm:
                layers.append(nn.BatchNorm2d(filters))
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
            channels, height, width = filters, height // 2, width // 2
        head = mlp(channels * height * width, self.hidden, num_classes, self.dropout)
        return nn.Sequential(*layers, head)

"""A small convolutional network, for digits of 8 x 8 up to CIFAR's 32 x 32 pixels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.learning.models.base import ModelSource, need_images
from mpi_dcasgd.learning.models.mlp import mlp
from mpi_dcasgd.learning.settings import Count

if TYPE_CHECKING:
    from torch import nn

Shrink = Literal["pool", "stride"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Cnn(ModelSource):
    """Small convolutional network: blocks that halve the image, two by default.

    A block is a 3 x 3 convolution, ReLU and 2 x 2 max pooling; with ``shrink: stride`` the
    convolution takes every second pixel instead. The head is an ``mlp``.
    """

    shapes_known: ClassVar[bool] = True

    name: Literal["cnn"] = "cnn"
    channels: Annotated[
        tuple[Count, ...],
        Field(
            strict=False,
            min_length=1,
            description="channels of each block, after which the image is half as high and wide",
        ),
    ] = (32, 64)
    shrink: Annotated[
        Shrink,
        Field(
            description="how a block halves the image: by max pooling, or by a stride of 2 in its "
            "convolution, which computes a quarter as much"
        ),
    ] = "pool"
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
        least = 2 ** len(self.channels) if self.shrink == "pool" else 1
        if not problems and min(input_shape[1:]) < least:
            blocks = f"{len(self.channels)} block" + "s" * (len(self.channels) > 1)
            problems = [
                f"name: cnn needs images of {least} x {least} pixels or more for {blocks}; "
                f"got {input_shape}"
            ]
        return problems

    def takes_one_sample(self, input_shape: tuple[int, ...]) -> bool:
        # With pooling, the last BatchNorm still sees 2 x 2 pixels.
        return (
            not self.batchnorm
            or self.shrink == "pool"
            or any(side > 2 ** len(self.channels) for side in input_shape[1:])
        )

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        from torch import nn

        channels, height, width = input_shape
        pools = self.shrink == "pool"
        layers: list[nn.Module] = []
        for filters in self.channels:
            stride, bias = 1 if pools else 2, not self.batchnorm
            layers.append(nn.Conv2d(channels, filters, 3, stride, padding=1, bias=bias))
            if self.batchnorm:
                layers.append(nn.BatchNorm2d(filters))
            layers.append(nn.ReLU())
            if pools:
                layers.append(nn.MaxPool2d(2))
            channels = filters
            height, width = (
                side // 2 if pools else math.ceil(side / 2) for side in (height, width)
            )
        head = mlp(channels * height * width, self.hidden, num_classes, self.dropout)
        return nn.Sequential(*layers, head)

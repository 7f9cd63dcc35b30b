"""Residual networks for images of CIFAR's size, by the names that job files use.

Source: K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition",
CVPR 2016, arXiv:1512.03385, section 4.2 and table 6.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.learning.models.base import ModelSource, need_images

if TYPE_CHECKING:
    from torch import nn

_SHRUNK = 4
"""Pixels along each axis that become one in the last of the three stages."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CifarResNet(ModelSource):
    """Residual network for images of CIFAR's size (He et al. 2016), as deep as its name says."""

    shapes_known: ClassVar[bool] = True

    name: Literal["resnet20", "resnet32", "resnet44", "resnet56", "resnet110"]

    def fits(self, input_shape: tuple[int, ...], num_classes: int) -> list[str]:
        return need_images(self.name, input_shape)

    def takes_one_sample(self, input_shape: tuple[int, ...]) -> bool:
        return math.prod(math.ceil(side / _SHRUNK) for side in input_shape[1:]) > 1

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        from mpi_dcasgd.learning.models.residual import ResidualNetwork

        depth = int(self.name.removeprefix("resnet"))
        return ResidualNetwork(depth, input_shape[0], num_classes)

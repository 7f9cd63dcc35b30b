"""Base of all models: settings that are checked against the data, and build a module."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.learning.settings import Named

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelSource(Named):
    """Settings of a model, from which any rank can build it.

    A subclass is a frozen dataclass whose fields are the settings that a job may give in its
    ``model:`` section. It must override ``build``. Import PyTorch there, so that jobs are checked
    without it.

    Attributes:
        shapes_known: True if ``fits`` and ``takes_one_sample`` tell all that keeps the model from
            training on some data. Otherwise it is tried out on shapes alone before a run starts.
    """

    shapes_known: ClassVar[bool] = False

    def fits(self, input_shape: tuple[int, ...], num_classes: int) -> list[str]:
        """Find out whether the model takes samples of a shape, without importing PyTorch.

        Args:
            input_shape: Of a sample; images as (channels, height, width).
            num_classes: Width of the output.

        Returns:
            What keeps it from that, one line each beginning with the key.
        """
        return []

    def takes_one_sample(self, input_shape: tuple[int, ...]) -> bool:
        """Return whether the model trains on a minibatch of one sample; asked if ``shapes_known``.

        BatchNorm takes no statistics of one number a channel, which is what one sample leaves it
        where images have shrunk to a pixel, or never had any.
        """
        return True

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """Build the module with fresh weights, which follow from torch's global random state.

        Args:
            input_shape: Of a sample; images as (channels, height, width).
            num_classes: Width of the output.
        """
        raise NotImplementedError(f"{type(self).__name__} must override build")


def need_images(name: str, input_shape: tuple[int, ...]) -> list[str]:
    """Find out whether samples are images, for models that take nothing else."""
    if len(input_shape) == 3:
        return []
    return [f"name: {name} needs images (channels, height, width); got {input_shape}"]


def need_windows(name: str, input_shape: tuple[int, ...]) -> list[str]:
    """Find out whether samples are windows of tokens, for models that take nothing else."""
    if len(input_shape) == 1:
        return []
    return [
        f"name: {name} needs windows of tokens (window,), as data.name=text has; got {input_shape}"
    ]

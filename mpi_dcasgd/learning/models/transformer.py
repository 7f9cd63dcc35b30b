"""A small decoder-only transformer, for windows of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.learning.models.base import ModelSource, need_windows
from mpi_dcasgd.learning.settings import Count

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Transformer(ModelSource):
    """Decoder-only transformer with learned positions, for the task `language-model`.

    Layer normalisation stands before each part of a block, and the first weights are those of
    GPT-2: A. Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.
    """

    shapes_known: ClassVar[bool] = True

    name: Literal["transformer"] = "transformer"
    width: Annotated[Count, Field(description="numbers that stand for a token in the layers")] = 128
    depth: Annotated[Count, Field(description="layers")] = 2
    heads: Annotated[Count, Field(description="heads of attention; they must divide the width")] = 4
    dropout: Annotated[float, Field(ge=0, lt=1, description="dropped fraction in training")] = 0.0
    tied: Annotated[
        bool, Field(description="the embedding of tokens is the last layer's weight as well")
    ] = False

    def check(self) -> list[str]:
        if self.width % self.heads:
            return [f"heads: got {self.heads}; allowed: a divisor of the width {self.width}"]
        return []

    def fits(self, input_shape: tuple[int, ...], num_classes: int) -> list[str]:
        return need_windows(self.name, input_shape)

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        from mpi_dcasgd.learning.models.decoder import Decoder

        return Decoder(
            num_classes,
            input_shape[0],
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            dropout=self.dropout,
            tied=self.tied,
        )

"""An LSTM, for windows of tokens."""

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
class Lstm(ModelSource):
    """LSTM over embedded tokens, for the task `language-model`; its state begins at 0.

    S. Hochreiter and J. Schmidhuber, "Long Short-Term Memory", Neural Computation 1997.
    """

    shapes_known: ClassVar[bool] = True

    name: Literal["lstm"] = "lstm"
    embedding: Annotated[
        Count, Field(description="numbers that stand for a token before the layers")
    ] = 64
    width: Annotated[Count, Field(description="units of a layer")] = 128
    depth: Annotated[Count, Field(description="layers")] = 2
    dropout: Annotated[
        float, Field(ge=0, lt=1, description="dropped fraction in training, after each layer")
    ] = 0.0

    def fits(self, input_shape: tuple[int, ...], num_classes: int) -> list[str]:
        return need_windows(self.name, input_shape)

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        from mpi_dcasgd.learning.models.recurrent import Recurrent

        return Recurrent(
            num_classes,
            embedding=self.embedding,
            width=self.width,
            depth=self.depth,
            dropout=self.dropout,
        )

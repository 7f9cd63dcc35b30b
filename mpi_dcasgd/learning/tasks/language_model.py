"""Language modelling: the next token of a text, at every place of a window."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning.models.factory import build_model
from mpi_dcasgd.learning.tasks.sections import SectionTask, first_sample

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from mpi_dcasgd.learning.data.dataset import Split
    from mpi_dcasgd.learning.task import MetricSums


class LanguageModel(SectionTask):
    """Prediction of the next token, for data whose samples are windows of tokens.

    The loss is the mean cross-entropy over the tokens, in nats. Beside it ``perplexity`` is its
    exponential, and ``bits_per_byte`` the bits that the model needs for a byte of the text, which
    compares models whose tokens differ; with characters for tokens ``bits_per_character`` as
    well. Data that are no text of bytes or characters have ``bits_per_token`` in their place.

    Args:
        model: The section of that name: from tokens (n, window) to scores (n, window, vocabulary).
        data: Likewise: inputs and targets are whole numbers (n, window), each target the token
            after the input at its place.
    """

    evaluation_draws = False
    capturable = True
    evaluation_batch = 64
    units: ClassVar[Mapping[str, str]] = {"loss": "nats"}

    def model(self) -> nn.Module:
        sizes = self.sizes
        return build_model(self.model_source, sizes.input_shape, sizes.num_classes, tokens=True)

    def train_data(self) -> Split:
        inputs, targets = first_sample(self.dataset.train)
        if inputs.is_floating_point() or inputs.dim() != 2 or inputs.shape != targets.shape:
            raise ConfigError(
                "task",
                [
                    "name: language-model needs data whose samples are windows of tokens; those of "
                    f"{self.dataset.name} are {inputs.dtype} of shape {tuple(inputs.shape[1:])}, "
                    f"their targets of shape {tuple(targets.shape[1:])}: choose data.name=text"
                ],
            )
        return super().train_data()

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        inputs, targets = batch
        mean: Tensor = _cross_entropy(model(inputs), targets) / targets.numel()
        return mean

    def metrics(self, model: nn.Module, batch: Any) -> MetricSums:
        inputs, targets = batch
        nats = _cross_entropy(model(inputs), targets)
        bits, count = nats / math.log(2), targets.numel()
        found: dict[str, tuple[float | Tensor, float | Tensor]] = {"loss": (nats, count)}
        if self._bytes is None:
            return found | {"bits_per_token": (bits, count)}
        found["bits_per_byte"] = (bits, self._bytes[targets].sum())
        if self._tokens == "characters":
            found["bits_per_character"] = (bits, count)
        return found

    def derived(self, means: Mapping[str, float]) -> dict[str, float]:
        try:
            return {"perplexity": math.exp(means["loss"])}
        except OverflowError:
            return {"perplexity": math.inf}

    @property
    def _tokens(self) -> object:
        """Kind of tokens that the data say they have."""
        return getattr(self.data_source, "tokens", None)

    @cached_property
    def _bytes(self) -> Tensor | None:
        """Bytes of each token of the vocabulary in UTF-8, where that is known."""
        import torch

        if self._tokens == "bytes":
            return torch.ones(self.dataset.num_classes, dtype=torch.int64, device=self.device)
        if self._tokens == "characters":
            sizes = [len(name.encode()) for name in self.dataset.class_names]
            return torch.tensor(sizes, device=self.device)
        return None


def _cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    """The sum over all tokens, in nats."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="sum")

"""Arrays of one's own in a .npz file: features or images, with classes or numbers to predict."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.learning.data.dataset import Dataset, Facts, ResidentSplit
from mpi_dcasgd.learning.data.source import DataSource, check_path, expanded

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from mpi_dcasgd.learning.data.arrays_file import ArraysFile


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Arrays(DataSource):
    """Arrays of one's own in a .npz file, for classification or for regression.

    ``x_train``, ``y_train``, ``x_test`` and ``y_test``, and ``x_validation`` and
    ``y_validation`` if there are such samples. Bytes are scaled to [0, 1]. Whole numbers in ``y``
    are classes, floats are numbers to predict.
    """

    name: Literal["arrays"] = "arrays"
    path: Annotated[
        str | None,
        Field(description="must be given: the .npz file; ~ and $VARIABLES are expanded"),
    ] = None
    normalise: Annotated[
        Literal["none", "standardise"],
        Field(
            description="standardise: subtract the mean of each feature over the training samples "
            "and divide by its standard deviation"
        ),
    ] = "none"

    def check(self) -> list[str]:
        return check_path(self.name, self.path, "the .npz file")

    def facts(self) -> Facts:
        with self._open() as file:
            targets = {split: file.targets(split) for split in file.splits}
            held = sum(math.prod(file.shape(split)) for split in file.splits) * file.element_bytes
            return Facts(
                num_train=len(targets["train"]),
                num_test=len(targets["test"]),
                num_validation=len(targets.get("validation", ())),
                num_classes=file.num_outputs(),
                input_shape=file.shape("train")[1:],
                resident_bytes=held + sum(y.nbytes for y in targets.values()),
            )

    def load(self, seed: int, device: torch.device) -> Dataset:
        with self._open() as file:
            inputs = {split: file.inputs(split) for split in file.splits}
            targets = {split: file.targets(split) for split in file.splits}
            outputs = file.num_outputs()
            classes = file.has_classes
        scale = self._scale(inputs["train"])
        made = {split: ArraySplit(inputs[split], targets[split], scale, device) for split in inputs}
        return Dataset(
            name="arrays",
            train=made["train"],
            test=made["test"],
            validation=made.get("validation"),
            num_classes=outputs,
            input_shape=inputs["train"].shape[1:],
            class_names=tuple(f"{'class' if classes else 'output'} {i}" for i in range(outputs)),
        )

    def _open(self) -> ArraysFile:
        from mpi_dcasgd.learning.data.arrays_file import ArraysFile

        return ArraysFile(expanded(self.path), validation=self.validation)

    def _scale(self, inputs: NDArray[np.generic]) -> Scale | None:
        import numpy as np

        from mpi_dcasgd.learning.data.arrays_file import mean_and_deviation

        if self.normalise == "standardise":
            mean, deviation = mean_and_deviation(inputs)
            return mean.astype(np.float32), (1 / deviation).astype(np.float32)
        if inputs.dtype == np.uint8:
            return np.zeros((), np.float32), np.full((), 1 / 255, np.float32)
        return None


Scale = tuple["NDArray[np.float32]", "NDArray[np.float32]"]
"""What is subtracted from a sample, and what the rest is multiplied by."""


class ArraySplit(ResidentSplit):
    """Samples held on the device as they are in the file, and scaled batch by batch.

    Args:
        inputs: (n, *shape), uint8 or float32.
        targets: (n,) or (n, k), int64 or float32.
        scale: Of the shape of a sample each, or None to leave it as it is.
        device: Where to hold them.
    """

    augments = False

    def __init__(
        self,
        inputs: NDArray[np.generic],
        targets: NDArray[np.generic],
        scale: Scale | None,
        device: torch.device,
    ) -> None:
        import torch

        self.device = device
        self.targets = torch.from_numpy(targets).to(device)
        self._inputs = torch.from_numpy(inputs).to(device)
        self._scale = scale and tuple(torch.from_numpy(one).to(device) for one in scale)

    def __len__(self) -> int:
        return len(self.targets)

    def recipe(
        self, indices: NDArray[np.int64], rng: np.random.Generator | None
    ) -> NDArray[np.int64]:
        return indices[None]

    def make(self, recipe: Tensor) -> tuple[Tensor, Tensor]:
        (chosen,) = recipe
        inputs = self._inputs[chosen]
        if self._scale:
            shift, factor = self._scale
            inputs = (inputs.float() - shift) * factor
        return inputs, self.targets[chosen]

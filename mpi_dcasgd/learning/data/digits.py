"""Real handwritten digits, 1797 images of 8 x 8 pixels, that come with scikit-learn.

They are the test set of the UCI "Optical Recognition of Handwritten Digits" data (Alpaydin and
Kaynak 1998); pixels count ink in a 4 x 4 block, 0 .. 16. The split is ours and never changes: of
each digit, in the file's order, about every fifth is for testing. Writers are not kept apart.
"""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT, DataError
from mpi_dcasgd.learning.data.dataset import Dataset, Facts
from mpi_dcasgd.learning.data.source import Augment, DataSource

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

FACTS = Facts(
    num_train=1437, num_test=360, num_classes=10, input_shape=(1, 8, 8), resident_bytes=1797 * 72
)
_TOP = 16
_MEAN, _STD = 0.3058, 0.3762
"""Of the training pixels, scaled to [0, 1]."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Digits(DataSource):
    """Real handwritten digits, 1797 images of 8 x 8 pixels that come with scikit-learn."""

    name: Literal["digits"] = "digits"
    augment: Annotated[
        Augment,
        Field(
            description="random changes of training images; standard: shifts by a pixel, auto: none"
        ),
    ] = "auto"

    def known(self) -> Facts:
        return FACTS

    def facts(self) -> Facts:
        _check_installed()
        return FACTS

    def load(self, seed: int, device: torch.device) -> Dataset:
        import numpy as np

        from mpi_dcasgd.learning.data.images import ImageSplit, Jitter, Normalise

        table = _read()
        images = table[:, :64].reshape(-1, 1, 8, 8).astype(np.uint8)
        labels = table[:, 64].astype(np.int64)
        by_label = np.argsort(labels, kind="stable")
        is_test = np.zeros(len(labels), dtype=bool)
        is_test[by_label[::5]] = True
        normalise = Normalise([_MEAN], [_STD], _TOP, device)
        jitter = Jitter(padding=1, flip=False) if self.augment == "standard" else None
        return Dataset(
            name="digits",
            train=ImageSplit(images[~is_test], labels[~is_test], normalise, jitter, device),
            test=ImageSplit(images[is_test], labels[is_test], normalise, None, device),
            num_classes=FACTS.num_classes,
            input_shape=FACTS.input_shape,
            class_names=tuple("0123456789"),
        )


def _check_installed() -> None:
    """Raise DataError where scikit-learn, whose file this is, is not installed."""
    if find_spec("sklearn") is None:
        raise DataError(
            "digits: the images come with scikit-learn, which is not installed; "
            "pip install scikit-learn, or choose data.name=synthetic"
        )


def _read() -> NDArray[np.int64]:
    """The table, (1797, 65): 64 pixels and the digit."""
    import numpy as np

    _check_installed()
    spec = find_spec("sklearn")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        if path.is_file():
            # Not through scikit-learn: to import it takes a second, in each rank.
            with gzip.open(path, "rt", encoding="ascii") as file:
                return np.loadtxt(file, delimiter=",", dtype=np.int64)
    from sklearn.datasets import load_digits as sklearn_digits

    found = sklearn_digits()
    return np.column_stack([found.data, found.target]).astype(np.int64)

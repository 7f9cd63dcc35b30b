"""Base of the data sets of 28 x 28 grey images in IDX files: MNIST and its relatives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT, DataError
from mpi_dcasgd.learning.data.dataset import Dataset, Facts
from mpi_dcasgd.learning.data.idx import find_idx, read_idx, read_shape
from mpi_dcasgd.learning.data.source import Augment, DataSource, check_path, expanded

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

SIZE = 28
_SAMPLE_BYTES = SIZE * SIZE + 8


class Files(NamedTuple):
    """The images and the labels of a split."""

    images: Path
    labels: Path


@dataclass(frozen=True, kw_only=True, config=STRICT)
class IdxImages(DataSource):
    """Grey images of 28 x 28 pixels in IDX files, plain or gzipped, in a folder that is named.

    Attributes:
        published: Numbers of training and of test images in the files that the authors publish.
        classes: Names, in the order of the labels.
        first_label: The label of the first class in the files.
        mean, std: Of the training pixels, scaled to [0, 1].
        source: Where to get the files.
    """

    published: ClassVar[tuple[int, int]] = (60_000, 10_000)
    classes: ClassVar[tuple[str, ...]] = ()
    mean: ClassVar[float] = 0.0
    std: ClassVar[float] = 1.0
    source: ClassVar[str] = ""

    path: Annotated[
        str | None,
        Field(
            description="must be given: the folder that holds the IDX files, as they are "
            "published, gzipped or not; ~ and $VARIABLES are expanded"
        ),
    ] = None
    augment: Annotated[
        Augment,
        Field(
            description="random changes of training images; standard: shifts by up to 2 pixels, "
            "auto: none"
        ),
    ] = "auto"

    def check(self) -> list[str]:
        return check_path(self.name, self.path)

    def known(self) -> Facts:
        return self._facts(*self.sizes())

    def facts(self) -> Facts:
        """Tell the sizes that the headers of the files say."""
        counts = []
        for files in self.files():
            count = self._check_header(files)
            counts.append(count)
        return self._facts(*counts)

    def load(self, seed: int, device: torch.device) -> Dataset:
        from mpi_dcasgd.learning.data.images import ImageSplit, Jitter, Normalise

        normalise = Normalise([self.mean], [self.std], 255, device)
        jitter = Jitter(padding=2, flip=False) if self.augment == "standard" else None
        train, test = (self._read(files) for files in self.files())
        return Dataset(
            name=self.name,
            train=ImageSplit(*train, normalise, jitter, device),
            test=ImageSplit(*test, normalise, None, device),
            num_classes=len(self.class_names()),
            input_shape=(1, SIZE, SIZE),
            class_names=self.class_names(),
        )

    def files(self) -> tuple[Files, Files]:
        """Find the training and the test files.

        Raises:
            DataError: One is not there.
        """
        folder = expanded(self.path)
        try:
            train, test = (
                Files(
                    find_idx(folder, f"{prefix}-images-idx3-ubyte", self.name),
                    find_idx(folder, f"{prefix}-labels-idx1-ubyte", self.name),
                )
                for prefix in self.prefixes()
            )
        except DataError as error:
            raise DataError(f"{error}. Jobs never download: {self.source}") from error
        return train, test

    def prefixes(self) -> tuple[str, str]:
        """Return what the names of the training and of the test files begin with."""
        return "train", "t10k"

    def sizes(self) -> tuple[int, int]:
        """Return the published numbers of training and test images."""
        return self.published

    def class_names(self) -> tuple[str, ...]:
        """Return the names of the classes, in the order of the labels."""
        return self.classes

    def first_label(self) -> int:
        """Return the label of the first class in the files."""
        return 0

    def arrange(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn images as they lie in the file, (n, 28, 28), the right way up."""
        return images

    def _facts(self, num_train: int, num_test: int) -> Facts:
        return Facts(
            num_train=num_train,
            num_test=num_test,
            num_classes=len(self.class_names()),
            input_shape=(1, SIZE, SIZE),
            resident_bytes=(num_train + num_test) * _SAMPLE_BYTES,
        )

    def _check_header(self, files: Files) -> int:
        """Return the number of samples, if images and labels agree about it."""
        count, *size = read_shape(files.images, 3)
        if size != [SIZE, SIZE]:
            raise DataError(
                f"{files.images}: its images have {size[0]} x {size[1]} pixels, those of "
                f"{self.name} {SIZE} x {SIZE}"
            )
        (labels,) = read_shape(files.labels, 1)
        if labels != count:
            raise DataError(
                f"{files.images} has {count} images, but {files.labels.name} beside it {labels} "
                "labels; there must be as many: they are not of one data set"
            )
        return count

    def _read(self, files: Files) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Images (n, 1, 28, 28) and targets from 0."""
        self._check_header(files)
        images, labels = read_idx(files.images, 3), read_idx(files.labels, 1)
        first, last = self.first_label(), self.first_label() + len(self.class_names()) - 1
        wrong = ((labels < first) | (labels > last)).nonzero()[0]
        if len(wrong):
            raise DataError(
                f"{files.labels}: label {wrong[0]} is {labels[wrong[0]]}; those of {self.name} "
                f"are {first} to {last}"
            )
        return self.arrange(images)[:, None], labels.astype("int64") - first

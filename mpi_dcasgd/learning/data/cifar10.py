"""CIFAR-10 (Krizhevsky 2009) through torchvision, held in memory as bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mpi_dcasgd.errors import DataError
from mpi_dcasgd.learning.data.augment import crop_and_flip
from mpi_dcasgd.learning.data.splits import Dataset, TensorSplit
from mpi_dcasgd.learning.vision import torchvision

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the training set


def load_cifar10(path: str, augment: bool, device: torch.device) -> Dataset:
    """The 50,000 training and 10,000 test images.

    Args:
        path: The folder that holds ``cifar-10-batches-py``.
        augment: Crop with a margin of four pixels and flip.
        device: Where the images are kept.

    Raises:
        DataError: They are not there, or are not what they should be.
    """
    train, test = (_read(path, train) for train in (True, False))
    normalize = (torch.tensor(MEAN, device=device), torch.tensor(STD, device=device))

    def split(source: Any, wanted: bool) -> TensorSplit:
        images = torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous().to(device)
        targets = torch.tensor(source.targets, dtype=torch.int64, device=device)
        return TensorSplit(images, targets, crop_and_flip if wanted else None, normalize)

    return Dataset(
        name="cifar10",
        train=split(train, augment),
        test=split(test, False),
        num_classes=10,
        input_shape=(3, 32, 32),
        class_names=tuple(train.classes),
    )


def _read(path: str, train: bool) -> Any:
    try:
        return torchvision().datasets.CIFAR10(path, train=train, download=False)
    except (RuntimeError, OSError) as error:
        expected = Path(path) / "cifar-10-batches-py"
        raise DataError(
            f"data.path {path}: no CIFAR-10 there ({expected} is missing or damaged: {error}). "
            'Jobs download nothing; on a node with a network: python -c "import torchvision; '
            f"torchvision.datasets.CIFAR10('{path}', download=True)\""
        ) from error

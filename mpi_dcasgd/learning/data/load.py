"""From a job's ``data:`` section to a data set."""

from __future__ import annotations

import os
import re
from dataclasses import fields
from pathlib import Path

import torch

from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning.data import cifar, digits, folder, synthetic
from mpi_dcasgd.learning.data.dataset import Dataset, Facts
from mpi_dcasgd.learning.settings import DataSettings

_CPU = torch.device("cpu")

_USED_BY: dict[str, tuple[str, ...]] = {
    "path": ("cifar10", "imagefolder"),
    **dict.fromkeys(
        ("image_size", "train_split", "test_split", "loaders", "cache"), ("imagefolder",)
    ),
    **dict.fromkeys(("num_train", "num_test", "shape", "num_classes", "noise"), ("synthetic",)),
}


def check_data(settings: DataSettings) -> list[str]:
    """What is wrong with the settings, one line each beginning with the key.

    Whether files exist is left to ``describe`` and ``load_dataset``: a job may be checked on
    another machine than the one that it runs on.
    """
    name = settings.name
    problems = [
        f"{field.name}: {name} has no such setting (it is for {' and '.join(users)}); leave it out"
        for field in fields(settings)
        if (users := _USED_BY.get(field.name))
        and name not in users
        and getattr(settings, field.name) != field.default
    ]
    if name in _USED_BY["path"]:
        problems += _check_path(settings)
    if settings.augment == "standard" and name == "synthetic":
        problems.append("augment: synthetic samples have none; set none or auto")
    if settings.cache == "on" and name == "imagefolder" and settings.image_size > folder.SMALL:
        problems.append(
            f"cache: on needs image_size <= {folder.SMALL}, got {settings.image_size}: larger "
            "images are cropped anew from the file each time"
        )
    return problems


def load_dataset(settings: DataSettings, seed: int, device: torch.device = _CPU) -> Dataset:
    """Load the data set, or make it ready to be read.

    Args:
        settings: Which one.
        seed: The job's seed; only ``synthetic`` depends on it.
        device: Where batches will be.

    Raises:
        ConfigError: The settings contradict each other; keys relative to ``data``.
        DataError: Files are missing or not what they should be.
        UserError: torchvision is needed and cannot be imported.
    """
    _refuse(settings)
    augment = _augments(settings)
    if settings.name == "digits":
        return digits.load_digits(augment, device)
    if settings.name == "synthetic":
        return synthetic.load_synthetic(settings, seed, device)
    if settings.name == "cifar10":
        return cifar.load_cifar10(data_path(settings), augment, device)
    return folder.load_folder(settings, data_path(settings), augment, device)


def describe(settings: DataSettings) -> Facts:
    """Sizes without loading samples; files are looked for, and counted for ``imagefolder``.

    Raises:
        ConfigError, DataError, UserError: As ``load_dataset``.
    """
    _refuse(settings)
    if settings.name == "digits":
        digits.check_digits()
        return digits.FACTS
    if settings.name == "synthetic":
        return synthetic.synthetic_facts(settings)
    if settings.name == "cifar10":
        cifar.check_cifar10(data_path(settings))
        return cifar.FACTS
    return folder.folder_facts(settings, data_path(settings))


def list_files(settings: DataSettings) -> folder.Listings | None:
    """What it takes many requests to a file system to find out: once is enough for all ranks.

    Returns:
        The files of an ``imagefolder``; None for data of few files.

    Raises:
        DataError: As ``load_dataset``.
    """
    if settings.name != "imagefolder":
        return None
    _refuse(settings)
    return folder.list_folders(settings, data_path(settings))


def tell_files(settings: DataSettings, found: folder.Listings | None) -> None:
    """Take ``list_files``'s word for it in this process, and look only whether the data are here.

    Raises:
        DataError: They are not.
    """
    if found is not None:
        folder.tell_folders(settings, data_path(settings), found)


def find_files(settings: DataSettings) -> None:
    """See whether the folders that ``list_files`` would walk are here.

    Raises:
        DataError: One of them is not.
    """
    if settings.name == "imagefolder":
        _refuse(settings)
        folder.find_folders(settings, data_path(settings))


def data_path(settings: DataSettings) -> Path:
    """The folder that the job names, with ``~`` and variables expanded."""
    return Path(os.path.expandvars(settings.path or "")).expanduser()


def _check_path(settings: DataSettings) -> list[str]:
    if not settings.path:
        return [f"path: missing; {settings.name} needs the folder where its files are"]
    unset = re.findall(r"\$\w+|\$\{\w+\}", str(data_path(settings)))
    return [f"path: {name} is not set in the environment" for name in unset]


def _refuse(settings: DataSettings) -> None:
    problems = check_data(settings)
    if problems:
        raise ConfigError("data", problems)


def _augments(settings: DataSettings) -> bool:
    if settings.augment == "auto":
        return settings.name in _USED_BY["path"]
    return settings.augment == "standard"

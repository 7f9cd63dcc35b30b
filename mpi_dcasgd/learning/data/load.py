"""The table of data sets, and what a run asks of any of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.extension import Table, import_object, is_path
from mpi_dcasgd.learning.data.dataset import Dataset, Facts
from mpi_dcasgd.learning.data.part import facts_with_validation, hold_out
from mpi_dcasgd.learning.data.source import DataSource

if TYPE_CHECKING:
    import torch

DATA: Table[DataSource] = Table(
    DataSource,
    {
        "digits": "mpi_dcasgd.learning.data.digits:Digits",
        "synthetic": "mpi_dcasgd.learning.data.synthetic:Synthetic",
        "mnist": "mpi_dcasgd.learning.data.mnist:Mnist",
        "fashion-mnist": "mpi_dcasgd.learning.data.fashion_mnist:FashionMnist",
        "kmnist": "mpi_dcasgd.learning.data.kmnist:Kmnist",
        "emnist": "mpi_dcasgd.learning.data.emnist:Emnist",
        "cifar10": "mpi_dcasgd.learning.data.cifar:Cifar10",
        "cifar100": "mpi_dcasgd.learning.data.cifar100:Cifar100",
        "arrays": "mpi_dcasgd.learning.data.arrays:Arrays",
        "text": "mpi_dcasgd.learning.data.text:Text",
        "imagefolder": "mpi_dcasgd.learning.data.folder:ImageFolder",
    },
)
"""Name in job files to where the settings are."""


def find_data(name: object, given: Iterable[str] = ()) -> type[DataSource]:
    """Look up the settings class of a data set: built in, or the user's own.

    Args:
        name: A key of ``DATA``, or ``package.module:Name`` of a ``DataSource`` or of a function
            that returns data.
        given: Keys that a job gives, for a function that takes any.

    Raises:
        UserError: There is no such data set.
    """
    if not isinstance(name, str) or name in DATA or not is_path(name):
        return DATA.find(name)
    found: Any = import_object(name)
    if isinstance(found, type) and issubclass(found, DataSource):
        return found
    from mpi_dcasgd.learning.data.function import function_data

    return function_data(name, given)


def load_dataset(data: DataSource, seed: int, device: torch.device | None = None) -> Dataset:
    """Load a data set, or make it ready to be read, with the validation samples set apart.

    Args:
        data: The settings.
        seed: The job's seed; only data that are made up depend on it.
        device: Where batches will be; None for the CPU.

    Raises:
        ConfigError: The settings contradict each other; keys relative to ``data``.
        DataError: Files are missing or not what they should be, or so are the samples.
        UserError: torchvision is needed and cannot be imported.
    """
    import torch

    from mpi_dcasgd.learning.data.contents import check_contents

    _refuse(data)
    dataset = data.load(seed, torch.device("cpu") if device is None else device)
    check_contents(dataset)
    held_out = data.validation and dataset.validation is None
    return hold_out(dataset, data.validation) if held_out else dataset


def describe(data: DataSource) -> Facts:
    """Tell a data set's sizes, with a look at its files.

    Raises:
        ConfigError, DataError, UserError: As ``load_dataset``.
    """
    _refuse(data)
    return _split_off(data, data.facts())


def known_facts(data: DataSource) -> Facts | None:
    """Tell a data set's sizes if they follow from the settings alone.

    Raises:
        ConfigError: So many validation samples cannot be; keys relative to ``data``.
    """
    facts = data.known()
    return None if facts is None else _split_off(data, facts)


def _split_off(data: DataSource, facts: Facts) -> Facts:
    """The sizes once the validation samples are set apart, if the data set has not done it."""
    if facts.num_validation or not data.validation:
        return facts
    return facts_with_validation(facts, data.validation)


def find_files(data: DataSource) -> None:
    """Check on every rank that the folders which ``list_files`` would walk are there.

    Raises:
        ConfigError, DataError: As ``load_dataset``.
    """
    _refuse(data)
    data.find_files()


def list_files(data: DataSource) -> Any:
    """Find out what takes many requests to a file system: once is enough for all ranks.

    Returns:
        What the data set found, for ``tell_files``; None for data of few files.

    Raises:
        ConfigError, DataError: As ``load_dataset``.
    """
    _refuse(data)
    return data.list_files()


def tell_files(data: DataSource, found: Any) -> None:
    """Take ``list_files``'s word for it in this process.

    Raises:
        DataError: The data are not here.
    """
    if found is not None:
        data.tell_files(found)


def _refuse(data: DataSource) -> None:
    problems = data.check()
    if problems:
        raise ConfigError("data", problems)

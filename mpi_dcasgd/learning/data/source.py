"""Base of all data sets: settings that are checked, described and loaded."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.learning.data.dataset import Dataset, Facts
from mpi_dcasgd.learning.settings import Named

if TYPE_CHECKING:
    import torch

Augment = Literal["auto", "standard", "none"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataSource(Named):
    """Settings of a data set, from which any rank can load it.

    A subclass is a frozen dataclass whose fields are the settings that a job may give in its
    ``data:`` section. It must override ``load``; the other methods have defaults that suit data
    of few files. Importing its module must not take long, since every job that names it is
    checked with it: import PyTorch within ``load``.

    Example:
        A data set in ``my_data.py``, for a job with ``data: {name: "my_data:Parity", bits: 8}``::

            @dataclass(frozen=True, kw_only=True, config=STRICT)
            class Parity(DataSource):
                bits: Annotated[int, Field(ge=1, description="bits of a sample")] = 4

                def load(self, seed, device):
                    ...
                    return Dataset(name="parity", train=train, test=test, ...)
    """

    @property
    def tickets_ahead(self) -> int:
        """Minibatches that a worker loads ahead where a job says ``ahead: auto``."""
        return 0

    validation: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="fraction of the training samples that choose the best weights and are "
            "not trained on",
        ),
    ] = 0.0

    def known(self) -> Facts | None:
        """Tell the sizes that follow from the settings alone, without a look at any file.

        A job is checked with them, perhaps on another machine than the one that it runs on. The
        samples that ``validation`` takes are still among the training samples.

        Returns:
            The sizes, or None if files decide them.
        """
        return None

    def facts(self) -> Facts:
        """Tell the sizes, with a look at the files where they decide.

        Unless overridden, these are ``known()`` or those of the loaded data.

        Raises:
            DataError: Files are missing or not what they should be.
        """
        known = self.known()
        if known is not None:
            return known
        import torch

        return Facts.of(self.load(0, torch.device("cpu")))

    def load(self, seed: int, device: torch.device) -> Dataset:
        """Load the data, or make them ready to be read.

        Unless the result has a validation split, ``load_dataset`` takes the fraction
        ``validation`` of its training samples for one.

        Args:
            seed: The job's seed, for data that are made up; others must not depend on it.
            device: Where batches will be.

        Raises:
            DataError: Files are missing or not what they should be.
        """
        raise NotImplementedError(f"{type(self).__name__} must override load")

    def find_files(self) -> None:
        """Check on every rank that what ``list_files`` would walk is there.

        Raises:
            DataError: It is not.
        """

    def list_files(self) -> Any:
        """Find out on rank 0 what takes many requests to a file system, for all ranks.

        Returns:
            Anything that can be pickled, for ``tell_files``; None for data of few files.

        Raises:
            DataError: Files are missing or not what they should be.
        """
        return None

    def tell_files(self, found: Any) -> None:
        """Take over what ``list_files`` found on rank 0, on every rank.

        Args:
            found: What it returned, never None.
        """


def expanded(path: str | None) -> Path:
    """Expand ``~`` and variables in a folder that a job names."""
    return Path(os.path.expandvars(path or "")).expanduser()


def check_path(
    name: str, path: str | None, what: str = "the folder where its files are"
) -> list[str]:
    """Find out whether a data set is told its folder, and all variables in it are set."""
    if not path:
        return [f"path: missing; {name} needs {what}"]
    unset = re.findall(r"\$\w+|\$\{\w+\}", str(expanded(path)))
    return [f"path: {variable} is not set in the environment" for variable in unset]

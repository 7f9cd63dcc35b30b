"""Data sets: a training and a test split that serve batches by sample number."""

from mpi_dcasgd.learning.data.dataset import Dataset, Facts, ResidentSplit, Split, augments
from mpi_dcasgd.learning.data.load import (
    check_data,
    describe,
    find_files,
    list_files,
    load_dataset,
    tell_files,
)

__all__ = [
    "Dataset",
    "Facts",
    "ResidentSplit",
    "Split",
    "augments",
    "check_data",
    "describe",
    "find_files",
    "list_files",
    "load_dataset",
    "tell_files",
]

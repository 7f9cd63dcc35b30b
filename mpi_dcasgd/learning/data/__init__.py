"""Data sets: a training and a test split that serve batches by sample number."""

from mpi_dcasgd.learning.data.dataset import Dataset, Facts, ResidentSplit, Split, augments
from mpi_dcasgd.learning.data.load import (
    DATA,
    describe,
    find_data,
    find_files,
    known_facts,
    list_files,
    load_dataset,
    tell_files,
)
from mpi_dcasgd.learning.data.part import Part
from mpi_dcasgd.learning.data.source import DataSource

__all__ = [
    "DATA",
    "DataSource",
    "Dataset",
    "Facts",
    "Part",
    "ResidentSplit",
    "Split",
    "augments",
    "describe",
    "find_data",
    "find_files",
    "known_facts",
    "list_files",
    "load_dataset",
    "tell_files",
]

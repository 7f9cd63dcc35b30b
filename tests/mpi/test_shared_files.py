"""Folders of images are walked by one rank for all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytestmark = pytest.mark.mpi

PROGRAM = """
import sys
import numpy as np
from mpi4py import MPI
from mpi_dcasgd.drivers.startup import share_files
from mpi_dcasgd.errors import UserError
from mpi_dcasgd.learning.data import describe, load_dataset
from mpi_dcasgd.learning.data.folder import ImageFolder
from mpi_dcasgd.learning.vision import torchvision

comm = MPI.COMM_WORLD
settings = ImageFolder(path=sys.argv[1], image_size=8, loaders=1)
walked = []
walk = torchvision().datasets.ImageFolder
torchvision().datasets.ImageFolder = lambda path: walked.append(path) or walk(path)
try:
    share_files(comm, settings)
    train = load_dataset(settings, 0).train
    pixels, _ = train.batch(np.array([3, 0]), None)
    said = len(walked), len(train), describe(settings).num_test, float(pixels.mean())
except UserError as error:
    said = str(error)
found = comm.gather(said)
if comm.rank == 0:
    print(*found, sep="\\n", flush=True)
"""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for split, count in (("train", 3), ("val", 1)):
        for name in ("cat", "dog"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                color = (60 * number, 90, 200 if name == "cat" else 20)
                Image.new("RGB", (8, 8), color).save(folder / f"{number}.png")
    return tmp_path / "images"


def share(mpirun: Callable[..., Any], images: Path) -> list[str]:
    finished = mpirun(3, "-c", PROGRAM, str(images))
    assert finished.status == 0, finished
    lines: list[str] = finished.stdout.splitlines()
    return lines


def test_all_ranks_know_the_files_that_one_has_listed(
    mpirun: Callable[..., Any], images: Path
) -> None:
    first, *others = share(mpirun, images)
    assert first.startswith("(2, 6, 2, "), "it lists both splits, once"
    assert others == 2 * [first.replace("(2, ", "(0, ", 1)]


def test_data_that_are_missing_are_told_once(mpirun: Callable[..., Any], images: Path) -> None:
    (images / "val").rename(images / "nowhere")
    lines = share(mpirun, images)
    assert len(set(lines)) == 1
    assert "has neither test nor val" in lines[0]

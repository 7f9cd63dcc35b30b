"""Folders of images are walked by one rank for all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytestmark = pytest.mark.mpi


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


def share(shared_world: Callable[..., Any], images: Path) -> list[Any]:
    return [answer.value for answer in shared_world("world_calls:walk", images, ranks=3)]


def test_all_ranks_know_the_files_that_one_has_listed(
    shared_world: Callable[..., Any], images: Path
) -> None:
    (walked, *first), *others = share(shared_world, images)
    assert (walked, *first[:2]) == (2, 6, 2), "it lists both splits, once"
    assert others == 2 * [[0, *first]]


def test_data_that_are_missing_are_told_once(
    shared_world: Callable[..., Any], images: Path
) -> None:
    (images / "val").rename(images / "nowhere")
    told = share(shared_world, images)
    assert told == 3 * [told[0]]
    assert "has neither test nor val" in told[0]

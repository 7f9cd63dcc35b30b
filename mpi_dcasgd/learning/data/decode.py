"""From image files to arrays of bytes of one size, with Pillow, on threads.

Pillow gives up the interpreter's lock while it decodes and resizes, and threads, unlike forked
processes, are safe in a process that runs MPI. The result depends on the file and the box alone,
never on which thread did it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpi_dcasgd.errors import DataError
from mpi_dcasgd.learning.data.rgb import as_rgb

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in the image's own pixels."""

_ATTEMPTS = 10


@dataclass(frozen=True)
class Crop:
    """Part of an image to use, as a function of the image's size, perhaps mirrored."""

    box: Callable[[int, int], Box]
    flip: bool = False


def centre_crop(part: float) -> Crop:
    """The square in the middle, its side ``part`` of the image's shorter side."""

    def box(width: int, height: int) -> Box:
        side = part * min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side

    return Crop(box)


def random_crops(n: int, rng: np.random.Generator) -> Iterator[Crop]:
    """``n`` crops of 8 to 100 % of the area and a shape of 3:4 to 4:3, half of them mirrored.

    All numbers are drawn at once, so that a crop does not depend on the sizes of other images.

    Source: C. Szegedy et al., "Going deeper with convolutions", CVPR 2015, section 6.
    """
    draws = rng.random((n, 2 * _ATTEMPTS + 3))
    for row in draws:
        yield Crop(_random_box(row), bool(row[-1] < 0.5))


def _random_box(draws: NDArray[np.float64]) -> Callable[[int, int], Box]:
    areas = 0.08 + 0.92 * draws[:_ATTEMPTS]
    ratios = np.exp(math.log(4 / 3) * (2 * draws[_ATTEMPTS : 2 * _ATTEMPTS] - 1))
    across, down = draws[-3], draws[-2]

    def box(width: int, height: int) -> Box:
        for area, ratio in zip(areas, ratios, strict=True):
            w = round(math.sqrt(area * ratio * width * height))
            h = round(math.sqrt(area / ratio * width * height))
            if 0 < w <= width and 0 < h <= height:
                left = int(across * (width - w + 1))
                top = int(down * (height - h + 1))
                return left, top, left + w, top + h
        return centre_crop(1.0).box(width, height)

    return box


def read_image(path: str, crop: Crop, size: int) -> NDArray[np.uint8]:
    """The cropped part of an image file as RGB, (size, size, 3).

    Raises:
        DataError: The file is missing or is not an image that can be shown in RGB.
    """
    from PIL import Image

    try:
        with Image.open(path) as opened:
            image = as_rgb(opened)
    except MemoryError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{path}: is too large an image ({error}); make it smaller before training"
        ) from error
    except Exception as error:  # a damaged file makes Pillow's decoders raise anything
        raise DataError(
            f"{path}: cannot be read as an image ({error}); repair or remove it"
        ) from error
    box = crop.box(*image.size)
    if image.size != (size, size) or box != (0, 0, size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR, box)
    if crop.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image)


def read_images(
    paths: list[str],
    crops: list[Crop],
    out: NDArray[np.uint8],
    executor: Executor | None,
    parts: int,
) -> None:
    """Read image ``i`` into ``out[i]``, ``out`` (n, size, size, 3), on ``parts`` threads.

    Raises:
        DataError: One of them cannot be read.
    """

    def read_part(part: int) -> None:
        for i in range(part, len(paths), parts):
            out[i] = read_image(paths[i], crops[i], out.shape[1])

    if executor is None:
        read_part(0)
        return
    for _ in executor.map(read_part, range(parts)):
        pass

"""Write a made-up folder of JPEG images in ImageNet's layout, to try out jobs that read one.

``python -m mpi_dcasgd.tools.made_images DIR --classes 10 --train 50 --val 10`` writes
``DIR/train/class-000/00000.jpg`` and so on. Each class has a colour and stripes of its own, under
noise, so that there is something to learn; the same arguments write the same files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpi_dcasgd.errors import DataError, UserError

_QUALITY = 90
_NOISE = 40.0  # of 255


def write_images(
    folder: Path, *, classes: int = 10, train: int = 50, val: int = 10, size: int = 256
) -> int:
    """Write the images of both splits.

    Args:
        folder: Must not be there, or be empty.
        classes: Folders of each split.
        train: Images of a class in the folder train.
        val: Images of a class in the folder val.
        size: Width of an image; heights differ, as those of photographs do.

    Returns:
        The number of images.

    Raises:
        DataError: The folder holds something, or Pillow is missing.

    Example:
        >>> write_images(Path("made-up"), classes=2, train=2, val=1, size=16)
        6
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(f"Pillow is needed to write JPEGs ({error}); pip install pillow") from error
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: is there already and not an empty folder; name another")
    for split, (name, count) in enumerate((("train", train), ("val", val))):
        for label in range(classes):
            place = folder / name / f"class-{label:03d}"
            place.mkdir(parents=True)
            for number in range(count):
                rng = np.random.default_rng((split, label, number))
                image = Image.fromarray(_picture(label, size, rng))
                image.save(place / f"{number:05d}.jpg", quality=_QUALITY)
    return classes * (train + val)


def _picture(label: int, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Stripes of a class's colour, width and slope, at a random place."""
    look = np.random.default_rng((2, label))
    height = int(size * rng.uniform(0.75, 1.25))
    rows, columns = np.mgrid[0:height, 0:size] / size
    slope, waves = look.uniform(0, np.pi), look.uniform(4, 16)
    along = rows * np.sin(slope) + columns * np.cos(slope)
    stripes = 0.5 + 0.5 * np.sin(2 * np.pi * (waves * along + rng.uniform()))
    dark, bright = look.uniform(0, 128, 3), look.uniform(128, 255, 3)
    picture = dark + stripes[..., None] * (bright - dark)
    picture += rng.normal(0, _NOISE, picture.shape)
    return np.asarray(picture.clip(0, 255), dtype=np.uint8)


def main(argv: Sequence[str] | None = None) -> int:
    """Write images as the command line says.

    Returns:
        The exit status: 2 for a user's mistake, which is told on stderr.
    """
    parser = argparse.ArgumentParser(
        prog="python -m mpi_dcasgd.tools.made_images",
        description=(__doc__ or "").partition("\n")[0],
    )
    parser.add_argument("folder", type=Path, help="where train/ and val/ are written")
    sizes = {
        "classes": (10, "folders of each split"),
        "train": (50, "training images of a class"),
        "val": (10, "validation images of a class"),
        "size": (256, "width of an image"),
    }
    for name, (default, what) in sizes.items():
        parser.add_argument(
            f"--{name}", type=_positive, default=default, help=f"{what} ({default})"
        )
    args = parser.parse_args(argv)
    try:
        count = write_images(
            args.folder, classes=args.classes, train=args.train, val=args.val, size=args.size
        )
    except UserError as error:
        print(f"made_images: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"made_images: {args.folder}: cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    print(f"{args.folder}: {count} images of {args.classes} classes")
    return 0


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


if __name__ == "__main__":
    sys.exit(main())

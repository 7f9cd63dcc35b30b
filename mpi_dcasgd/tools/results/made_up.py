"""Images that the short form of a study makes up where those of the study are not at hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpi_dcasgd.tools.results.kept import Kept

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist has put it, and the studies look for it."""


def made_up(shape: tuple[int, ...], **settings: Any) -> Mapping[str, Any]:
    """Return settings of data that are made up: learnt within an epoch or two, but not wholly.

    Args:
        shape: Of an image.
        settings: Further ones of the data set ``synthetic``, or others than these.
    """
    return {"name": "synthetic", "shape": list(shape), "num_train": 4096, "noise": 8} | settings


def like_fashion_mnist(kept: Kept, **settings: Any) -> Mapping[str, Any] | None:
    """Return settings of data in place of Fashion-MNIST, and say so; None where that is at hand.

    Args:
        kept: What is shown of the study is shown there.
        settings: Of the data; see `made_up`.
    """
    if FASHION_MNIST.is_dir():
        return None
    print(f"no Fashion-MNIST in {FASHION_MNIST}: made-up images instead", file=kept.show)
    return made_up((1, 28, 28), **settings)

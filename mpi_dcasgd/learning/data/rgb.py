"""From any image that Pillow opens to what it shows, in 8 bits of red, green and blue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

_DIRECT = ("1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV")
_SIXTEEN = ("PNG", "PPM", "JPEG2000")
"""Formats whose gray images of mode I are of 16 bits."""

_TIFF_BITS, _TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


def as_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB as it looks.

    Gray of more than 8 bits is scaled so that its white is white. What is transparent shows white
    behind it, as on paper. A rotation that EXIF asks for is not made, as in torchvision.

    Args:
        image: As opened; its pixels are read.

    Raises:
        ValueError: Nothing says how bright its numbers are, or Pillow has no way to RGB.
    """
    from PIL import Image

    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or (
        image.mode in _DIRECT and "transparency" in image.info
    ):
        shown = image.convert("RGBA")
        paper = Image.new("RGBA", shown.size, "white")
        return Image.alpha_composite(paper, shown).convert("RGB")
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN):
        return Image.fromarray(_eight_bits(image)).convert("RGB")
    if image.mode in _DIRECT:
        return image.convert("RGB")
    raise ValueError(
        f"its pixels are of Pillow's mode {image.mode}, and nothing says what they look like; save "
        "it as gray or RGB with 8 or 16 bits a channel"
    )


def _eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    """Gray of up to 16 bits, 0 to its white, as 0 to 255."""
    white, inverted = 65535, False
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        white = 2 ** min(16, *tags.get(_TIFF_BITS, (16,))) - 1
        inverted = tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO
    numbers = np.asarray(image).astype(np.uint32)
    scaled = (np.minimum(numbers, white) * 255 + white // 2) // white
    return (255 - scaled if inverted else scaled).astype(np.uint8)

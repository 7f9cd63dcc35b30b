"""Images of every kind come out as they look, and folders are told with what they hold."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mpi_dcasgd.errors import DataError
from mpi_dcasgd.learning.data.decode import centre_crop, read_image
from mpi_dcasgd.learning.data.folder import ImageFolder
from mpi_dcasgd.learning.data.listing import list_images

PIL = pytest.importorskip("PIL")
from PIL import Image  # noqa: E402

RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040  # black to white


def read(path: Path) -> NDArray[np.uint8]:
    return read_image(str(path), centre_crop(1.0), 8)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jp2", "a.pgm"])
def test_gray_of_16_bits_is_not_all_white(tmp_path: Path, name: str) -> None:
    """Pillow's own conversion clips it at 255."""
    Image.fromarray(RAMP).save(tmp_path / name)
    Image.fromarray((RAMP // 257).astype(np.uint8)).save(tmp_path / "eight.png")
    found = read(tmp_path / name)
    assert np.abs(found.astype(int) - read(tmp_path / "eight.png")).max() <= 1
    assert found.min() == 0
    assert found.max() == 255


def test_a_tiff_whose_white_is_zero_is_shown_so(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "inverted.tif", tiffinfo={262: 0})
    assert read(tmp_path / "inverted.tif")[0, 0, 0] >= 254
    assert read(tmp_path / "inverted.tif")[7, 7, 0] <= 1


def test_a_tiff_of_12_bits_has_a_white_of_its_own(tmp_path: Path) -> None:
    tags = {256: 2, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 3}
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    pixels = b"\xff\xf8\x00\0"  # 4095 and 2048
    body = struct.pack("<H", len(tags)) + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 12) + pixels + body)
    found = read_image(str(tmp_path / "a.tif"), centre_crop(1.0), 1)
    assert found.ravel().tolist() == [192] * 3, "the mean of white and gray"


def png(path: Path, depth: int, kind: int, row: bytes, *chunks: tuple[bytes, bytes]) -> Path:
    """One pixel, of a depth that Pillow does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, depth, kind, 0, 0, 0))
    body = b"".join(chunk(*one) for one in chunks)
    data = chunk(b"IDAT", zlib.compress(b"\0" + row))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + body + data + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize(
    ("depth", "kind", "row", "chunks", "colour"),
    [
        pytest.param(1, 0, b"\x80", (), (255, 255, 255), id="black-and-white"),
        pytest.param(2, 0, b"\x40", (), (85, 85, 85), id="gray-2"),
        pytest.param(4, 0, b"\x30", (), (51, 51, 51), id="gray-4"),
        pytest.param(16, 0, b"\x80\x00", (), (128, 128, 128), id="gray-16"),
        pytest.param(16, 2, b"\xff\xff\x80\x00\x00\x00", (), (255, 128, 0), id="rgb-16"),
        pytest.param(16, 4, b"\x80\x00\xff\xff", (), (128, 128, 128), id="gray-alpha-16"),
        pytest.param(16, 4, b"\x00\x00\x00\x00", (), (255, 255, 255), id="gray-alpha-16-clear"),
        pytest.param(8, 6, b"\x00\x00\x00\x00", (), (255, 255, 255), id="clear"),
        pytest.param(8, 6, b"\xff\x00\x00\x80", (), (255, 127, 127), id="half-red"),
        pytest.param(8, 3, b"\x01", ((b"PLTE", b"\0\0\0\1\2\3"),), (1, 2, 3), id="palette"),
        pytest.param(
            8,
            3,
            b"\x01",
            ((b"PLTE", b"\0\0\0\1\2\3"), (b"tRNS", b"\xff\x00")),
            (255, 255, 255),
            id="palette-clear",
        ),
    ],
)
def test_a_png_shows_its_colour(
    tmp_path: Path,
    depth: int,
    kind: int,
    row: bytes,
    chunks: tuple[tuple[bytes, bytes], ...],
    colour: tuple[int, int, int],
) -> None:
    found = read(png(tmp_path / "a.png", depth, kind, row, *chunks))
    assert tuple(found[4, 4]) == colour


def test_cmyk_is_converted(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=100)
    red, green, blue = (int(value) for value in read(tmp_path / "red.jpg")[4, 4])
    assert red > 245
    assert max(green, blue) < 10


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_numbers_without_a_white_are_refused_by_name(tmp_path: Path, kind: type) -> None:
    Image.fromarray(RAMP.astype(kind)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif: cannot be read as an image .*mode [IF],"):
        read(tmp_path / "a.tif")


def test_whatever_a_damaged_file_makes_pillow_raise_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.png")

    def fail(path: str) -> None:
        raise RuntimeError("Failed to decode frame 0")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(DataError, match=r"a\.png: cannot be read as an image \(Failed to decode"):
        read(tmp_path / "a.png")


def test_an_image_beyond_pillows_limit_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(DataError, match=r"a\.png: is too large an image .*; make it smaller"):
        read(tmp_path / "a.png")


# Folders


def fill(root: Path, *classes: str) -> Path:
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for one in range(2):
            Image.new("RGB", (8, 8), (number, one, 0)).save(root / name / f"{one}.png")
    return root


def names(root: Path) -> list[str]:
    return [os.path.relpath(path, root) for path in list_images(root).paths]


def test_hidden_files_are_no_data_and_all_that_is_left_out_is_told(tmp_path: Path) -> None:
    fill(tmp_path, "cat", "dog", ".ipynb_checkpoints", "__MACOSX", "dog/.cache")
    (tmp_path / "cat" / "._0.png").write_bytes(b"resource fork")
    (tmp_path / "cat" / "clip.mp4").write_bytes(b"x")
    (tmp_path / "cat" / "README").write_bytes(b"x")
    (tmp_path / "loose.png").write_bytes(b"x")
    (tmp_path / "dog" / "again").symlink_to(tmp_path / "dog")
    found = list_images(tmp_path)
    assert found.classes == ("cat", "dog")
    assert found.targets.tolist() == [0, 0, 1, 1]
    assert names(tmp_path) == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]
    assert found.left_out == (
        "4 hidden",
        "1 in a circle of links",
        "1 outside of the class folders",
        "2 of other types (no ending, .mp4)",
    )


def test_images_are_in_the_order_of_torchvision(tmp_path: Path) -> None:
    """Traces and checkpoints of earlier runs number them so."""
    for name in ("b/deep/x", "b/Deep", "b/deep-er", "a/z", "a.b"):
        fill(tmp_path, name)
    for name in ("a", "b"):
        Image.new("RGB", (8, 8)).save(tmp_path / name / "10.JPEG")
        Image.new("RGB", (8, 8)).save(tmp_path / name / "9.png")
    expected = []
    for kind in sorted(entry.name for entry in os.scandir(tmp_path)):
        for root, _, files in sorted(os.walk(tmp_path / kind, followlinks=True)):
            expected += [os.path.relpath(Path(root) / file, tmp_path) for file in sorted(files)]
    assert names(tmp_path) == expected


def test_the_fingerprint_is_of_names_and_sizes_and_not_of_the_place(tmp_path: Path) -> None:
    one, two = (list_images(fill(tmp_path / n, "cat", "dog")).fingerprint for n in ("1", "2"))
    assert one == two
    file = tmp_path / "2" / "cat" / "1.png"
    file.write_bytes(file.read_bytes() + b"x")
    larger = list_images(tmp_path / "2").fingerprint
    file.rename(file.with_name("01.png"))
    renamed = list_images(tmp_path / "2").fingerprint
    first = tmp_path / "1" / "cat" / "0.png"
    first.write_bytes(first.read_bytes()[::-1])
    assert len({one, larger, renamed, list_images(tmp_path / "1").fingerprint}) == 4


@pytest.mark.parametrize(
    ("kind", "told"),
    [("broken link", "a link to nothing"), ("fifo", "no file"), ("empty", "empty")],
)
def test_what_only_has_the_name_of_an_image_is_refused(
    tmp_path: Path, kind: str, told: str
) -> None:
    fill(tmp_path, "cat", "dog")
    file = tmp_path / "cat" / "2.png"
    if kind == "broken link":
        file.symlink_to(tmp_path / "nowhere")
    elif kind == "fifo":
        os.mkfifo(file)  # to open it would wait for ever
    else:
        file.touch()
    with pytest.raises(DataError, match=rf"cat/2\.png: .*{told}.*remove it"):
        list_images(tmp_path)


def test_a_class_without_images_is_refused_by_name(tmp_path: Path) -> None:
    fill(tmp_path, "cat", "dog")
    (tmp_path / "eel").mkdir()
    with pytest.raises(DataError, match="a folder of images for each class: none in eel"):
        list_images(tmp_path)


@pytest.mark.parametrize("link", [False, True])
def test_one_folder_for_both_splits_is_refused(tmp_path: Path, link: bool) -> None:
    fill(tmp_path / "train", "cat", "dog")
    if link:
        (tmp_path / "val").symlink_to(tmp_path / "train")
    settings = ImageFolder(path=str(tmp_path), test_split="val" if link else "train")
    with pytest.raises(DataError, match="are one folder: what is trained on would be tested on"):
        settings.find_files()

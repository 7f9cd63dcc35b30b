"""Images in IDX files: read as they are published, and every damage told with the file's name."""

from __future__ import annotations

import gzip
import re
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from data_sets import facts_agree, load, source, whole

from mpi_dcasgd.errors import DataError
from mpi_dcasgd.learning.data import describe
from mpi_dcasgd.learning.data.idx import read_idx, read_shape

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
NAMES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    """The bytes of an IDX file."""
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes((0, 0, kind, array.ndim)) + sizes + array.tobytes()


class Folder:
    """A folder of 6 training and 4 test images, with labels from ``first`` on."""

    def __init__(self, root: Path, names: tuple[str, ...] = NAMES, first: int = 0) -> None:
        rng = np.random.default_rng(0)
        self.root = root
        self.images = rng.integers(0, 256, (10, 28, 28), dtype=np.uint8)
        self.labels = (np.arange(10) + first).astype(np.uint8)
        for name, array in zip(
            names,
            (self.images[:6], self.labels[:6], self.images[6:], self.labels[6:]),
            strict=True,
        ):
            self.file(name).write_bytes(idx(array))

    def file(self, name: str) -> Path:
        return self.root / f"{name}-ubyte"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def gzipped(file: Path, change: Callable[[bytes], bytes] = bytes) -> Path:
    """Pack a file as ``file.gz``."""
    packed = file.with_name(f"{file.name}.gz")
    packed.write_bytes(change(gzip.compress(file.read_bytes())))
    file.unlink()
    return packed


MEANS = {"mnist": (0.1307, 0.3081), "fashion-mnist": (0.2860, 0.3530), "kmnist": (0.1918, 0.3483)}


@pytest.mark.parametrize("name", MEANS)
def test_images_are_read_and_normalised(folder: Folder, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PyTorch warns of memory that cannot be written to
        dataset = load(name, path=str(folder.root))
    facts_agree(dataset, source(name, path=str(folder.root)))
    assert (dataset.name, dataset.num_classes) == (name, 10)
    mean, std = MEANS[name]
    inputs, targets = whole(dataset.test)
    assert np.allclose(inputs[:, 0].numpy(), (folder.images[6:] / 255 - mean) / std, atol=1e-5)
    assert targets.tolist() == [6, 7, 8, 9]
    assert whole(dataset.train)[1].tolist() == list(range(6))


def test_files_may_be_gzipped_and_have_a_dot_for_a_hyphen(folder: Folder) -> None:
    expected = whole(load("mnist", path=str(folder.root)).train)
    for name in NAMES:
        gzipped(folder.file(name))
    assert torch.equal(whole(load("mnist", path=str(folder.root)).train)[0], expected[0])
    for name in NAMES:
        file = folder.root / f"{name}-ubyte.gz"
        file.rename(folder.root / f"{name}-ubyte.gz".replace("-idx", ".idx"))
    assert torch.equal(whole(load("mnist", path=str(folder.root)).train)[1], expected[1])


def test_training_images_are_shifted_if_asked_for(folder: Folder) -> None:
    plain, shifted = (
        load("mnist", path=str(folder.root), augment=how).train for how in ("auto", "standard")
    )
    assert torch.equal(whole(plain, 1)[0], whole(plain)[0])
    assert torch.equal(whole(shifted)[0], whole(plain)[0])
    moved = whole(shifted, 1)[0]
    black = whole(plain)[0].min()
    edges = torch.nn.functional.pad(whole(plain)[0], (2,) * 4, value=float("nan"))
    for image, padded in zip(moved, edges, strict=True):
        found = [
            torch.equal(torch.nan_to_num(crop, nan=0), torch.where(crop.isnan(), 0, image))
            for crop in (padded[:, r : r + 28, c : c + 28] for r in range(5) for c in range(5))
        ]
        assert sum(found) == 1, "one shift by up to 2 pixels, and no flip"
    assert moved.min() >= black - 1


@pytest.mark.parametrize(
    ("split", "classes", "sizes", "last"),
    [
        ("balanced", 47, (112_800, 18_800), "t"),
        ("byclass", 62, (697_932, 116_323), "z"),
        ("bymerge", 47, (697_932, 116_323), "t"),
        ("letters", 26, (124_800, 20_800), "z"),
        ("digits", 10, (240_000, 40_000), "9"),
        ("mnist", 10, (60_000, 10_000), "9"),
    ],
)
def test_emnist_has_parts_of_which_letters_begin_at_one(
    tmp_path: Path, split: str, classes: int, sizes: tuple[int, int], last: str
) -> None:
    settings = source("emnist", path=str(tmp_path), split=split)
    known = settings.known()
    assert known is not None
    assert (known.num_train, known.num_test, known.num_classes) == (*sizes, classes)
    first = 1 if split == "letters" else 0
    names = tuple(name.replace("t10k", "test") for name in NAMES)
    folder = Folder(tmp_path, tuple(f"emnist-{split}-{name}" for name in names), first)
    dataset = load("emnist", path=str(tmp_path), split=split)
    facts_agree(dataset, settings)
    assert len(dataset.class_names) == len(set(dataset.class_names)) == classes
    assert dataset.class_names[-1] == last
    inputs, targets = whole(dataset.test)
    assert targets.tolist() == [6, 7, 8, 9]
    upright = (folder.images[6:].transpose(0, 2, 1) / 255 - 0.1736) / 0.3317
    assert np.allclose(inputs[:, 0].numpy(), upright, atol=1e-5)


def test_the_sizes_are_read_from_the_headers_alone(folder: Folder) -> None:
    file = folder.file("train-images-idx3")
    file.write_bytes(file.read_bytes()[:16])
    assert describe(source("mnist", path=str(folder.root))).num_train == 6
    with pytest.raises(DataError, match="only 0 of the 4704 bytes"):
        load("mnist", path=str(folder.root))


def cut(content: bytes) -> bytes:
    return content[:-7]


def lengthened(content: bytes) -> bytes:
    return content + b"garbage"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (cut, "only 4697 of the 4704 bytes that follow from its header, 6 x 28 x 28"),
        (lengthened, "more than the 4704 bytes that follow from its header, 6 x 28 x 28"),
        (lambda c: c[:11], "ends within its header"),
        (lambda c: b"", "begins with nothing: it is empty; an IDX file of images"),
        (lambda c: b"\x89PNG" + c[4:], "begins with 89 50 4e 47; .* begins with 00 00 08 03"),
        (
            lambda c: idx(np.zeros((6, 28, 28), np.float32), 0x0D),
            "begins with 00 00 0d 03; .* begins with 00 00 08 03",
        ),
        (lambda c: idx(np.zeros(6, np.uint8)), "begins with 00 00 08 01"),
        (
            lambda c: idx(np.zeros((6, 32, 30), np.uint8)),
            "its images have 32 x 30 pixels, those of mnist 28 x 28",
        ),
        (
            lambda c: idx(np.zeros((5, 28, 28), np.uint8)),
            "has 5 images, but train-labels-idx1-ubyte beside it 6 labels",
        ),
        (
            lambda c: idx(np.zeros((0, 28, 28), np.uint8)),
            "has 0 images, but train-labels-idx1-ubyte beside it 6 labels",
        ),
    ],
)
def test_damage_is_told_with_the_file(
    folder: Folder, change: Callable[[bytes], bytes], told: str
) -> None:
    file = folder.file("train-images-idx3")
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(DataError, match=f"^{re.escape(str(file))}.*{told}"):
        load("mnist", path=str(folder.root))


@pytest.mark.parametrize("change", [cut, lengthened, lambda c: c[:10] + bytes(40) + c[50:]])
@pytest.mark.parametrize("name", ["train-images-idx3", "t10k-labels-idx1"])
def test_damage_of_a_gzipped_file_is_told_with_the_file(
    folder: Folder, name: str, change: Callable[[bytes], bytes]
) -> None:
    file = gzipped(folder.file(name), change)
    with pytest.raises(DataError, match=f"^{re.escape(str(file))}: cannot be read; truncated"):
        load("mnist", path=str(folder.root))


def test_a_header_that_promises_too_much_does_not_take_memory(tmp_path: Path) -> None:
    file = tmp_path / "images"
    file.write_bytes(bytes((0, 0, 8, 3)) + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 28))
    assert read_shape(file, 3) == (2**32 - 1, 2**32 - 1, 28)
    with pytest.raises(DataError, match="only 0 of"):
        read_idx(file, 3)


@pytest.mark.parametrize(
    ("name", "label", "allowed"),
    [("mnist", 10, "those of mnist are 0 to 9"), ("kmnist", 255, "those of kmnist are 0 to 9")],
)
def test_labels_out_of_range_are_told(folder: Folder, name: str, label: int, allowed: str) -> None:
    labels = folder.labels[:6].copy()
    labels[3] = label
    file = folder.file("train-labels-idx1")
    file.write_bytes(idx(labels))
    with pytest.raises(DataError) as caught:
        load(name, path=str(folder.root))
    assert str(caught.value) == f"{file}: label 3 is {label}; {allowed}"


def test_a_label_zero_is_none_of_emnists_letters(tmp_path: Path) -> None:
    names = tuple(f"emnist-letters-{name.replace('t10k', 'test')}" for name in NAMES)
    Folder(tmp_path, names, first=0)
    with pytest.raises(DataError, match="label 0 is 0; those of emnist are 1 to 26"):
        load("emnist", path=str(tmp_path), split="letters")


@pytest.mark.parametrize("ask", [describe, lambda settings: settings.load(0, torch.device("cpu"))])
def test_missing_files_are_told_with_what_is_there_and_where_to_get_them(
    folder: Folder, ask: Callable[..., object]
) -> None:
    missing = folder.file("t10k-labels-idx1")
    missing.rename(folder.root / "t10k-label-idx1-ubyte")
    with pytest.raises(DataError) as caught:
        ask(source("fashion-mnist", path=str(folder.root)))
    told = str(caught.value)
    assert f"{folder.root} holds no t10k-labels-idx1-ubyte and no t10k-labels-idx1-ubyte.gz" in told
    assert "did you mean t10k-label-idx1-ubyte?" in told
    assert "apt-get install dataset-fashion-mnist" in told
    with pytest.raises(DataError, match=rf"^mnist: no folder {folder.root}/none; check data.path"):
        ask(source("mnist", path=f"{folder.root}/none"))


def test_the_folder_of_debians_package_works_as_it_is() -> None:
    if not DEBIAN.is_dir():
        pytest.skip("the Debian package dataset-fashion-mnist is not installed")
    dataset = load("fashion-mnist", path=str(DEBIAN))
    settings = source("fashion-mnist", path=str(DEBIAN))
    facts_agree(dataset, settings)
    assert describe(settings) == settings.known()
    inputs, targets = whole(dataset.train)
    assert inputs.mean().item() == pytest.approx(0, abs=0.002)
    assert inputs.std().item() == pytest.approx(1, abs=0.002)
    assert torch.bincount(targets).tolist() == [6000] * 10
    assert torch.bincount(whole(dataset.test)[1]).tolist() == [1000] * 10
    assert dataset.class_names[9] == "Ankle boot"

"""Data sets: fixed samples, augmentation that follows the generator alone, and clear refusals."""

from __future__ import annotations

import hashlib
import pickle
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_sets import facts_agree, load, source, whole
from pydantic import ValidationError
from torch import Tensor

from mpi_dcasgd.errors import ConfigError, DataError, UserError
from mpi_dcasgd.learning.data import (
    DATA,
    Facts,
    augments,
    describe,
    digits,
    load_dataset,
)
from mpi_dcasgd.learning.data.decode import centre_crop, random_crops
from mpi_dcasgd.learning.data.images import Jitter
from mpi_dcasgd.vision import torchvision

TEST_DIGITS = "3c05733c55d710109b9a1878ea98f552bb9d33485cd2bddb57cbade1c3c55d6d"
"""SHA-256 of the test images: changing the split would make all published errors incomparable."""


class TestJitter:
    images = torch.arange(1, 7 * 2 * 3 * 4 + 1).view(7, 2, 3, 4)

    def test_crops_and_flips_what_the_generator_says(self) -> None:
        found = Jitter(padding=2, flip=True)(self.images, np.random.default_rng(5))
        rng = np.random.default_rng(5)
        top, left = rng.integers(0, 5, (2, 7))
        flipped = rng.random(7) < 0.5
        assert 0 < flipped.sum() < 7
        for i, image in enumerate(self.images.numpy()):
            padded = np.pad(image, ((0, 0), (2, 2), (2, 2)))
            crop = padded[:, top[i] : top[i] + 3, left[i] : left[i] + 4]
            crop = crop[:, :, ::-1] if flipped[i] else crop
            assert np.array_equal(found[i].numpy(), crop)

    def test_without_flip_the_image_is_only_shifted(self) -> None:
        still = Jitter(padding=0, flip=False)(self.images, np.random.default_rng(5))
        assert torch.equal(still, self.images)

    def test_reaches_every_shift(self) -> None:
        dots = torch.zeros(400, 1, 5, 5, dtype=torch.uint8)
        dots[:, 0, 2, 2] = 1
        moved = Jitter(padding=1, flip=False)(dots, np.random.default_rng(0)).sum(0)[0]
        assert moved.nonzero().tolist() == [[r, c] for r in (1, 2, 3) for c in (1, 2, 3)]


class TestDigits:
    def test_every_image_is_in_one_split_and_both_have_all_digits_evenly(self) -> None:
        dataset = load("digits")
        assert (len(dataset.train), len(dataset.test)) == (1437, 360)
        everything = torch.cat([whole(dataset.train)[0], whole(dataset.test)[0]])
        assert len(everything.flatten(1).unique(dim=0)) == 1797
        counts = torch.bincount(whole(dataset.test)[1], minlength=10)
        assert set(counts.tolist()) <= {35, 36, 37}
        facts_agree(dataset, source("digits"))

    def test_are_scikit_learns_own_standardised(self) -> None:
        bundled = pytest.importorskip("sklearn.datasets").load_digits()
        table = digits._read()
        assert np.array_equal(table[:, :64], bundled.data)
        assert np.array_equal(table[:, 64], bundled.target)
        inputs, _ = whole(load("digits").train)
        assert inputs.mean().item() == pytest.approx(0, abs=0.002)
        assert inputs.std().item() == pytest.approx(1, abs=0.002)

    def test_the_split_is_the_same_for_every_seed_and_for_ever(self) -> None:
        for seed in (0, 7):
            pixels = load("digits", seed=seed).test.images.numpy()
            assert hashlib.sha256(pixels.tobytes()).hexdigest() == TEST_DIGITS

    def test_scikit_learn_is_not_imported(self, processes: Any) -> None:
        script = (
            "import sys; from mpi_dcasgd.learning.data import DATA, load_dataset;"
            "load_dataset(DATA['digits'](name='digits'), 0);"
            "print([name for name in ('sklearn', 'torchvision', 'PIL') if name in sys.modules])"
        )
        assert processes.run([sys.executable, "-c", script]).stdout == "[]\n"

    def test_where_the_file_has_moved_scikit_learn_is_asked(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("sklearn.datasets")
        expected = digits._read()
        elsewhere = types.SimpleNamespace(submodule_search_locations=["/nowhere"])
        monkeypatch.setattr(digits, "find_spec", lambda name: elsewhere)
        assert np.array_equal(digits._read(), expected)

    def test_without_scikit_learn_the_error_says_what_to_do(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(digits, "find_spec", lambda name: None)
        for ask in (load_dataset, lambda settings, seed: describe(settings)):
            with pytest.raises(DataError, match="pip install scikit-learn"):
                ask(source("digits"), 0)

    def test_augmentation_is_asked_for_and_of_training_images_only(self) -> None:
        plain, shifted = load("digits"), load("digits", augment="standard")
        assert torch.equal(whole(plain.train)[0], whole(plain.train, seed=1)[0])
        assert torch.equal(whole(plain.train)[0], whole(shifted.train)[0])
        assert not torch.equal(whole(plain.train)[0], whole(shifted.train, seed=1)[0])
        assert torch.equal(whole(shifted.test)[0], whole(shifted.test, seed=1)[0])
        assert torch.equal(whole(shifted.train, seed=1)[0], whole(shifted.train, seed=1)[0])
        assert [augments(split) for split in (plain.train, shifted.train)] == [False, True]


class TestSynthetic:
    @pytest.mark.parametrize("shape", [(5,), (2, 3), (1, 8, 8), (3, 33, 20), (2, 3, 4, 5)])
    def test_any_shape(self, shape: tuple[int, ...]) -> None:
        settings = {"shape": shape, "num_train": 40, "num_test": 30, "num_classes": 3}
        dataset = load("synthetic", **settings)
        facts_agree(dataset, source("synthetic", **settings))
        assert set(whole(dataset.train)[1].tolist()) == {0, 1, 2}

    def test_follows_from_seed_and_number_alone(self) -> None:
        first, again, other = (load("synthetic", seed=seed).train for seed in (1, 1, 2))
        some = np.array([5, 900, 5])
        inputs, targets = first.batch(some, None)
        assert torch.equal(inputs, again.batch(some, np.random.default_rng(0))[0])
        assert torch.equal(inputs[0], inputs[2])
        assert torch.equal(inputs[1:2], again.batch(some[1:2], None)[0])
        assert not torch.equal(inputs, other.batch(some, None)[0])
        assert not torch.equal(whole(first)[1], whole(other)[1])
        assert targets.tolist() == again.batch(some, None)[1].tolist()

    def test_training_and_test_samples_differ_but_their_classes_agree(self) -> None:
        dataset = load("synthetic", noise=0.0, num_classes=2)
        for split in (dataset.train, dataset.test):
            inputs, targets = whole(split)
            assert len(inputs.flatten(1).unique(dim=0)) == 2
            first = inputs[targets == 0][0]
            assert torch.equal(first, whole(dataset.train)[0][whole(dataset.train)[1] == 0][0])
        noisy = load("synthetic", num_train=500, num_test=500)
        assert not torch.equal(whole(noisy.train)[0], whole(noisy.test)[0])

    def test_noise_and_patterns_have_the_sizes_they_say(self) -> None:
        inputs, _ = whole(load("synthetic", shape=(3, 64, 64), noise=2.0, num_train=64).train)
        assert inputs.var().item() == pytest.approx(1 + 4, rel=0.05)

    def test_can_be_learned_and_is_not_trivial(self) -> None:
        dataset = load("synthetic", noise=3.0)
        inputs, targets = whole(dataset.train)
        centres = torch.stack([inputs[targets == c].mean(0).flatten() for c in range(10)])
        inputs, targets = whole(dataset.test)
        nearest = torch.cdist(inputs.flatten(1), centres).argmin(1)
        assert 0.01 < (nearest != targets).float().mean().item() < 0.3

    def test_imagenets_size_takes_no_memory_for_samples(self) -> None:
        settings = source("synthetic", shape=(3, 224, 224), num_train=1_281_167, num_classes=100)
        assert describe(settings).resident_bytes < 200e6
        split = load_dataset(settings, 0).train
        assert split.batch(np.array([0, 1_281_166]), None)[0].shape == (2, 3, 224, 224)


@pytest.fixture
def needs_torchvision() -> None:
    try:
        torchvision()
    except UserError as error:
        pytest.skip(str(error))


class FakeCifar:
    """A folder like a published one, with 20 training and 10 test images."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
        self.root = folder
        kind_of = getattr(torchvision().datasets, kind)
        batches = folder / kind_of.base_folder
        batches.mkdir()
        rng = np.random.default_rng(0)
        self.images: dict[str, np.ndarray] = {}
        parts = [*((f"data_batch_{i}", 4) for i in range(1, 6)), ("test_batch", 10)]
        if kind == "CIFAR100":
            parts = [("train", 20), ("test", 10)]
        sums = {}
        for name, n in parts:
            self.images[name] = rng.integers(0, 256, (n, 3072), dtype=np.uint8)
            labels: dict[str, Any] = {"labels": [i % 10 for i in range(n)]}
            if kind == "CIFAR100":
                fine = [(7 * i) % 100 for i in range(n)]
                labels = {"fine_labels": fine, "coarse_labels": [f % 20 for f in fine]}
            sums[name] = self._write(batches / name, {"data": self.images[name], **labels})
        meta = kind_of.meta["filename"]
        names = {"label_names": [f"class {i}" for i in range(10)]}
        if kind == "CIFAR100":
            names = {"fine_label_names": [f"class {i}" for i in range(100)]}
            names["coarse_label_names"] = [f"group {i}" for i in range(20)]
        sums[meta] = self._write(batches / meta, names)
        # torchvision checks the published files' MD5 sums.
        listed = [[name, sums[name]] for name, _ in parts]
        monkeypatch.setattr(kind_of, "train_list", listed[:-1])
        monkeypatch.setattr(kind_of, "test_list", listed[-1:])
        monkeypatch.setattr(kind_of, "meta", {**kind_of.meta, "md5": sums[meta]})

    @staticmethod
    def _write(path: Path, content: dict[str, Any]) -> str:
        written = pickle.dumps(content, protocol=2)
        # As NumPy wrote arrays in 2009: its module's old name, and flags of a dtype as integers.
        written = written.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
        written = re.sub(rb"(u1q.)\x89\x88", lambda m: m[1] + b"K\x00K\x01", written)
        assert ("data" in content) == (b"K\x00K\x01" in written)
        path.write_bytes(written)
        return hashlib.md5(written).hexdigest()


@pytest.mark.usefixtures("needs_torchvision")
class TestCifar10:
    def test_pixels_are_normalised_channels_first(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake = FakeCifar(tmp_path, monkeypatch, "CIFAR10")
        dataset = load("cifar10", path=str(fake.root))
        inputs, targets = whole(dataset.test)
        pixels = fake.images["test_batch"].reshape(-1, 3, 32, 32) / 255
        mean, std = np.array([[0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]])
        expected = (pixels - mean[:, None, None]) / std[:, None, None]
        assert np.allclose(inputs.numpy(), expected, atol=1e-5)
        assert targets.tolist() == list(range(10))
        assert dataset.class_names[3] == "class 3"
        assert len(dataset.train) == 20

    def test_training_images_are_cropped_and_flipped_unless_told_otherwise(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake = FakeCifar(tmp_path, monkeypatch, "CIFAR10")
        train = load("cifar10", path=str(fake.root)).train
        once, again, other = (whole(train, seed)[0] for seed in (1, 1, 2))
        assert torch.equal(once, again)
        assert not torch.equal(once, other)
        plain = load("cifar10", path=str(fake.root), augment="none").train
        assert torch.equal(whole(plain, 1)[0], whole(train)[0])

    def test_a_missing_folder_is_told_with_where_to_get_it(self, tmp_path: Path) -> None:
        settings = source("cifar10", path=str(tmp_path))
        for ask in (lambda: load_dataset(settings, 0), lambda: describe(settings)):
            with pytest.raises(DataError) as caught:
                ask()
            assert f"{tmp_path}/cifar-10-batches-py does not exist" in str(caught.value)
            assert "cs.toronto.edu" in str(caught.value)

    def test_other_files_than_the_published_ones_are_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake = FakeCifar(tmp_path, monkeypatch, "CIFAR10")
        (fake.root / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"torn")
        with pytest.raises(DataError, match="incomplete or not the published ones"):
            load("cifar10", path=str(fake.root))


@pytest.mark.usefixtures("needs_torchvision")
class TestCifar100:
    def test_has_its_classes_or_their_groups(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake = FakeCifar(tmp_path, monkeypatch, "CIFAR100")
        fine, coarse = (
            load("cifar100", path=str(fake.root), labels=labels) for labels in ("fine", "coarse")
        )
        expected = torch.tensor([(7 * i) % 100 for i in range(20)])
        assert torch.equal(whole(fine.train)[1], expected)
        assert torch.equal(whole(coarse.train)[1], expected % 20)
        assert torch.equal(whole(coarse.test)[1], expected[:10] % 20)
        assert torch.equal(whole(fine.test)[0], whole(coarse.test)[0])
        assert (fine.num_classes, coarse.num_classes) == (100, 20)
        assert (fine.class_names[99], coarse.class_names[19]) == ("class 99", "group 19")
        assert (fine.name, fine.input_shape) == ("cifar100", (3, 32, 32))

    def test_pixels_are_normalised_by_its_own_mean(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake = FakeCifar(tmp_path, monkeypatch, "CIFAR100")
        inputs, _ = whole(load("cifar100", path=str(fake.root)).test)
        pixels = fake.images["test"].reshape(-1, 3, 32, 32) / 255
        mean, std = np.array([[0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]])
        expected = (pixels - mean[:, None, None]) / std[:, None, None]
        assert np.allclose(inputs.numpy(), expected, atol=1e-5)

    def test_sizes_are_known_and_files_that_are_not_there_are_told(self, tmp_path: Path) -> None:
        settings = source("cifar100", path=str(tmp_path), labels="coarse")
        known = settings.known()
        assert known is not None
        assert (known.num_train, known.num_classes) == (50_000, 20)
        with pytest.raises(DataError) as caught:
            describe(settings)
        assert str(caught.value).startswith(f"cifar100: {tmp_path}/cifar-100-python does not exist")
        assert "tar xzf cifar-100-python.tar.gz" in str(caught.value)

    def test_a_damaged_file_is_refused_before_it_is_unpickled(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake = FakeCifar(tmp_path, monkeypatch, "CIFAR100")
        (fake.root / "cifar-100-python" / "train").write_bytes(b"torn")
        with pytest.raises(DataError, match="incomplete or not the published ones"):
            load("cifar100", path=str(fake.root), labels="coarse")


def write_images(root: Path, size: tuple[int, int], per_class: int = 4, test: str = "val") -> None:
    """Random images of (width, height), losslessly, in ImageNet's layout."""
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for split in ("train", test):
        for name in ("cat", "dog", "eel"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(per_class):
                pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
                image.fromarray(pixels).save(folder / f"{i}.png")


def pixels_of(inputs: Tensor) -> np.ndarray:
    """Back to bytes, (n, height, width, 3)."""
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    return np.rint((inputs.permute(0, 2, 3, 1).numpy() * std + mean) * 255).astype(np.uint8)


@pytest.mark.usefixtures("needs_torchvision")
class TestImageFolder:
    def test_small_images_are_served_as_they_are_in_the_order_of_their_names(
        self, tmp_path: Path
    ) -> None:
        write_images(tmp_path, (32, 32))
        settings = {"path": str(tmp_path), "image_size": 32}
        dataset = load("imagefolder", **settings)
        facts_agree(dataset, source("imagefolder", **settings))
        assert dataset.class_names == ("cat", "dog", "eel")
        inputs, targets = whole(dataset.train)
        assert targets.tolist() == [0] * 4 + [1] * 4 + [2] * 4
        from PIL import Image

        for number, name in ((0, "cat/0.png"), (6, "dog/2.png")):
            with Image.open(tmp_path / "train" / name) as opened:
                assert np.array_equal(pixels_of(inputs)[number], np.asarray(opened))

    @pytest.mark.parametrize(("image_size", "size"), [(32, (32, 32)), (80, (130, 100))])
    def test_batches_do_not_depend_on_threads_nor_on_the_cache(
        self, tmp_path: Path, image_size: int, size: tuple[int, int]
    ) -> None:
        write_images(tmp_path, size)
        found = []
        for loaders, cache in ((1, "off"), (3, "auto"), (16, "off")):
            dataset = load(
                "imagefolder",
                path=str(tmp_path),
                image_size=image_size,
                loaders=loaders,
                cache=cache,
            )
            some = np.array([7, 0, 7, 11])
            for _ in range(2):  # the second time from the cache
                augmented = dataset.train.batch(some, np.random.default_rng(3))[0]
                found.append(torch.cat([augmented, whole(dataset.train)[0]]))
        for inputs in found[1:]:
            assert torch.equal(inputs, found[0])
        assert not torch.equal(found[0][0], found[0][2]), "one image twice is augmented twice"

    def test_cached_images_are_not_read_again(self, tmp_path: Path) -> None:
        write_images(tmp_path, (32, 32))
        kept, read = (
            load("imagefolder", path=str(tmp_path), image_size=32, cache=cache)
            for cache in ("auto", "off")
        )
        before = whole(kept.train)[0]
        assert torch.equal(whole(read.train)[0], before)
        for file in (tmp_path / "train").rglob("*.png"):
            file.write_bytes(b"gone")
        assert torch.equal(whole(kept.train)[0], before)
        with pytest.raises(DataError, match=r"train/cat/0\.png: cannot be read as an image"):
            whole(read.train)

    def test_large_images_are_tested_on_their_middle(self, tmp_path: Path) -> None:
        write_images(tmp_path, (512, 256), per_class=1)
        from PIL import Image

        inputs, _ = whole(load("imagefolder", path=str(tmp_path)).test)
        assert inputs.shape == (3, 3, 224, 224)
        with Image.open(tmp_path / "val" / "cat" / "0.png") as opened:
            middle = np.asarray(opened)[16:240, 144:368]  # 224 of 256 pixels each way
        assert np.array_equal(pixels_of(inputs)[0], middle)

    def test_any_mode_of_image_becomes_rgb(self, tmp_path: Path) -> None:
        write_images(tmp_path, (40, 40), per_class=1)
        from PIL import Image

        Image.new("L", (40, 40), 100).save(tmp_path / "train" / "cat" / "0.png")
        inputs, _ = whole(load("imagefolder", path=str(tmp_path), image_size=40).train)
        assert (pixels_of(inputs)[0] == 100).all()

    @pytest.mark.parametrize(
        ("make", "settings", "told"),
        [
            ((), {}, r"no folder .*/train for the training images \(folders in .*: none\)"),
            (("train/cat",), {}, r"has neither test nor val \(folders in .*: train\)"),
            (("train/cat", "test/cat", "val/cat"), {}, "has both test and val"),
            (("train/cat", "val/cat"), {"test_split": "dev"}, r"no folder .*/dev .*train, val"),
            (("train", "val"), {}, "must hold a folder of images for each class"),
        ],
    )
    def test_folders_that_are_not_as_they_should_be(
        self, tmp_path: Path, make: tuple[str, ...], settings: dict[str, str], told: str
    ) -> None:
        for name in make:
            (tmp_path / name).mkdir(parents=True)
        with pytest.raises(DataError, match=told):
            describe(source("imagefolder", path=str(tmp_path), **settings))

    def test_splits_with_other_classes_are_refused(self, tmp_path: Path) -> None:
        write_images(tmp_path, (8, 8), per_class=1)
        (tmp_path / "val" / "eel").rename(tmp_path / "val" / "eels")
        with pytest.raises(DataError, match="only one of them has eel, eels"):
            load("imagefolder", path=str(tmp_path))


@pytest.mark.gpu
@pytest.mark.usefixtures("needs_torchvision")
def test_on_a_gpu_the_same_batches_are_made(tmp_path: Path) -> None:
    write_images(tmp_path, (32, 32))
    for settings in (
        source("digits", augment="standard"),
        source("synthetic"),
        source("imagefolder", path=str(tmp_path), image_size=32),
    ):
        host, device = (load_dataset(settings, 0, torch.device(name)) for name in ("cpu", "cuda"))
        for ours, theirs in zip(whole(host.train, 1), whole(device.train, 1), strict=True):
            assert theirs.device.type == "cuda"
            assert torch.allclose(ours, theirs.cpu(), atol=1e-5)


def test_random_crops_have_the_areas_and_shapes_of_imagenet_training() -> None:
    crops = list(random_crops(300, np.random.default_rng(0)))
    boxes = np.array([crop.box(640, 480) for crop in crops])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= 640).all()
    assert (boxes[:, 3] <= 480).all()
    areas = width * height / (640 * 480)
    assert 0.079 < areas.min() < 0.12
    assert 0.8 < areas.max() <= 1
    assert (width / height > 0.74).all()
    assert (width / height < 1.35).all()
    assert 0.4 < np.mean([crop.flip for crop in crops]) < 0.6


def test_an_image_too_narrow_for_any_crop_is_used_in_its_middle() -> None:
    (crop,) = random_crops(1, np.random.default_rng(0))
    assert crop.box(1000, 10) == centre_crop(1.0).box(1000, 10) == (495.0, 0.0, 505.0, 10.0)


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        ({"name": "digits"}, []),
        ({"name": "cifar10"}, ["path: missing; cifar10 needs the folder where its files are"]),
        (
            {"name": "synthetic", "augment": "standard"},
            ["augment: synthetic samples have none; set none or auto"],
        ),
        (
            {"name": "imagefolder", "path": "$UNSET_HERE/x"},
            ["path: $UNSET_HERE is not set in the environment"],
        ),
        (
            {"name": "imagefolder", "path": "x", "cache": "on"},
            [
                "cache: on needs image_size <= 64, got 224: larger images are cropped anew from "
                "the file each time"
            ],
        ),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any], lines: list[str]) -> None:
    assert source(**settings).check() == lines
    if lines:
        with pytest.raises(ConfigError, match=r"^data: "):
            describe(source(**settings))


def test_variables_in_paths_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_HERE", str(tmp_path))
    with pytest.raises(DataError, match=f"{tmp_path}/sub/cifar-10-batches-py does not exist"):
        describe(source("cifar10", path="${DATA_HERE}/sub"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "digits", "noise": 1.0},
        {"name": "digits", "augment": True},
        {"name": "synthetic", "shape": ()},
        {"name": "synthetic", "shape": (0,)},
        {"name": "synthetic", "num_classes": 1},
        {"name": "synthetic", "noise": float("nan")},
        {"name": "imagefolder", "path": "x", "image_size": 32.0},
        {"name": "imagefolder", "path": "x", "workers": 2},
    ],
)
def test_settings_are_strict(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        source(**wrong)


def test_a_data_set_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UserError) as caught:
        DATA.find("digit")
    assert str(caught.value) == (
        "unknown 'digit'; did you mean digits? (allowed: digits, synthetic, mnist, fashion-mnist, "
        "kmnist, emnist, cifar10, cifar100, arrays, text, imagefolder, or package.module:Name)"
    )


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_what_is_known_without_a_look_at_files_is_what_is_loaded(name: str) -> None:
    settings = source(name)
    known = settings.known()
    assert known is not None
    assert known == describe(settings)
    assert Facts.of(load(name)).num_train == known.num_train
    assert source("imagefolder", path="x").known() is None
    cifar = source("cifar10", path="/nowhere").known()
    assert cifar is not None
    assert cifar.input_shape == (3, 32, 32)

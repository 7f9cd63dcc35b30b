"""Arrays in a .npz file: classes or numbers to predict, and every mistake told with its array."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_sets import facts_agree, load, source, whole

from mpi_dcasgd.errors import DataError
from mpi_dcasgd.learning.data import describe
from mpi_dcasgd.learning.data.arrays_file import mean_and_deviation

Arrays = dict[str, Any]
RNG = np.random.default_rng(0)


def example(**changes: Any) -> Arrays:
    """Eight training and four test samples of three features and three classes."""
    rng = np.random.default_rng(1)
    arrays = {
        "x_train": rng.normal(3, 2, (8, 3)),
        "y_train": np.arange(8) % 3,
        "x_test": rng.normal(3, 2, (4, 3)),
        "y_test": np.arange(4) % 3,
        **changes,
    }
    return {key: array for key, array in arrays.items() if array is not None}


def write(folder: Path, arrays: Arrays, save: Callable[..., None] = np.savez) -> str:
    path = folder / "mine.npz"
    save(path, **arrays)
    return str(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("labels", [np.int64, np.uint8, np.int16, np.uint64])
def test_whole_numbers_are_classes(tmp_path: Path, save: Any, labels: type) -> None:
    arrays = example(y_train=(np.arange(8) % 3).astype(labels))
    path = write(tmp_path, arrays, save)
    dataset = load("arrays", path=path)
    facts_agree(dataset, source("arrays", path=path))
    assert (dataset.num_classes, dataset.input_shape) == (3, (3,))
    assert dataset.class_names == ("class 0", "class 1", "class 2")
    inputs, targets = whole(dataset.train, seed=1)
    assert np.array_equal(inputs.numpy(), arrays["x_train"].astype(np.float32))
    assert targets.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert targets.dtype == torch.int64
    assert describe(source("arrays", path=path)).resident_bytes == 12 * (3 * 4 + 8)


@pytest.mark.parametrize(("shape", "outputs"), [((), 1), ((1,), 1), ((2,), 2)])
@pytest.mark.parametrize("floats", [np.float64, np.float32, np.float16])
def test_floats_are_numbers_to_predict(
    tmp_path: Path, shape: tuple[int, ...], outputs: int, floats: type
) -> None:
    wanted = RNG.normal(size=(12, *shape)).astype(floats)
    path = write(tmp_path, example(y_train=wanted[:8], y_test=wanted[8:]))
    dataset = load("arrays", path=path)
    facts_agree(dataset, source("arrays", path=path), targets_are=torch.float32)
    assert dataset.num_classes == outputs
    assert dataset.class_names[0] == "output 0"
    targets = whole(dataset.test)[1]
    assert np.array_equal(targets.numpy(), wanted[8:].astype(np.float32))


def test_bytes_are_kept_as_they_are_and_scaled_to_one(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (12, 3, 4, 4), dtype=np.uint8)
    path = write(tmp_path, example(x_train=pixels[:8], x_test=pixels[8:]))
    dataset = load("arrays", path=path)
    facts_agree(dataset, source("arrays", path=path))
    assert np.allclose(whole(dataset.train)[0].numpy(), pixels[:8] / 255)
    assert describe(source("arrays", path=path)).resident_bytes == 12 * (3 * 4 * 4 + 8)


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
def test_features_are_standardised_by_the_training_samples_alone(
    tmp_path: Path, kind: type
) -> None:
    x = RNG.integers(0, 256, (12, 2, 3)).astype(kind)
    x[:, 0, 1] = 7  # constant
    x[8:, 0, 1] = 9
    path = write(tmp_path, example(x_train=x[:8], x_test=x[8:]))
    dataset = load("arrays", path=path, normalise="standardise")
    facts_agree(dataset, source("arrays", path=path, normalise="standardise"))
    mean, std = x[:8].astype(float).mean(0), x[:8].astype(float).std(0)
    std[0, 1] = 1
    for split, part in ((dataset.train, x[:8]), (dataset.test, x[8:])):
        assert np.allclose(whole(split)[0].numpy(), (part - mean) / std, atol=1e-5)
    assert whole(dataset.test)[0][:, 0, 1].tolist() == [2.0] * 4


def test_a_constant_feature_has_no_rounding_error_that_is_blown_up() -> None:
    inputs = np.full((100_001, 2), [0.1, 1e9], np.float32)
    mean, deviation = mean_and_deviation(inputs)
    assert mean.tolist() == inputs[0].tolist()
    assert deviation.tolist() == [1, 1]


def test_mean_and_deviation_of_many_parts_are_those_of_the_whole() -> None:
    inputs = RNG.normal(5, 2, (9000, 2)).astype(np.float32)
    mean, deviation = mean_and_deviation(inputs)
    assert mean == pytest.approx(inputs.mean(0, dtype=float), rel=1e-12)
    assert deviation == pytest.approx(inputs.std(0, dtype=float), rel=1e-9)


def test_the_file_may_have_its_own_validation_samples(tmp_path: Path) -> None:
    arrays = example(x_validation=np.ones((2, 3)), y_validation=np.array([2, 1]), notes=np.ones(1))
    path = write(tmp_path, arrays)
    dataset = load("arrays", path=path)
    facts_agree(dataset, source("arrays", path=path))
    assert dataset.validation is not None
    assert whole(dataset.validation)[1].tolist() == [2, 1]
    assert len(dataset.train) == 8
    both = source("arrays", path=path, validation=0.5)
    with pytest.raises(DataError, match=r"has x_validation, so that data.validation=0.5 would"):
        describe(both)


TOO_BIG = np.float64(1e39)
BAD = [
    ({"y_test": None}, "has no y_test (it has x_train, y_train, x_test)"),
    (
        {"x_train": None, "X_train": np.ones((8, 3))},
        "has no x_train (it has y_train, x_test, y_test, X_train); did you mean X_train?",
    ),
    ({"x_val": np.ones((2, 3))}, "has x_val; allowed: x_train, y_train, x_test, y_test, x_valid"),
    ({"x_validation": np.ones((2, 3))}, "has no y_validation (it has x_train, y_train, x_test"),
    (
        {"y_train": np.zeros(7, int)},
        "x_train has the shape (8, 3), y_train (7,); both must begin with the number of samples",
    ),
    ({"y_train": np.int64(3)}, "x_train has the shape (8, 3), y_train (); both must begin"),
    (
        {"x_test": np.ones((4, 2))},
        "samples of x_test have the shape (2,), those of x_train (3,); all must have one shape",
    ),
    ({"x_test": np.ones((0, 3)), "y_test": np.zeros(0, int)}, "x_test is empty, of shape (0, 3)"),
    ({"x_train": np.ones((8, 0)), "x_test": np.ones((4, 0))}, "x_train is empty, of shape (8, 0)"),
    ({"x_train": np.ones(8)}, "x_train has the shape (8,); allowed: (samples, features), or im"),
    ({"x_train": np.ones((8, 3), int)}, "x_train is of type int64; allowed: floats, or uint8"),
    ({"x_train": np.ones((8, 3), complex)}, "x_train is of type complex128; allowed: floats"),
    ({"x_train": np.array([["a"] * 3] * 8)}, "x_train is of type <U1; allowed: floats, or uint8"),
    ({"x_train": np.array([[{}] * 3] * 8)}, "x_train is of type object; allowed: floats, or"),
    ({"y_train": np.array([{}] * 8)}, "y_train is of type object and shape (8,); allowed: whole"),
    ({"y_train": np.zeros((8, 2), int)}, "y_train is of type int64 and shape (8, 2); allowed"),
    ({"y_test": np.zeros((4, 2, 2))}, "y_test is of type float64 and shape (4, 2, 2); allowed"),
    ({"y_train": np.zeros((8, 0))}, "y_train is of type float64 and shape (8, 0); allowed: whole"),
    (
        {"y_test": np.zeros(4)},
        "y_test is of type float64 and shape (4,), y_train of type int64 and shape (8,); both must",
    ),
    (
        {"y_train": np.zeros((8, 2)), "y_test": np.zeros((4, 3))},
        "samples of y_test have the shape (3,), those of y_train (2,)",
    ),
    (
        {"x_test": np.ones((4, 3), np.uint8)},
        "x_test is of type uint8, x_train float64; bytes are scaled to [0, 1] and floats are not",
    ),
    (
        {"x_train": np.where(np.arange(24).reshape(8, 3) == 16, np.nan, 1.0)},
        "x_train[5] is not finite in float32, as 1 of 8 samples are not",
    ),
    ({"x_test": np.full((4, 3), TOO_BIG)}, "x_test[0] is not finite in float32, as 4 of 4 samples"),
    (
        {"y_train": np.ones(8), "y_test": np.array([1, 1, np.inf, 1])},
        "y_test[2] is not finite in float32, as 1 of 4 samples are not",
    ),
    (
        {"y_train": np.array([0, 1, -3, 2, 1, 1, 1, 1])},
        "y_train[2] is -3; with the classes of y_train, labels are 0 to 2",
    ),
    ({"y_test": np.array([0, 1, 2, 3])}, "y_test[3] is 3; with the classes of y_train, labels are"),
    (
        {"y_train": np.zeros(8, int), "y_test": np.zeros(4, int)},
        "the largest label in y_train is 0",
    ),
    (
        {"y_train": np.full(8, 2**62)},
        "the largest label in y_train is 4611686018427387904; classes are numbered from 0, there",
    ),
]


@pytest.mark.parametrize(("changes", "told"), BAD)
def test_arrays_that_do_not_fit_together_are_told(
    tmp_path: Path, changes: Arrays, told: str
) -> None:
    path = write(tmp_path, example(**changes))
    with pytest.raises(DataError) as caught:
        load("arrays", path=path)
    assert str(caught.value).startswith(f"arrays: {path}: {told}")


@pytest.mark.parametrize("keep", [10, 300, -30])
def test_a_truncated_file_is_told(tmp_path: Path, keep: int) -> None:
    path = Path(write(tmp_path, example()))
    path.write_bytes(path.read_bytes()[:keep])
    for ask in (describe, lambda settings: settings.load(0, torch.device("cpu"))):
        with pytest.raises(DataError, match=f"^arrays: {re.escape(str(path))}: is not a .npz file"):
            ask(source("arrays", path=str(path)))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_array_is_told_by_its_name(tmp_path: Path, save: Any) -> None:
    path = Path(write(tmp_path, example(x_train=RNG.normal(size=(8, 300)), x_test=None), save))
    rest = {"x_test": np.ones((4, 300))}
    np.savez(tmp_path / "rest.npz", **rest)
    with zipfile.ZipFile(path, "a") as whole_file, zipfile.ZipFile(tmp_path / "rest.npz") as more:
        whole_file.writestr("x_test.npy", more.read("x_test.npy"))
    load("arrays", path=str(path))
    content = bytearray(path.read_bytes())
    content[2000:2100] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(
        DataError, match=r"x_train cannot be read, the file is truncated or damaged"
    ):
        load("arrays", path=str(path))


def test_an_array_that_ends_too_early_is_told(tmp_path: Path) -> None:
    path = Path(write(tmp_path, example(x_train=None)))
    np.save(tmp_path / "x_train.npy", np.ones((8, 3)))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_train.npy", (tmp_path / "x_train.npy").read_bytes()[:-8])
    with pytest.raises(DataError, match="x_train cannot be read, the file is truncated or damaged"):
        load("arrays", path=str(path))


def test_other_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"^arrays: no file {tmp_path}; data.path must name a .npz"):
        load("arrays", path=str(tmp_path))
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(DataError, match=r"is not a \.npz file"):
        load("arrays", path=str(tmp_path / "one.npy"))

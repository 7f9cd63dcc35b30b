"""Text as bytes or characters: windows that do not overlap between splits, and clear refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_sets import facts_agree, load, source, whole

from mpi_dcasgd.errors import DataError
from mpi_dcasgd.learning.data import ResidentSplit, describe
from mpi_dcasgd.learning.data.text import TextSplit, count_windows

GREETING = "Grüße, δοῦλε! "


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.txt"
    path.write_bytes(bytes(range(100)))
    return path


def test_targets_are_the_next_tokens(file: Path) -> None:
    settings = {"path": str(file), "window": 4, "test": 0.2}
    dataset = load("text", **settings)
    facts_agree(dataset, source("text", **settings), inputs_are=torch.int64)
    assert (dataset.num_classes, dataset.input_shape) == (256, (4,))
    inputs, targets = whole(dataset.train)
    assert inputs[:2].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert torch.equal(targets, inputs + 1)
    assert inputs.is_contiguous()
    assert targets.is_contiguous()
    # The token after the last window is still the training part's.
    assert inputs.max() == 75
    assert len(dataset.train) == 19
    inputs, targets = whole(dataset.test)
    assert inputs[0].tolist() == [80, 81, 82, 83]
    assert targets.max() == 96


@pytest.mark.parametrize("stride", [1, 3, 4, 9])
def test_training_windows_start_at_every_stride_and_test_windows_never_overlap(
    file: Path, stride: int
) -> None:
    settings = {"path": str(file), "window": 4, "test": 0.2, "stride": stride}
    dataset = load("text", **settings)
    facts_agree(dataset, source("text", **settings), inputs_are=torch.int64)
    starts = whole(dataset.train)[0][:, 0].tolist()
    assert starts == list(range(0, 76, stride))
    assert whole(dataset.test)[0][:, 0].tolist() == [80, 84, 88, 92]


def test_validation_is_the_last_part_of_the_training_text(file: Path) -> None:
    settings = {"path": str(file), "window": 4, "test": 0.2, "validation": 0.25}
    dataset = load("text", **settings)
    facts_agree(dataset, source("text", **settings), inputs_are=torch.int64)
    assert dataset.validation is not None
    parts = [whole(split) for split in (dataset.train, dataset.validation, dataset.test)]
    assert [int(inputs.min()) for inputs, _ in parts] == [0, 60, 80]
    assert [int(targets.max()) for _, targets in parts] == [56, 76, 96]


def test_characters_are_those_of_the_file_in_order(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(GREETING * 20, encoding="utf-8", newline="")
    settings = {"path": str(path), "tokens": "characters", "window": 5}
    dataset = load("text", **settings)
    facts_agree(dataset, source("text", **settings), inputs_are=torch.int64)
    assert dataset.class_names == tuple(sorted(set(GREETING)))
    inputs, targets = whole(dataset.train)
    assert "".join(dataset.class_names[i] for i in inputs[0].tolist()) == "Grüße"
    assert dataset.class_names[int(targets[0, -1])] == ","
    # The whole file's, though the training text lacks one.
    path.write_text("ab" * 50 + "z", encoding="utf-8")
    assert load("text", **settings).class_names == ("a", "b", "z")


def test_more_characters_than_a_byte_can_number_and_line_ends_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 300))) + "\r\n" + "\U0001f600" * 400
    path.write_bytes(text.encode())
    dataset = load("text", path=str(path), tokens="characters", window=301, stride=1, test=0.45)
    assert dataset.num_classes == 303
    assert dataset.class_names[:2] == ("\n", "\r")
    found = [dataset.class_names[i] for i in whole(dataset.train)[0][0].tolist()]
    assert "".join(found) == text[:301]


def test_names_of_bytes_can_be_read(file: Path) -> None:
    names = load("text", path=str(file), window=4).class_names
    assert (names[65], names[10], names[255]) == ("A", "0x0a", "0xff")


def test_it_lies_on_the_device_and_takes_the_fast_path(file: Path) -> None:
    settings = source("text", path=str(file), window=4, stride=3)
    train = load("text", path=str(file), window=4, stride=3).train
    assert isinstance(train, ResidentSplit)
    recipe = train.recipe(np.array([2, 0]), None)
    assert recipe.tolist() == [[6, 0]]
    made = train.make(torch.from_numpy(recipe))
    for one, other in zip(made, train.batch(np.array([2, 0]), None), strict=True):
        assert torch.equal(one, other)
    assert describe(settings).resident_bytes == 100


@pytest.mark.parametrize(
    ("length", "window", "stride", "count"),
    [
        (4, 4, 1, 0),
        (5, 4, 1, 1),
        (5, 4, 7, 1),
        (6, 4, 1, 2),
        (9, 4, 4, 2),
        (8, 4, 4, 1),
        (0, 1, 1, 0),
    ],
)
def test_windows_are_counted(length: int, window: int, stride: int, count: int) -> None:
    assert count_windows(length, window, stride) == count
    if count:
        split = TextSplit(torch.arange(length), window, stride)
        assert whole(split)[1].max() < length
        assert len(split) == count


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"window": 10}, "100 bytes, 10 of them for the test part (data.test=0.1, "),
        ({"window": 89, "test": 0.9}, "100 bytes, 10 of them for the training part"),
        ({"window": 9, "validation": 0.1}, "100 bytes, 9 of them for the validation part"),
        ({"window": 4, "test": 0.001}, "100 bytes, 0 of them for the test part"),
        ({"window": 4, "validation": 0.001}, "100 bytes, 0 of them for the validation part"),
    ],
)
def test_a_text_that_is_too_short_is_told_with_its_length(
    file: Path, settings: dict[str, Any], told: str
) -> None:
    chosen = source("text", path=str(file), **settings)
    for ask in (describe, lambda one: one.load(0, torch.device("cpu"))):
        with pytest.raises(DataError) as caught:
            ask(chosen)
        assert str(caught.value).startswith(f"text: {file} has {told}")
        assert f"it needs {settings['window'] + 1} at least" in str(caught.value)


def test_a_window_and_one_token_are_enough(file: Path) -> None:
    assert len(load("text", path=str(file), window=9).test) == 1


def test_an_empty_file_and_none_at_all_are_told(tmp_path: Path) -> None:
    path = tmp_path / "empty.txt"
    path.touch()
    for tokens in ("bytes", "characters"):
        with pytest.raises(DataError, match=f"has 0 {tokens}, 0 of them for the training part"):
            load("text", path=str(path), tokens=tokens)
    with pytest.raises(DataError, match=f"^text: no file {tmp_path}; data.path must name a text"):
        load("text", path=str(tmp_path))


def test_a_file_that_is_not_utf8_is_told_with_the_place(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"one\ntwo\ngr\xfc\xdfe" + b"x" * 300)
    assert load("text", path=str(path), window=8).num_classes == 256
    with pytest.raises(DataError) as caught:
        load("text", path=str(path), tokens="characters", window=8)
    assert str(caught.value) == (
        f"text: {path} is not UTF-8: byte 10 (in line 3) is 0xfc, invalid start byte; convert the "
        "file, or set data.tokens=bytes"
    )

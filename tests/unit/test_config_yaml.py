"""YAML as version 1.2 has it: numbers are numbers, words are words, and mistakes have a line."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mpi_dcasgd.config.yaml12 import YamlError, dump_yaml, load_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-7", 1e-7),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", float("-inf")),
        ("0777", 777),
        ("0o17", 15),
        ("0x1F", 31),
        ("+3", 3),
        ("-3", -3),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("No", "No"),
        ("y", "y"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2001-01-01", "2001-01-01"),
        ("'1e-7'", "1e-7"),
        ("[64, 32]", [64, 32]),
        ("{2: 4}", {"2": 4}),
    ],
)
def test_scalars_are_those_of_version_1_2(text: str, value: Any) -> None:
    found = load_yaml(text)
    assert found == value
    assert type(found) is type(value)


def test_merge_keys_are_keys_like_any_other() -> None:
    assert load_yaml("<<: {a: 1}\nb: 2") == {"<<": {"a": 1}, "b": 2}


def test_keys_that_stand_twice_are_told_with_both_lines() -> None:
    with pytest.raises(YamlError) as caught:
        load_yaml("lr: 1\nmodel:\n  name: mlp\n  name: cnn\nlr: 2\n")
    assert caught.value.problems == [
        "line 4: key name stands here again; it was set on line 3 already",
        "line 5: key lr stands here again; it was set on line 1 already",
    ]


def test_a_colon_may_be_part_of_a_key_that_has_a_value_or_quotes() -> None:
    assert load_yaml('{a:b: 1, "c:d"}') == {"a:b": 1, "c:d": None}


def test_a_key_in_two_mappings_is_no_duplicate() -> None:
    assert load_yaml("a: {name: x}\nb: {name: y}") == {"a": {"name": "x"}, "b": {"name": "y"}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lr: 0.1\nmodel: {name: mlp\nseed: 1\n", ["line 3, column 5", "seed: 1\n", "^"]),
        ("model:\n\tname: mlp\n", ["line 2, column 1", "a tab; indent with spaces"]),
        ("name: a: b\n", ["line 1, column 8", "needs quotes"]),
        ("a: 1\n---\nb: 2\n", ["line 2", "another document"]),
        ("a: *b\n", ["undefined alias"]),
        ("a: !!python/object:os.system x\n", ["line 1", "could not determine a constructor"]),
        ("? [1, 2]\n: 3\n", ["line 1", "not plain text"]),
        ("a: &b [*b]\n", ["recursive"]),
        ("lr: 1\nname: \x00\n", ["line 2: character #x0000"]),
        ("slow: {7:4}\n", ["line 1: 7:4 is one word; write a blank after the colon: {7: 4}"]),
        ("[" * 3000, ["nested too deeply"]),
    ],
)
def test_what_is_not_yaml_is_told_with_its_place(text: str, words: list[str]) -> None:
    with pytest.raises(YamlError) as caught:
        load_yaml(text)
    assert len(caught.value.problems) == 1
    for word in words:
        assert word in caught.value.problems[0]


# What YAML can print of it at all, this reader and PyYAML's own must read alike.
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64) + 1, 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from(["1e-7", "on", "0o7", "1:30", "~", "<<", "=", "2001-01-01", "0x1", "1_0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_what_is_dumped_loads_again(value: Any) -> None:
    text = dump_yaml(value)
    assert load_yaml(text) == value
    assert yaml.safe_load(text) == value

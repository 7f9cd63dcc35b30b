"""Numbers that are too large for what they are used for are one message, wherever they stand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from mpi_dcasgd.cli import main
from mpi_dcasgd.config.load import load_job
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.config.sections import TORCHVISION, is_named, kinds_of
from mpi_dcasgd.config.study import load_study
from mpi_dcasgd.config.yaml12 import YamlError, load_yaml
from mpi_dcasgd.errors import ConfigError, UserError
from mpi_dcasgd.messages import is_section, seen, settings_of
from mpi_dcasgd.rules.algorithms import PARTS
from mpi_dcasgd.runs.jobs import load_job as load_any

BASE = """\
epochs: 1
batch_size: 16
lr: 0.1
model: {name: mlp}
data: {name: digits}
"""
HUGE = ("1" + "0" * 30, "1" + "0" * 5000, "0x" + "f" * 5000, "-1" + "0" * 5000)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(BASE)
    return path


def settings() -> Iterator[tuple[str, ...]]:
    """Every setting of a job, and of all that it may name, after the words that choose it."""
    for key, info in settings_of(Job).items():
        if is_named(info.annotation):
            for name, kind in kinds_of(info.annotation).items():
                chosen = f"{key}.name={'resnet18' if name == TORCHVISION else name}"
                for inner in settings_of(kind):
                    yield (chosen, f"{key}.{inner}")
        elif is_section(info.annotation):
            for inner in settings_of(info.annotation):
                yield (f"{key}.{inner}",)
        else:
            yield (key,)
    for role, kinds in PARTS.items():
        for name, part in kinds.items():
            for setting in fields(part):
                yield (f"rule.{role}.name={name}", f"rule.{role}.{setting.name}")


@pytest.mark.parametrize("number", [*HUGE, f"[{HUGE[0]}]", f"[{HUGE[2]}]"], ids=len)
def test_no_setting_takes_a_whole_number_beyond_64_bits(file: Path, number: str) -> None:
    for *words, key in settings():
        with pytest.raises(UserError) as told:
            load_job(file, [*words, f"{key}={number}"])
        assert len(str(told.value)) < 2000


@pytest.mark.parametrize(
    ("key", "most", "told"),
    [
        ("seed", 2**64 - 1, "at most 2^64 - 1"),
        ("threads", 1024, "at most 1024"),
        ("epochs", 2**31 - 1, "at most 2^31 - 1"),
        ("batch_size", 2**31 - 1, "at most 2^31 - 1"),
    ],
)
def test_limits(file: Path, key: str, most: int, told: str) -> None:
    load_job(file, [f"{key}={most}"])
    for more in (most + 1, 10**6000):
        with pytest.raises(ConfigError, match=f"{key}: got .* too large; allowed: ") as error:
            load_any(file, **{key: more})
        assert told in str(error.value)


def test_the_largest_seed_trains(file: Path, tmp_path: Path) -> None:
    torch.manual_seed(2**64 - 1)
    words = ["algorithm=sgd", f"seed={2**64 - 1}", "record.progress=off"]
    assert main(["train", str(file), "--run-dir", str(tmp_path / "run"), *words]) == 0


def test_a_study_has_the_same_seeds(tmp_path: Path, file: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(f"job: job.yaml\nalgorithms: [sgd]\nseeds: [{2**64}]\n")
    with pytest.raises(ConfigError, match="too large"):
        load_study(path)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["seed=18446744073709551616"], "too large, 18446744073709551616; allowed: below 2^64"),
        (["threads=100000"], "threads: got 100000 (a whole number); too large; allowed: at most"),
        (["lr=!!float x"], "x is no value of !!float"),
        ([f"epochs={HUGE[1]}"], "too large, 10000000000000000000... (5001 digits)"),
        (["record.trace_flush_s=.inf"], "record.trace_flush_s: got inf (not a finite number)"),
        (["schedule.warmup_epochs=.inf"], "schedule.warmup_epochs: got inf (not a finite number)"),
    ],
)
def test_each_is_one_message_and_status_two(
    file: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    for command in (["train", "--dry-run"], ["train"], ["run", "-n", "2"], ["simulate"]):
        more = ["workers=2"] if command == ["simulate"] else []
        assert main([*command, str(file), *more, *words]) == 2
        said = capsys.readouterr().err
        assert said.count("problem") == 1
        assert told in said
        assert "Traceback" not in said


@pytest.mark.parametrize(
    "text",
    [
        "a: !!float x",
        "a: !!int x",
        "a: !!int 0x",
        "a: !!bool x",
        "a: !!timestamp x",
        "a: !!binary ü",
        "a: !!set x",
        "a: !!omap [x]",
        "a: !!python/object:os.system x",
        "a: !mine x",
        f"a: {'9' * 5000}",
        f"a: 0o{'7' * 5000}",
    ],
)
def test_values_that_their_tag_does_not_fit_are_told_with_their_line(text: str) -> None:
    with pytest.raises(YamlError) as told:
        load_yaml(f"b: 1\n{text}\n")
    assert told.value.problems[0].startswith("line 2, column ")


def test_whole_numbers_of_64_bits_are_read() -> None:
    assert load_yaml(f"[{2**64 - 1}, {-(2**64) + 1}, 0x{'0' * 99}ff]") == [
        2**64 - 1,
        -(2**64) + 1,
        255,
    ]


def test_a_number_that_python_does_not_show_is_shown_by_its_length() -> None:
    assert seen(10**6000) == "a whole number of about 6001 digits"

"""docs/data.md says what the data sets are, and its examples work as printed."""

from __future__ import annotations

import re
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from mpi_dcasgd.config.check import try_job
from mpi_dcasgd.config.load import load_job
from mpi_dcasgd.learning.data import DATA, describe

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "data.md").read_text()
JOB = {"algorithm": "sgd", "epochs": 1, "batch_size": 8, "lr": 0.1, "model": {"name": "mlp"}}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)


def test_every_data_set_is_in_the_table_and_no_other() -> None:
    table = PAGE.partition("\n\n## ")[0]
    assert re.findall(r"^\| `([\w-]+)` \|", table, re.M) == list(DATA)


@pytest.mark.parametrize("name", [name for name in DATA if name not in ("synthetic", "emnist")])
def test_the_sizes_in_the_table_are_those_of_the_data_set(name: str) -> None:
    known = DATA[name](name=name).known()
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
    if known is None:
        assert not re.search(r"\d,\d", row)
    else:
        assert f"| {known.num_train:,} / {known.num_test:,} |" in row
        assert f"| {' x '.join(map(str, known.input_shape))} images |" in row
        assert re.search(rf"\| {known.num_classes}\b", row)


@pytest.mark.parametrize("block", blocks("yaml"))
def test_every_example_is_a_data_section(block: str) -> None:
    job, problems = try_job({**JOB, **yaml.safe_load(block)}, name="mine")
    assert job is not None, problems


def test_the_plain_loop_trains_as_the_job_does() -> None:
    job = load_job(ROOT / "jobs" / "fashion_mnist.yaml")
    loop = next(one for one in blocks("python") if "plain.py" in one)
    compile(loop, "plain.py", "exec")
    (hidden,) = job.model.hidden  # type: ignore[attr-defined]
    (milestone,) = job.schedule.milestones
    for words in (
        f"Linear(784, {hidden})",
        f"SGD(model.parameters(), lr={job.lr})",
        f"[{milestone:g}], {job.schedule.factor})",
        f"range({job.epochs})",
        f".split({job.batch_size})",
        job.data.path,  # type: ignore[attr-defined]
    ):
        assert words in loop


def test_the_arrays_are_what_the_page_writes(
    processes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = next(one for one in blocks("python") if "mine.npz" in one)
    finished = processes.run([sys.executable, "-c", block], cwd=tmp_path)
    assert finished.status == 0, finished
    monkeypatch.chdir(tmp_path)
    section = next(one for one in blocks("yaml") if "arrays" in one)
    job, _ = try_job({**JOB, **yaml.safe_load(section)}, name="mine")
    assert job is not None
    facts = describe(job.data)
    assert (facts.num_train, facts.num_test, facts.num_classes) == (800, 200, 2)


def test_folders_of_images_are_packed_as_the_page_packs_them(
    processes: Any, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    pixels = {}
    for split, name, number in product(("train", "test"), ("cat", "dog"), range(2)):
        folder = tmp_path / "images" / split / name
        folder.mkdir(parents=True, exist_ok=True)
        image = pixels[split, name, number] = rng.integers(256, size=(6, 5, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / f"{number}.png")
    block = next(one for one in blocks("python") if "pack.py" in one)
    argv = [sys.executable, "-c", block, "images", "made.npz"]
    finished = processes.run(argv, cwd=tmp_path)
    assert finished.status == 0, finished
    data = DATA["arrays"](name="arrays", path=str(tmp_path / "made.npz"))
    assert data.facts().num_classes == 2
    loaded = data.load(0, torch.device("cpu"))
    order = np.arange(4)
    for split in ("train", "test"):
        images, classes = getattr(loaded, split).batch(order, None)
        assert classes.tolist() == [0, 0, 1, 1]
        expected = [pixels[split, name, number] for name in ("cat", "dog") for number in range(2)]
        assert torch.equal(
            (images * 255).round(), torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2)
        )

"""A run over MPI that is resumed on other data: refused on every rank, with what differs."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpi_dcasgd.errors import DataError
from mpi_dcasgd.runs.replay import replay

pytest.importorskip("PIL")
pytestmark = [pytest.mark.mpi, pytest.mark.timeout(180)]


def write(root: Path, counts: dict[str, int]) -> None:
    from PIL import Image

    for split in ("train", "val"):
        for shade, (name, count) in enumerate(counts.items()):
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                Image.new("RGB", (8, 8), (shade * 100, number, 0)).save(folder / f"{number}.png")


@pytest.mark.parametrize("backend", ["mpi", "ddp"])
def test_a_resume_on_other_images_is_refused(
    shared_world: Callable[..., Any], tmp_path: Path, backend: str
) -> None:
    write(tmp_path / "data", {"cat": 20, "dog": 20})
    words = [
        "algorithm=asgd" if backend == "mpi" else "algorithm=ssgd",
        *(["sync.backend=ddp"] if backend == "ddp" else []),
        f"data={{name: imagefolder, path: {tmp_path}/data, image_size: 8}}",
        "model={name: mlp, hidden: [4]}",
        "batch_size=4",
        "epochs=30",
        "schedule={name: constant}",
    ]
    run = tmp_path / "run"
    first, *_ = shared_world("world_calls:interrupt", "jobs/digits.yaml", run, words, ranks=3)
    assert first.value == ["interrupted", signal.SIGUSR1]
    assert json.loads((run / "data.json").read_text())["classes"] == ["cat", "dog"]
    for split in ("train", "val"):
        (tmp_path / "data" / split / "cat").rename(tmp_path / "data" / split / "eel")
    answers = shared_world("world_calls:refused", "jobs/digits.yaml", run, words, ranks=3)
    for answer in answers:
        assert "the data are not those that the run was trained on" in answer.value
        assert "class 0 is 'dog' and was 'cat'" in answer.value
    if backend == "mpi":
        assert "the data have changed since the run: class 0" in str(replay(run))
        write(tmp_path / "data", {"fox": 1})
        with pytest.raises(DataError, match="41 training samples, where there were 40"):
            replay(run)

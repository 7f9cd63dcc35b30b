"""The tool that writes a folder of made-up images."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_sets import load

from mpi_dcasgd.errors import DataError
from mpi_dcasgd.tools.made_images import main, write_images

pytest.importorskip("PIL")


def test_what_is_written_is_an_image_folder_and_always_the_same(tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert write_images(tmp_path / name, classes=3, train=2, val=1, size=24) == 9
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.jpg"))
    assert len(files) == 9
    contents = {(tmp_path / "one" / file).read_bytes() for file in files}
    assert len(contents) == 9
    assert contents == {(tmp_path / "two" / file).read_bytes() for file in files}
    data = load("imagefolder", path=str(tmp_path / "one"), image_size=16)
    assert (len(data.train), len(data.test), data.num_classes) == (6, 3, 3)


def test_what_is_there_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(DataError, match="is there already and not an empty folder"):
        write_images(tmp_path)
    assert main([str(tmp_path)]) == 2
    assert "made_images: " in capsys.readouterr().err

"""Files that are read back are what was written, or are refused."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import torch

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.sealed import DamagedError, load_sealed, save_sealed
from mpi_dcasgd.record.weights_file import read_weights


def write(path: Path) -> Path:
    with open(path, "wb") as file:
        save_sealed({"state_dict": {"weight": torch.arange(1000.0)}, "version": 3}, file)
    return path


def flip(path: Path, offset: int, count: int) -> None:
    content = bytearray(path.read_bytes())
    for place in range(offset, offset + count):
        content[place] ^= 0xFF
    path.write_bytes(content)


def weight_offset(path: Path) -> int:
    return path.read_bytes().index(torch.arange(1000.0).numpy().tobytes()) + 400


def test_a_sealed_file_is_one_that_torch_reads(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pt")
    for content in (torch.load(path, weights_only=True), load_sealed(path)):
        assert content["version"] == 3
        assert torch.equal(content["state_dict"]["weight"], torch.arange(1000.0))


def test_no_changed_byte_goes_unseen(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pt")
    whole = path.read_bytes()
    for offset in range(0, len(whole) - 80, 61):
        flip(path, offset, 1)
        with pytest.raises(DamagedError, match="do not match their digest"):
            load_sealed(path)
        path.write_bytes(whole)
    assert load_sealed(path)["version"] == 3


def test_a_damaged_file_of_an_earlier_version_is_found_by_its_archive(tmp_path: Path) -> None:
    """PyTorch itself reads other numbers from it, without a word."""
    path = tmp_path / "a.pt"
    torch.save({"state_dict": {"weight": torch.arange(1000.0)}, "version": 3}, path)
    assert load_sealed(path)["version"] == 3, "without a digest"
    flip(path, weight_offset(path), 64)
    other = torch.load(path, weights_only=True)["state_dict"]["weight"]
    assert not torch.equal(other, torch.arange(1000.0))
    with pytest.raises(DamagedError, match="does not match its checksum"):
        load_sealed(path)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "weights.pt")
    flip(path, weight_offset(path), 64)
    with pytest.raises(RunFolderError, match=r"weights\.pt: .* it is damaged: its bytes do not"):
        read_weights(path)


def test_a_file_that_is_cut_short_is_no_whole_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pt")
    whole = path.read_bytes()
    for length in (len(whole) - 80, len(whole) // 2, 10, 0):
        path.write_bytes(whole[:length])
        with pytest.raises(RunFolderError, match="cannot be read as weights"):
            read_weights(path)


def test_a_disk_that_is_full_is_said_to_be_full() -> None:
    file = open("/dev/full", "wb")  # noqa: SIM115 - it cannot be closed without an error
    with pytest.raises(OSError, match="No space left"):
        save_sealed({"weights": torch.zeros(100_000)}, file)
    with suppress(OSError):
        file.close()

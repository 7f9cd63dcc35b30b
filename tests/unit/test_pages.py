"""Long vectors lie in memory for which huge pages have been asked; otherwise nothing changes."""

from __future__ import annotations

import io
import mmap
import weakref
from collections.abc import Iterator

import pytest
import torch

from mpi_dcasgd import pages
from mpi_dcasgd.learning.flat import FlatModel
from mpi_dcasgd.pages import HUGE_BYTES, LONG_BYTES, PAGE_BYTES, copy_of, zeros
from mpi_dcasgd.rules.algorithms import resolve_rule
from mpi_dcasgd.rules.alignment import LANE_BYTES, zeros_beside
from mpi_dcasgd.rules.chain import Chain
from mpi_dcasgd.server.message import Message

LONG = LONG_BYTES // 4


class Maps:
    """The maps that were made, those that are still there, and what was asked for them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = 0
        self.alive: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
        self.asked: list[int] = []
        self.refused = False
        outer = self

        class Watched(mmap.mmap):
            def __init__(self, *args: int, **kwargs: int) -> None:
                outer.made += 1
                outer.alive.add(self)

            def madvise(self, option: int, *range_: int) -> None:
                if outer.refused:
                    raise OSError("no huge pages in this kernel")
                outer.asked.append(option)
                super().madvise(option, *range_)

        monkeypatch.setattr(pages.mmap, "mmap", Watched)


@pytest.fixture
def maps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Maps]:
    return Maps(monkeypatch)


def test_long_vectors_are_aligned_zeros_that_can_be_written(maps: Maps) -> None:
    vector = zeros(LONG)
    assert maps.asked == [mmap.MADV_HUGEPAGE]
    # Some kernels align maps of whole huge pages by themselves.
    several = [zeros(LONG + 5000 * number) for number in range(4)]
    assert [each.data_ptr() % HUGE_BYTES for each in (vector, *several)] == [0] * 5
    assert vector.shape == (LONG,)
    assert not vector.any()
    vector[-1] = 1.0
    assert vector.sum() == 1.0
    shifted = zeros(LONG, torch.float64, begin=PAGE_BYTES + 576)
    assert (shifted.data_ptr() % PAGE_BYTES, shifted.dtype) == (576, torch.float64)
    shifted[-1] = 1.0


def test_short_vectors_are_pytorchs(maps: Maps) -> None:
    assert not zeros(LONG - 1).any()
    assert maps.made == 0


def test_long_vectors_of_another_device_are_pytorchs(maps: Maps) -> None:
    vector = zeros(LONG, device=torch.device("meta"))
    assert (vector.device.type, copy_of(vector).device.type) == ("meta", "meta")
    assert maps.made == 0


def test_memory_is_given_back_with_the_last_tensor_that_uses_it(maps: Maps) -> None:
    vector = zeros(LONG)
    view = vector[5:7].view(2, 1)
    array = vector.numpy()
    del vector
    assert len(maps.alive) == 1
    del view
    array[-1] = 2.0
    assert len(maps.alive) == 1
    del array
    assert len(maps.alive) == 0


@pytest.mark.parametrize("how", ["refused", "unknown"])
def test_where_there_are_no_huge_pages_memory_is_pytorchs(
    how: str, maps: Maps, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "refused":
        maps.refused = True
    else:
        monkeypatch.delattr(pages.mmap, "MADV_HUGEPAGE")
    vector = zeros(LONG)
    assert not vector.any()
    assert (maps.asked, len(maps.alive)) == ([], 0)


def test_a_saved_vector_is_as_long_as_itself() -> None:
    file = io.BytesIO()
    torch.save(zeros(LONG, begin=64), file)
    assert len(file.getvalue()) < LONG_BYTES + 4096


def test_a_copy_is_apart_and_as_it_was(maps: Maps) -> None:
    vector = torch.arange(2.0 * LONG).view(2, LONG).requires_grad_()
    copy = copy_of(vector)
    assert torch.equal(copy, vector)
    assert (copy.shape, copy.requires_grad, maps.made) == ((2, LONG), False, 1)
    copy.zero_()
    assert vector[1, 1] == LONG + 1
    assert copy_of(torch.zeros(3, dtype=torch.int64)).dtype == torch.int64


def test_state_of_a_rule_begins_elsewhere_in_its_page_when_it_is_long(maps: Maps) -> None:
    params = zeros(LONG)
    assert zeros_beside(params, 3).data_ptr() % PAGE_BYTES == 3 * LANE_BYTES
    assert maps.made == 2
    beside = zeros_beside(torch.zeros(LONG + 1)[1:], 2)
    assert not beside.any()


def test_all_long_vectors_of_a_run_are_in_such_memory(maps: Maps) -> None:
    flat = FlatModel(torch.nn.Linear(1024, 1024), torch.device("cpu"))
    assert maps.made == 2, "weights and gradient"
    Message(flat.layout.size)
    assert maps.made == 3
    Chain(resolve_rule("dcasgd-a"), flat.weights, 1, "blocks")
    assert maps.made == 4

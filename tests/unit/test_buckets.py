"""Gradients that are handed over while the backward pass goes on, and their buckets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from toy import CPU, toy_model

from mpi_dcasgd.drivers.buckets import Buckets, split_in_buckets
from mpi_dcasgd.learning.flat import FlatLayout, FlatModel
from mpi_dcasgd.learning.groups import Grouping
from mpi_dcasgd.learning.models import build_model
from mpi_dcasgd.learning.models.resnet_cifar import CifarResNet


@pytest.mark.parametrize("bucket_bytes", [1, 100, 4 << 10, 1 << 20, 1 << 30])
def test_buckets_are_stretches_that_cover_the_parameters_from_the_last_on(
    bucket_bytes: int,
) -> None:
    settings = CifarResNet(name="resnet20")
    layout = FlatLayout.of(build_model(settings, (3, 32, 32), 10))
    buckets = split_in_buckets(layout, bucket_bytes)
    end, last = layout.num_params, len(layout.params) - 1
    for bucket in buckets:
        assert (bucket.end, bucket.last) == (end, last)
        assert bucket.begin == layout.params[bucket.first].offset
        end, last = bucket.begin, bucket.first - 1
    assert (end, last) == (0, -1)
    assert all(4 * (b.end - b.begin) >= bucket_bytes for b in buckets[:-1])
    if bucket_bytes == 1:
        assert len(buckets) == len(layout.params)


@pytest.mark.parametrize("bucket_bytes", [1, 4 << 10, 100 << 10])
def test_buckets_of_groups_begin_in_the_order_in_which_the_backward_pass_fills_them(
    bucket_bytes: int,
) -> None:
    model = build_model(CifarResNet(name="resnet20"), (3, 32, 32), 10)
    layout = FlatLayout.of(model, Grouping(decay_on="conv-and-linear"))
    buckets = split_in_buckets(layout, bucket_bytes)
    in_order = sorted(buckets, key=lambda bucket: bucket.begin)
    assert [b.begin for b in in_order] == [0, *(b.end for b in in_order[:-1])]
    assert in_order[-1].end == layout.num_params
    (border,) = (stretch.end for stretch in layout.stretches[:-1])
    assert all((b.begin < border) == (b.end <= border) for b in buckets)
    # The last layers' gradients come first; a bucket is filled when its first layer's has come.
    names = [field.name for field in layout.in_model_order]
    filled = [
        min(names.index(field.name) for field in layout.params[b.first : b.last + 1])
        for b in buckets
    ]
    assert filled == sorted(filled, reverse=True)


@pytest.mark.parametrize("spare", [0, 1])
def test_a_gradient_that_fits_into_one_bucket_is_one_whatever_the_groups(spare: int) -> None:
    layout = FlatLayout.of(toy_model(), Grouping(decay_on="conv-and-linear"))
    assert len(layout.stretches) == 2
    assert len(split_in_buckets(layout, 4 * layout.num_params + spare)) == 1


class Tied(nn.Module):
    """Uses one layer twice, and another not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = toy_model()
        self.unused = nn.Linear(3, 3)
        self.twice = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.twice(torch.tanh(self.twice(self.inner(x))))
        return scores


def test_a_streamed_gradient_is_the_one_that_is_taken_at_the_end() -> None:
    torch.manual_seed(0)
    flat = FlatModel(Tied(), CPU)
    inputs = torch.randn(4, 5)
    flat.take_gradient(flat.model(inputs).square().mean())
    expected = flat.grad.clone()
    flat.grad.fill_(7.0)
    found: dict[int, Tensor] = {}

    def take(number: int, gradient: Tensor) -> None:
        assert number not in found, "a layer that is used twice has one gradient"
        found[number] = gradient.clone()

    flat.stream_gradient(take)
    flat.take_gradient(flat.model(inputs).square().mean())
    assert torch.all(flat.grad == 7.0), "left alone"
    for number, field in enumerate(flat.layout.params):
        mine = expected[field.offset : field.offset + field.size].view(field.shape)
        assert (number not in found) == field.name.startswith("unused")
        assert torch.equal(found.get(number, torch.zeros(field.shape)), mine)


class Doubling:
    """A reducer of two ranks that have the same; remembers in which order it began."""

    name, rank, size, in_background = "doubling", 0, 2, True

    def __init__(self) -> None:
        self.begun: list[str] = []

    def start(self, tensor: Tensor, name: str) -> Callable[[], None]:
        self.begun.append(name)

        def wait() -> None:
            tensor.mul_(2)

        return wait

    def close(self) -> None:
        pass


def test_buckets_begin_in_one_order_whatever_the_order_in_which_they_are_filled() -> None:
    layout = FlatLayout.of(toy_model())
    vector = torch.arange(layout.size, dtype=torch.float32)
    before, reducer = vector.clone(), Doubling()
    buckets = Buckets(layout, vector, reducer, bucket_bytes=1)
    for turn in range(2):
        buckets.filled(2)
        assert len(reducer.begun) == 4 * turn, "field 3 is in the first bucket"
        buckets.filled(3)
        assert reducer.begun[4 * turn :] == ["gradient.0", "gradient.1"]
        buckets.filled_all()
        assert reducer.begun[4 * turn :] == [f"gradient.{n}" for n in range(4)]
        buckets.wait()
        assert torch.equal(vector, before * 2 ** (turn + 1))


def test_what_travels_in_half_precision_comes_back_in_full() -> None:
    layout = FlatLayout.of(toy_model())
    vector = torch.full((layout.size,), 1.0 + 2**-20)
    buckets = Buckets(layout, vector, Doubling(), torch.float16, bucket_bytes=1)
    buckets.filled_all()
    buckets.wait()
    assert torch.all(vector[: layout.num_params] == 2.0)

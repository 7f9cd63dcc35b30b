from __future__ import annotations

import pytest
import torch
from torch import nn
from toy import CPU, toy_model

from mpi_dcasgd.learning.flat import ALIGN, FlatLayout, FlatModel


def test_every_tensor_begins_on_a_64_byte_boundary() -> None:
    flat = FlatModel(toy_model(batchnorm=True), CPU)
    fields = (*flat.layout.params, *flat.layout.stats)
    assert all(field.offset % ALIGN == 0 for field in fields)
    ends = [field.offset + field.size for field in fields]
    assert all(end <= field.offset for end, field in zip(ends, fields[1:], strict=False))
    counted = sum(p.numel() for p in toy_model(batchnorm=True).parameters())
    assert flat.layout.num_trainable == counted


def test_parameters_and_gradients_are_views_and_keep_their_values() -> None:
    model, reference = toy_model(), toy_model()
    flat = FlatModel(model, CPU)
    for mine, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    inputs = torch.randn(4, 5)
    model(inputs).sum().backward()
    reference(inputs).sum().backward()
    for field, theirs in zip(flat.layout.params, reference.parameters(), strict=True):
        piece = flat.grad[field.offset : field.offset + field.size]
        assert torch.equal(piece, theirs.grad.flatten())  # type: ignore[union-attr]
    flat.weights.zero_()
    assert all(not p.any() for p in model.parameters())


def test_given_vectors_become_the_model() -> None:
    size = FlatLayout.of(toy_model()).size
    weights, grad = torch.full((size,), 7.0), torch.full((size,), 7.0)
    flat = FlatModel(toy_model(), CPU, weights=weights, grad=grad)
    assert flat.weights is weights
    pads = torch.ones(size, dtype=torch.bool)
    for field in flat.layout.params:
        pads[field.offset : field.offset + field.size] = False
    assert not weights[pads].any(), "pads are zero, whatever the buffer held"
    assert not grad.any()


def test_batch_statistics_travel_behind_the_gradient() -> None:
    flat = FlatModel(toy_model(batchnorm=True), CPU, "average")
    inputs = torch.randn(16, 5)
    hidden = flat.model[0](inputs).detach()  # type: ignore[operator]
    flat.model.train()
    flat.model(inputs)
    flat.note_statistics()
    mean, var = (flat.grad[field.offset : field.offset + field.size] for field in flat.layout.stats)
    torch.testing.assert_close(mean, hidden.mean(0))
    torch.testing.assert_close(var, hidden.var(0))
    assert flat.stats_rate[:7].tolist() == pytest.approx([0.2] * 7)


def test_running_statistics_travel_under_the_latest_policy() -> None:
    flat = FlatModel(toy_model(batchnorm=True), CPU, "latest")
    inputs = torch.randn(16, 5)
    expected = 0.2 * flat.model[0](inputs).detach().mean(0)  # type: ignore[operator]
    flat.model.train()
    flat.model(inputs)
    flat.note_statistics()
    field = flat.layout.stats[0]
    torch.testing.assert_close(flat.grad[field.offset : field.offset + field.size], expected)
    assert set(flat.stats_rate.tolist()) == {1.0}


def test_frozen_parameters_do_not_travel() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    assert [field.name for field in FlatLayout.of(model).params] == ["1.weight", "1.bias"]

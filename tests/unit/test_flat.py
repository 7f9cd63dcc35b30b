from __future__ import annotations

import pytest
import torch
from torch import nn
from toy import CPU, toy_model

from mpi_dcasgd.learning import flat as flat_module
from mpi_dcasgd.learning.flat import ALIGN, FlatLayout, FlatModel, StatisticsPolicy


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


@pytest.mark.parametrize("batchnorm", [False, True])
def test_the_gradient_taken_is_that_of_autograd_bit_for_bit(batchnorm: bool) -> None:
    reference = toy_model(batchnorm=batchnorm)
    flat = FlatModel(toy_model(batchnorm=batchnorm), CPU)
    flat.grad.fill_(7.0)
    inputs = torch.randn(16, 5)
    reference(inputs).square().sum().backward()
    flat.take_gradient(flat.model(inputs).square().sum())
    for field, theirs in zip(flat.layout.params, reference.parameters(), strict=True):
        piece = flat.grad[field.offset : field.offset + field.size]
        assert torch.equal(piece, theirs.grad.flatten())  # type: ignore[union-attr]


def test_parameters_without_influence_have_no_gradient() -> None:
    model = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2)])
    flat = FlatModel(model, CPU)
    flat.grad.fill_(7.0)
    flat.take_gradient(model[0](torch.ones(1, 3)).sum())
    first, unused = flat.layout.params[0], flat.layout.params[2]
    assert flat.grad[first.offset : first.offset + first.size].tolist() == [1.0] * 6
    assert not flat.grad[unused.offset : unused.offset + unused.size].any()


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("policy", ["average", "latest"])
def test_a_vector_is_read_and_never_written(
    bound: bool, policy: StatisticsPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flat_module, "_WORTH_BINDING", 1 if bound else 1 << 40)
    inputs = torch.randn(16, 5)

    def step(flat: FlatModel) -> None:
        flat.model.train()
        flat.take_gradient(flat.model(inputs).square().sum())
        flat.note_statistics()

    others = [FlatModel(toy_model(batchnorm=True, seed=seed), CPU, policy) for seed in (1, 2)]
    snapshots = [other.weights.clone() for other in others]
    flat = FlatModel(toy_model(batchnorm=True), CPU, policy)
    first = next(flat.model.parameters())
    for turn in (0, 1, 0):
        other, snapshot = others[turn], snapshots[turn]
        other.weights.copy_(snapshot)
        step(other)
        flat.read(snapshot)
        assert (first.data_ptr() == snapshot.data_ptr()) is bound
        before = snapshot.clone()
        step(flat)
        assert torch.equal(flat.grad, other.grad)
        assert torch.equal(snapshot, before)
    flat.read(flat.weights)
    assert first.data_ptr() == flat.weights.data_ptr()


def test_what_is_written_into_a_vector_later_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat_module, "_WORTH_BINDING", 1)
    flat = FlatModel(toy_model(), CPU)
    snapshot = flat.weights.clone()
    for value in (2.0, 3.0):
        snapshot.fill_(value)
        flat.read(snapshot)
        assert all((p == value).all() for p in flat.model.parameters())

"""Models of windows of tokens: what they may look at, their sizes, weights and dropout."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning.flat import FlatModel
from mpi_dcasgd.learning.models import build_model, find_model

VOCABULARY = 11
WINDOW = 9
NAMES = ["transformer", "lstm"]
SMALL = {"transformer": {"width": 8, "heads": 2}, "lstm": {"width": 8, "embedding": 6}}


def make(name: str, window: int = WINDOW, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    source = find_model(name)(name=name, **(SMALL[name] | settings))
    return build_model(source, (window,), VOCABULARY, tokens=True)


def tokens(n: int = 3, window: int = WINDOW) -> Tensor:
    return torch.randint(0, VOCABULARY, (n, window), generator=torch.Generator().manual_seed(1))


def scores(model: nn.Module, batch: Tensor) -> Tensor:
    with torch.no_grad():
        return model(batch)


@pytest.mark.parametrize("name", NAMES)
def test_every_place_of_a_window_has_scores(name: str) -> None:
    model = make(name)
    assert scores(model, tokens()).shape == (3, WINDOW, VOCABULARY)
    assert scores(model, tokens(window=4)).shape == (3, 4, VOCABULARY)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("changed", [0, 4, WINDOW - 1])
def test_scores_follow_from_the_tokens_up_to_their_place(name: str, changed: int) -> None:
    model, before = make(name).eval(), tokens()
    with torch.no_grad():
        for parameter in model.parameters():  # as if trained: the first weights are small
            parameter.add_(torch.randn_like(parameter) * 0.3)
    after = before.clone()
    after[:, changed] = (after[:, changed] + 1) % VOCABULARY
    differ = (scores(model, before) - scores(model, after)).abs().amax((0, 2))
    assert not differ[:changed].any()
    assert (differ[changed:] > 1e-4).all()


@pytest.mark.parametrize("name", NAMES)
def test_samples_of_a_batch_do_not_meet(name: str) -> None:
    model, batch = make(name).eval(), tokens(4)
    together = scores(model, batch)
    assert torch.allclose(together[2:3], scores(model, batch[2:3]), atol=1e-6)


def test_attention_is_pytorchs() -> None:
    attention = make("transformer").blocks[0].attention.eval()
    x = torch.randn(2, WINDOW, 8)
    with torch.no_grad():
        queries, keys, values = (
            part.view(2, WINDOW, 2, 4).transpose(1, 2) for part in attention.into(x).chunk(3, -1)
        )
        fused = nn.functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        expected = attention.out(fused.transpose(1, 2).reshape(2, WINDOW, 8))
        assert torch.allclose(attention(x), expected, atol=1e-6)


def numbers(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_parameters_are_those_of_the_layers() -> None:
    d, depth = 8, 3
    block = 4 * d + (d * 3 * d + 3 * d) + (d * d + d) + (d * 4 * d + 4 * d) + (4 * d * d + d)
    plain = VOCABULARY * d + WINDOW * d + depth * block + 2 * d + VOCABULARY * d
    assert numbers(make("transformer", depth=depth)) == plain
    assert numbers(make("transformer", depth=depth, tied=True)) == plain - VOCABULARY * d
    layers = 4 * d * (6 + d + 2) + 4 * d * (d + d + 2)
    assert numbers(make("lstm", depth=2)) == VOCABULARY * 6 + layers + d * VOCABULARY + VOCABULARY


def test_what_blocks_add_starts_smaller_in_deeper_transformers() -> None:
    model = make("transformer", width=128, depth=8, heads=4)
    block = model.blocks[3]
    for layer, std in [
        (block.into_hidden, 0.02),
        (block.attention.into, 0.02),
        (block.out_of_hidden, 0.005),
        (block.attention.out, 0.005),
    ]:
        assert layer.weight.std().item() == pytest.approx(std, rel=0.05)
        assert not layer.bias.any()
    assert model.tokens.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_tied_embeddings_are_one_parameter_of_the_flat_vector() -> None:
    flat = FlatModel(make("transformer", tied=True), torch.device("cpu"))
    names = [field.name for field in flat.layout.params]
    assert "tokens.weight" in names
    assert "scores.weight" not in names
    loss = flat.model(tokens()).square().mean()
    flat.take_gradient(loss)
    assert flat.model.scores.weight is flat.model.tokens.weight
    assert flat.model.tokens.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_model_computes_with_the_vector_it_is_told_to_read(name: str) -> None:
    flat = FlatModel(make(name), torch.device("cpu"))
    before = scores(flat.model, tokens())
    flat.read(flat.weights + 0.1)
    assert not torch.allclose(before, scores(flat.model, tokens()))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("depth", [1, 2])
def test_dropout_follows_from_torchs_seed_and_ends_with_training(
    name: str, depth: int, recwarn: pytest.WarningsRecorder
) -> None:
    model = make(name, dropout=0.5, depth=depth)

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return scores(model, tokens())

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    model.eval()
    assert torch.equal(drawn(1), drawn(2))
    assert not recwarn.list


@pytest.mark.parametrize("name", NAMES)
def test_first_weights_follow_from_torchs_seed(name: str) -> None:
    flat = [nn.utils.parameters_to_vector(make(name).parameters()) for _ in range(2)]
    assert torch.equal(*flat)


@pytest.mark.parametrize("name", NAMES)
def test_images_and_impossible_heads_are_refused(name: str) -> None:
    source = find_model(name)(name=name)
    assert source.fits((1, 8, 8), 10) == [
        f"name: {name} needs windows of tokens (window,), as data.name=text has; got (1, 8, 8)"
    ]
    if name == "transformer":
        wrong = find_model(name)(name=name, width=10, heads=4)
        assert wrong.check() == ["heads: got 4; allowed: a divisor of the width 10"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "mlp",
            r"mlp gives \(2, 11\) for 2 windows of \(9,\) tokens and a vocabulary of 11; allowed",
        ),
        ("cnn", "cnn needs images"),
    ],
)
def test_models_of_other_samples_are_refused_for_tokens(name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        build_model(find_model(name)(name=name), (WINDOW,), VOCABULARY, tokens=True)

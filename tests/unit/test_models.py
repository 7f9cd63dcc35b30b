"""Models: the published sizes, weights that follow from the seed, and settings that are checked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from mpi_dcasgd.errors import ConfigError, UserError
from mpi_dcasgd.learning.data import Facts
from mpi_dcasgd.learning.flat import FlatLayout
from mpi_dcasgd.learning.models import (
    MODELS,
    ModelSource,
    build_model,
    factory,
    find_model,
    shapes,
    torchvision_models,
)
from mpi_dcasgd.learning.models.residual import Block
from mpi_dcasgd.vision import torchvision

CIFAR = (3, 32, 32)
DIGITS = (1, 8, 8)


def source(name: str, **settings: Any) -> ModelSource:
    return find_model(name)(name=name, **settings)


def make(name: str, shape: tuple[int, ...] = DIGITS, **settings: object) -> nn.Module:
    return build_model(source(name, **settings), shape, 10)


def problems(name: str, **settings: object) -> list[str]:
    return source(name, **settings).check()


@pytest.fixture
def needs_torchvision() -> None:
    try:
        torchvision()
    except UserError as error:
        pytest.skip(str(error))


# 464 + 2n * 2336 + (4608 + (2n - 1) * 9216 + 128n) + (18432 + (2n - 1) * 36864 + 256n) + 650:
# first layer, three stages of n blocks, output; the paper's table 6 rounds to 0.27 .. 1.7 M.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet20", 269_722),
        ("resnet32", 464_154),
        ("resnet44", 658_586),
        ("resnet56", 853_018),
        ("resnet110", 1_727_962),
    ],
)
def test_cifar_resnets_have_the_papers_parameters(name: str, parameters: int) -> None:
    assert FlatLayout.of(make(name, CIFAR)).num_trainable == parameters


def test_cifar_resnets_have_the_papers_layers_and_map_sizes() -> None:
    model = make("resnet20", CIFAR)
    weighted = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(weighted) == 20
    sizes = []
    for stage in model.stages:
        stage.register_forward_hook(lambda _m, _i, out: sizes.append(tuple(out.shape[1:])))
    assert model(torch.zeros(2, *CIFAR)).shape == (2, 10)
    assert sizes == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_shortcuts_take_every_second_pixel_and_fill_new_channels_with_zeros() -> None:
    block = Block(2, 4, stride=2).eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(1, 2, 5, 5)
    out = block(x)
    assert torch.equal(out[:, :2], x[:, :, ::2, ::2])
    assert out.shape == (1, 4, 3, 3)
    assert not out[:, 2:].any()


def test_convolutions_of_resnets_start_as_kaiming_normal() -> None:
    torch.manual_seed(0)
    weight = make("resnet20", CIFAR).stages[2][2].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet20"])
def test_initial_weights_follow_from_torchs_seed_alone(name: str) -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return nn.utils.parameters_to_vector(make(name).parameters())

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_mlp_flattens_any_input_and_has_the_layers_it_is_told() -> None:
    model = make("mlp", (2, 3), hidden=(5, 4), dropout=0.5)
    kinds = [type(layer).__name__ for layer in model]
    assert kinds == ["Flatten", *["Linear", "ReLU", "Dropout"] * 2, "Linear"]
    assert [m.out_features for m in model if isinstance(m, nn.Linear)] == [5, 4, 10]
    assert model(torch.zeros(7, 2, 3)).shape == (7, 10)
    assert [type(layer) for layer in make("mlp", (6,), hidden=())] == [nn.Flatten, nn.Linear]
    assert type(make("mlp", (6,), hidden=(5,), activation="tanh")[2]) is nn.Tanh


def test_mlp_normalises_each_hidden_layer_where_it_is_told_to() -> None:
    model = make("mlp", (2, 3), hidden=(5, 4), batchnorm=True)
    kinds = [type(layer).__name__ for layer in model]
    assert kinds == ["Flatten", *["Linear", "BatchNorm1d", "ReLU"] * 2, "Linear"]
    assert [m.bias is None for m in model if isinstance(m, nn.Linear)] == [True, True, False]
    assert model(torch.zeros(7, 2, 3)).shape == (7, 10)


@pytest.mark.parametrize("shape", [DIGITS, (1, 28, 28), CIFAR, (3, 5, 9)])
@pytest.mark.parametrize("batchnorm", [False, True])
def test_cnn_takes_small_images_of_any_size(shape: tuple[int, ...], batchnorm: bool) -> None:
    model = make("cnn", shape, batchnorm=batchnorm)
    assert model(torch.zeros(2, *shape)).shape == (2, 10)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == (2 if batchnorm else 0)


@pytest.mark.parametrize("shrink", ["pool", "stride"])
def test_cnn_halves_images_as_often_as_it_has_blocks(shrink: str) -> None:
    model = make("cnn", CIFAR, channels=[8, 16, 32], shrink=shrink, batchnorm=True, hidden=[])
    kinds = [type(layer).__name__ for layer in model]
    block = ["Conv2d", "BatchNorm2d", "ReLU", *["MaxPool2d"] * (shrink == "pool")]
    assert kinds == [*block * 3, "Sequential"]
    assert [m.out_channels for m in model if isinstance(m, nn.Conv2d)] == [8, 16, 32]
    assert model[:-1](torch.zeros(2, *CIFAR)).shape == (2, 32, 4, 4)
    assert model(torch.zeros(2, *CIFAR)).shape == (2, 10)


def test_cnn_with_pooling_needs_pixels_for_each_block() -> None:
    three = {"channels": [4, 4, 4]}
    with pytest.raises(
        ConfigError, match=r"needs images of 8 x 8 pixels or more for 3 blocks; got"
    ):
        make("cnn", (1, 7, 9), **three)
    assert make("cnn", (1, 8, 8), **three)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    # A stride leaves a pixel of one.
    strided = make("cnn", (1, 7, 1), shrink="stride", **three)
    assert strided(torch.zeros(2, 1, 7, 1)).shape == (2, 10)


@pytest.mark.parametrize(("name", "shape"), [("cnn", (1, 3, 8)), ("cnn", (8,)), ("resnet20", (8,))])
def test_models_of_images_refuse_other_data(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=rf"name: {name} needs images .* got \("):
        make(name, shape)


@pytest.mark.usefixtures("needs_torchvision")
def test_built_in_names_and_torchvisions_are_apart() -> None:
    theirs = torchvision().models.list_models()
    assert not set(MODELS) & set(theirs)
    assert "fasterrcnn_resnet50_fpn" in theirs
    with pytest.raises(UserError, match="unknown 'fasterrcnn_resnet50_fpn'"):
        find_model("fasterrcnn_resnet50_fpn")


@pytest.mark.usefixtures("needs_torchvision")
def test_the_names_that_are_known_without_torchvision_are_torchvisions_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs = torchvision_models.torchvision_names()
    assert sorted(torchvision_models.NAMES) == sorted(theirs)
    # One that a later torchvision has is asked for there.
    monkeypatch.setattr(factory, "torchvision_names", lambda: [*theirs, "resnet9000"])
    assert find_model("resnet9000") is torchvision_models.TorchvisionModel


@pytest.mark.usefixtures("needs_torchvision")
@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [
        ("resnet18", CIFAR, {}),
        ("squeezenet1_1", CIFAR, {"dropout": 0.1}),
    ],
)
def test_torchvisions_models_train_with_one_output(
    name: str, shape: tuple[int, ...], options: dict[str, float]
) -> None:
    model = make(name, shape, options=options)
    assert model.training
    assert model(torch.zeros(2, *shape)).shape == (2, 10)


@pytest.mark.usefixtures("needs_torchvision")
def test_models_with_auxiliary_outputs_are_built_without_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = nn.Linear(1, 1)
    asked: dict[str, object] = {}
    monkeypatch.setattr(
        torchvision().models, "get_model", lambda name, **given: asked.update(given) or made
    )
    monkeypatch.setattr(shapes, "check_output", lambda *_, **__: None)
    assert make("googlenet", CIFAR, options={"dropout": 0.1}) is made  # building it takes seconds
    assert asked == {
        "weights": None,
        "num_classes": 10,
        "aux_logits": False,
        "init_weights": True,
        "dropout": 0.1,
    }


@pytest.mark.usefixtures("needs_torchvision")
@pytest.mark.parametrize(
    ("name", "shape", "options", "told"),
    [
        ("resnet18", DIGITS, {}, r"cannot take samples of shape \(1, 8, 8\)"),
        ("alexnet", CIFAR, {}, "Output size is too small"),
        ("resnet18", CIFAR, {"widht": 3}, "options: resnet18 does not take them: .*widht"),
    ],
)
def test_torchvisions_models_that_do_not_fit_are_refused(
    name: str, shape: tuple[int, ...], options: dict[str, int], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        make(name, shape, options=options)


@pytest.mark.usefixtures("needs_torchvision")
def test_checking_a_models_fit_changes_nothing_in_it() -> None:
    torch.manual_seed(0)
    checked = make("resnet18", CIFAR)
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    plain = torchvision().models.resnet18(num_classes=10)
    assert torch.equal(state, torch.random.get_rng_state())
    for (name, ours), theirs in zip(
        checked.state_dict().items(), plain.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name


@pytest.mark.usefixtures("needs_torchvision")
def test_wrong_settings_are_all_told() -> None:
    with pytest.raises(UserError, match=r"unknown 'resnet-32'; did you mean resnet32\? .*mlp, cnn"):
        find_model("resnet-32")
    assert problems("resnet18", options={"weights": "DEFAULT", "progress": True}) == [
        "options.weights: follows from the data and a fresh start; omit it",
        "options.progress: follows from the data and a fresh start; omit it",
    ]
    assert problems("googlenet", options={"aux_logits": True})[0].startswith("options.aux_logits: ")
    with pytest.raises(ConfigError, match=r"model: 1 problem\n  options.weights: follows"):
        make("resnet18", options={"weights": "DEFAULT"})


def test_without_torchvision_its_models_are_refused_and_the_others_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing() -> list[str]:
        raise UserError("torchvision cannot be imported")

    monkeypatch.setattr(factory, "torchvision_names", missing)
    monkeypatch.setattr(torchvision_models, "find_spec", lambda name: None)
    assert problems("resnet18") == [
        "name: resnet18 is torchvision's, which is not installed; pip install "
        "'mpi-dcasgd[vision]', or choose another model"
    ]
    with pytest.raises(
        UserError, match=r"'renset18' is not built in; did you mean resnet18\?.*and"
    ):
        find_model("renset18")
    assert problems("resnet20") == []


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 5, 4), (3, 4, 1), (3, 1, 1), (1, 8, 8), CIFAR])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mlp", {}),
        ("mlp", {"batchnorm": True}),
        ("mlp", {"batchnorm": True, "hidden": ()}),
        ("cnn", {}),
        ("cnn", {"batchnorm": True}),
        ("cnn", {"batchnorm": True, "channels": (4, 4, 4)}),
        ("cnn", {"batchnorm": True, "channels": (4, 4, 4), "shrink": "stride"}),
        ("resnet20", {}),
    ],
)
def test_what_models_know_of_shapes_is_what_trying_out_tells(
    name: str, settings: dict[str, Any], shape: tuple[int, ...]
) -> None:
    model = source(name, **settings)
    assert model.shapes_known
    if model.fits(shape, 10):
        return
    module = model.build(shape, 10)
    shapes.check_output(module, name, shape, 10)
    assert model.takes_one_sample(shape) == shapes._trains_on_one(module, shape)


@pytest.mark.usefixtures("needs_torchvision")
def test_a_lone_last_sample_is_tried_out_where_the_model_does_not_know() -> None:
    def told(model: ModelSource, num_train: int) -> list[str]:
        data = Facts(num_train, 5, 10, CIFAR, 0)
        return shapes.check_last_batch(model, data, 16)

    batchnorm = source("resnet18")
    assert told(batchnorm, 33) == [
        "batch_size: 33 samples in minibatches of 16 leave one for the last, and of a single "
        "sample BatchNorm takes no statistics; choose another size"
    ]
    assert told(batchnorm, 34) == []
    assert told(source("squeezenet1_1"), 33) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden": (0,)},
        {"hidden": ("8",)},
        {"dropout": 1.0},
        {"dropout": "0.1"},
        {"batchnorm": 1},
        {"width": 2},
    ],
)
def test_settings_are_strict(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        source("mlp", **wrong)
    assert source("mlp", hidden=[8, 4]).hidden == (8, 4)

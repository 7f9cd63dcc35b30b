"""Parameter groups: which parameters they take, how these are laid out, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import CPU, World, toy_model

from mpi_dcasgd.config.check import try_job
from mpi_dcasgd.config.load import job_as_yaml
from mpi_dcasgd.drivers.conductor import weights_sha256
from mpi_dcasgd.errors import ConfigError, ProtocolError
from mpi_dcasgd.learning.flat import FlatLayout, FlatModel
from mpi_dcasgd.learning.groups import Grouping, ParameterGroup
from mpi_dcasgd.learning.layout import ALIGN
from mpi_dcasgd.rules.stretch import Stretch

JOB: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 8,
    "lr": 0.1,
    "model": {"name": "mlp"},
    "data": {"name": "digits"},
}


def grouping(*groups: dict[str, Any], on: Any = "all") -> Grouping:
    return Grouping(groups=tuple(ParameterGroup(**one) for one in groups), decay_on=on)


class Net(nn.Module):
    """One of each kind of layer; the head and the embedding share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.words = nn.Embedding(9, 8)
        self.attention = nn.MultiheadAttention(8, 2)
        self.own = LlamaRMSNorm()
        self.scale = nn.Parameter(torch.ones(3))
        self.head = nn.Linear(8, 9)
        self.head.weight = self.words.weight


class LlamaRMSNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))


ALL = [name for name, _ in Net().named_parameters()]
BIASES = [
    "conv.bias",
    "norm.bias",
    "attention.in_proj_bias",
    "attention.out_proj.bias",
    "head.bias",
]
NORMS = ["norm.weight", "norm.bias", "own.weight"]
HEAVY = [
    "conv.weight",
    "words.weight",
    "attention.in_proj_weight",
    "attention.out_proj.weight",
]


def first_group(match: Any) -> list[str]:
    """Names of the parameters that a group of this kind takes."""
    layout = FlatLayout.of(Net(), grouping({"match": match, "lr": 0.5}))
    end = layout.stretches[0].end if layout.stretches[0].lr == 0.5 else 0
    return [field.name for field in layout.params if field.offset < end]


@pytest.mark.parametrize(
    ("match", "names"),
    [
        ("biases", BIASES),
        ("norms", NORMS),
        ("biases-and-norms", [name for name in ALL if name in {*BIASES, *NORMS}]),
        ("conv-and-linear", HEAVY),
        ("rest", ALL),
        ("*", ALL),
        ("conv.*", ["conv.weight", "conv.bias"]),
        ("scale", ["scale"]),
        (["scale", "n?rm.*"], ["scale", "norm.weight", "norm.bias"]),
        ("head.weight", ["words.weight"]),  # a tied weight by its other name
    ],
)
def test_a_group_takes_what_it_names(match: Any, names: list[str]) -> None:
    assert first_group(match) == names


def test_a_layer_that_is_used_twice_is_found_by_each_of_its_names() -> None:
    layer = nn.Linear(3, 3)
    model = nn.ModuleDict({"first": layer, "second": layer})
    layout = FlatLayout.of(model, grouping({"match": "second.bias", "lr": 2.0}))
    assert [field.name for field in layout.params] == ["first.bias", "first.weight"]


def test_the_first_group_that_matches_takes_a_parameter() -> None:
    layout = FlatLayout.of(
        Net(),
        grouping(
            {"match": "norms", "lr": 2.0},
            {"match": "biases", "lr": 3.0},
            {"match": "scale"},
            {"match": "rest", "weight_decay": 0.0},
        ),
    )
    order = [*NORMS, *(name for name in BIASES if name != "norm.bias"), "scale"]
    names = [field.name for field in layout.params]
    assert names == [*order, *(name for name in ALL if name not in order)]
    assert [(one.lr, one.weight_decay) for one in layout.stretches] == [
        (2.0, 1.0),
        (3.0, 1.0),
        (1.0, 1.0),
        (1.0, 0.0),
    ]
    assert [field.name for field in layout.in_model_order] == ALL


def test_a_group_lies_in_one_piece_on_a_64_byte_boundary() -> None:
    layout = FlatLayout.of(Net(), grouping({"match": "biases", "lr": 2.0}, on="conv-and-linear"))
    assert [one.begin for one in layout.stretches] == [
        0,
        *(one.end for one in layout.stretches[:-1]),
    ]
    assert layout.stretches[-1].end == layout.num_params
    assert all(one.begin % ALIGN == 0 for one in layout.stretches)
    offsets = [field.offset for field in layout.params]
    assert offsets == sorted(offsets)
    assert layout.stats[0].offset == layout.num_params


def test_decay_on_convolutions_and_linear_layers_spares_all_others_in_every_group() -> None:
    layout = FlatLayout.of(
        Net(), grouping({"match": "attention.*", "weight_decay": 3.0}, on="conv-and-linear")
    )
    decay = {
        field.name: one.weight_decay
        for field in layout.params
        for one in layout.stretches
        if one.begin <= field.offset < one.end
    }
    expected = dict.fromkeys(ALL, 0.0) | dict.fromkeys(HEAVY, 1.0)
    expected |= {"attention.in_proj_weight": 3.0, "attention.out_proj.weight": 3.0}
    assert decay == expected


@pytest.mark.parametrize("groups", [(), ({"match": "*"},), ({"match": "rest"},)])
def test_one_group_with_factors_of_1_is_no_groups(groups: tuple[dict[str, Any], ...]) -> None:
    assert FlatLayout.of(Net(), grouping(*groups)) == FlatLayout.of(Net())
    assert FlatLayout.of(Net()).stretches == ()
    assert FlatLayout.of(Net()).rearranged == ()


def test_neighbours_with_equal_factors_are_updated_together() -> None:
    layout = FlatLayout.of(
        Net(),
        grouping(
            {"match": "biases", "weight_decay": 0.0},
            {"match": "norms", "weight_decay": 0.0},
        ),
    )
    assert [one.weight_decay for one in layout.stretches] == [0.0, 1.0]
    assert FlatLayout.of(Net(), grouping({"match": "biases"})).stretches == ()


def test_frozen_parameters_keep_their_values_and_do_not_travel() -> None:
    groups = grouping({"match": "0.*", "frozen": True})
    flat = FlatModel(toy_model(batchnorm=True), CPU, grouping=groups)
    fresh = toy_model(batchnorm=True)
    assert [f.name for f in flat.layout.params] == ["1.weight", "1.bias", "3.weight", "3.bias"]
    assert flat.layout.frozen == ("0.weight", "0.bias")
    flat.take_gradient(flat.model(torch.ones(4, 5)).square().sum())
    assert flat.grad.any()
    flat.weights.fill_(3.0)
    assert torch.equal(flat.model.get_parameter("0.weight"), fresh.get_parameter("0.weight"))
    assert not flat.model.get_parameter("0.weight").requires_grad
    other = FlatModel(toy_model(batchnorm=True, seed=1), CPU, grouping=groups)
    assert other.fixed_sha256() != flat.fixed_sha256()
    again = FlatModel(fresh, CPU, grouping=groups)
    assert again.fixed_sha256() == flat.fixed_sha256()


def problems_of(model: nn.Module, *groups: dict[str, Any], on: Any = "all") -> list[str]:
    with pytest.raises(ConfigError) as raised:
        FlatLayout.of(model, grouping(*groups, on=on))
    return raised.value.problems


def test_a_pattern_that_matches_nothing_is_told_with_near_names() -> None:
    (problem,) = problems_of(Net(), {"match": ["scale", "haed.weight"]})
    assert problem.startswith("groups[0].match: 'haed.weight' matches no parameter of the model")
    assert "near: head.weight" in problem
    assert "or one of biases, norms" in problem
    (problem,) = problems_of(Net(), {"match": "zzzz"})
    assert "its parameters are scale, conv.weight, conv.bias and " in problem
    (problem,) = problems_of(nn.Linear(2, 2), {"match": "norms"})
    assert problem.startswith("groups[0].match: norms (all parameters of normalization layers")


def test_a_group_that_is_left_with_nothing_is_told() -> None:
    (problem,) = problems_of(Net(), {"match": "biases"}, {"match": ["conv.bias"]})
    assert problem == (
        "groups[1]: earlier groups have taken all that it matches (conv.bias); put it before "
        "them, or omit it"
    )
    (problem,) = problems_of(Net(), {"match": "biases"}, {"match": "[!x]*"}, {"match": "rest"})
    assert problem.startswith("groups[2]: earlier groups have taken all that it matches")


def test_more_that_does_not_fit_a_model() -> None:
    (problem,) = problems_of(Net(), {"match": "*", "frozen": True})
    assert "nothing to train" in problem
    model = Net()
    model.scale.requires_grad_(False)
    (problem,) = problems_of(model, {"match": "scale", "lr": 2.0})
    assert "the model itself does not train scale" in problem
    FlatLayout.of(model, grouping({"match": "scale", "frozen": True}))
    (problem,) = problems_of(nn.Embedding(3, 3), on="conv-and-linear")
    assert problem.startswith("rule.weight_decay.on: got conv-and-linear, but the model has no")


class Holder(nn.Module):
    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.fine = nn.Parameter(torch.zeros(3))
        self.odd = nn.Parameter(tensor)


def test_a_model_without_trained_parameters_is_refused() -> None:
    with pytest.raises(ConfigError, match="got none; allowed: one or more"):
        FlatLayout.of(nn.Identity())
    with pytest.raises(ConfigError, match="got none that is trained"):
        FlatLayout.of(nn.Linear(2, 1).requires_grad_(False))


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (torch.zeros(2, dtype=torch.complex64), "is complex (complex64); allowed: float32"),
        (torch.zeros(2, dtype=torch.float64), "is of another type (float64); allowed: float32"),
        (torch.zeros(2, dtype=torch.bfloat16), "is of another type (bfloat16); allowed: float32"),
        (torch.eye(2).to_sparse(), "is sparse (sparse_coo); allowed: dense float32"),
    ],
    ids=["complex", "double", "half", "sparse"],
)
def test_a_parameter_that_cannot_be_in_the_vector_is_refused_by_name(
    tensor: Tensor, kind: str
) -> None:
    (problem,) = problems_of(Holder(tensor))
    assert problem.startswith(f"odd: {kind}")
    with pytest.raises(ConfigError, match="odd: is"):
        FlatModel(Holder(tensor), CPU)
    flat = FlatModel(Holder(tensor), CPU, grouping=grouping({"match": "odd", "frozen": True}))
    assert [field.name for field in flat.layout.params] == ["fine"]
    assert len(flat.fixed_sha256()) == 64


def test_other_tensors_that_cannot_be_in_the_vector() -> None:
    assert "weight: has no shape yet" in problems_of(nn.LazyLinear(3))[0]
    model = toy_model(batchnorm=True)
    model[1].double()
    assert [line.partition(":")[0] for line in problems_of(model)] == [
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
    ]


class Tied(nn.Module):
    """A linear autoencoder: the same weight there and back."""

    def __init__(self) -> None:
        super().__init__()
        self.there = nn.Linear(64, 64, bias=False)
        self.back = nn.Linear(64, 64, bias=False)
        self.back.weight = self.there.weight

    def forward(self, inputs: Tensor) -> Tensor:
        return self.back(torch.tanh(self.there(inputs)))


@pytest.mark.parametrize("bound", [False, True])
def test_tied_weights_are_one_field_and_both_see_updates(
    bound: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mpi_dcasgd.learning.flat._WORTH_BINDING", 1 if bound else 1 << 40)
    model = Tied()
    flat = FlatModel(model, CPU, grouping=grouping({"match": "back.weight", "lr": 0.5}))
    assert [field.name for field in flat.layout.params] == ["there.weight"]
    assert flat.layout.stretches == (Stretch(0, 64 * 64, lr=0.5),)
    inputs = torch.randn(3, 64)
    weight = model.there.weight.detach().clone().requires_grad_()
    expected = torch.nn.functional.linear(
        torch.tanh(torch.nn.functional.linear(inputs, weight)), weight
    )
    expected.square().sum().backward()  # type: ignore[no-untyped-call]
    flat.take_gradient(model(inputs).square().sum())
    torch.testing.assert_close(flat.grad.view(64, 64), weight.grad)
    flat.weights.fill_(2.0)
    for linear in (model.there, model.back):
        assert (linear.weight == 2.0).all()
    for value in (3.0, 4.0):
        flat.read(torch.full((flat.layout.size,), value))
        for linear in (model.there, model.back):
            assert (linear.weight == value).all()
        assert model.there.weight is model.back.weight


TOY_GROUPS = grouping(
    {"match": "biases", "lr": 0.5, "weight_decay": 0.0}, {"match": "2.weight", "lr": 2.0}
)


@pytest.mark.parametrize("algorithm", ["asgd", "dcasgd-a", "dana", "rennala"])
def test_the_order_of_groups_with_factors_of_1_changes_no_weight(algorithm: str) -> None:
    found = []
    for groups in (Grouping(), grouping({"match": "2.*"}, {"match": "biases"})):
        world = World(3, algorithm, {"weight_decay": {"rate": 0.01}}, grouping=groups)
        weights = world.run()
        layout = world.server.layout
        found.append((weights_sha256(weights, layout), [f.name for f in layout.params]))
    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1]


def test_a_frozen_group_is_as_if_it_were_not_there() -> None:
    world = World(2, "dcasgd-c", grouping=grouping({"match": "0.*", "frozen": True}))
    before = toy_model().get_parameter("0.weight")
    weights = world.run()
    assert not torch.equal(weights, world.initial)
    for learner in world.learners:
        assert torch.equal(learner.flat.model.get_parameter("0.weight"), before)


def test_a_server_with_groups_goes_on_from_its_state_and_no_other_does() -> None:
    def world_of(groups: Grouping) -> World:
        return World(2, "dcasgd-a", {"momentum": "heavy-ball"}, grouping=groups)

    world = world_of(TOY_GROUPS)
    world.join()
    for worker in (0, 1, 1):
        world.step(worker)
    state = world.server.state_dict()
    resumed = world_of(TOY_GROUPS)
    resumed.server.load_state_dict(state)
    resumed.queues = [list(queue) for queue in world.queues]
    for worker in (1, 0):
        world.step(worker)
        resumed.step(worker)
    assert torch.equal(world.server.weights, resumed.server.weights)
    plain, later = Grouping(), grouping({"match": "0.weight"}, {"match": "2.weight"})
    for there, here, told in (
        (TOY_GROUPS, plain, "parameter 0 of the vector is 0.bias, here 0.weight"),
        (plain, TOY_GROUPS, "parameter 0 of the vector is 0.weight, here 0.bias"),
        (TOY_GROUPS, later, "parameter 0 of the vector is 0.bias, here 0.weight"),
        (later, plain, "parameter 1 of the vector is 2.weight, here 0.bias"),
    ):
        saved = world_of(there).server.state_dict()
        with pytest.raises(ProtocolError, match=f"parameter groups are others: {told};"):
            world_of(here).server.load_state_dict(saved)
    # Without groups nothing is said, so that checkpoints of before are read.
    assert "params" not in world_of(Grouping()).server.lasting_state()


def test_groups_in_a_job_file() -> None:
    groups = [{"match": "biases-and-norms", "weight_decay": 0.0}, {"match": ["1.*"], "lr": 0.1}]
    job, problems = try_job({**JOB, "groups": groups}, name="x")
    assert (problems, job is not None) == ([], True)
    assert job is not None
    assert job.groups[0].match == ("biases-and-norms",)
    plain = job_as_yaml(job)
    assert plain["groups"][1] == {
        "match": ["1.*"],
        "lr": 0.1,
        "weight_decay": 1.0,
        "frozen": False,
    }
    assert try_job(plain, name="x")[0] == job
    plainest, _ = try_job(JOB, name="x")
    assert plainest is not None
    assert plainest.grouping == Grouping()
    rule = {"weight_decay": {"rate": 0.1, "on": "conv-and-linear"}}
    job, _ = try_job({**JOB, "rule": rule, "groups": None}, name="x")
    assert job is not None
    assert job.grouping == Grouping(decay_on="conv-and-linear")
    assert {reference.year for reference in job.rule.references()} == {2020}


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        ("biases", "groups: got 'biases' (text); allowed: a list of a mapping of match, lr"),
        ([3], "groups[0]: got 3 (a whole number); allowed: a mapping of match"),
        ([{"lr": 2.0}], "groups[0].match: missing; give text"),
        ([{"match": "x", "wd": 0}], "groups[0].wd: unknown"),
        ([{"match": "x", "lr": 0}], "groups[0].lr: got 0 (a whole number); allowed: a number > 0"),
        ([{"match": []}], "groups[0].match: got [] (a list); allowed: text"),
        ([{"match": "x", "weight_decay": -1.0}], "groups[0].weight_decay: got -1.0"),
        (
            [{"match": "x", "frozen": True, "lr": 2.0}],
            "groups[0].frozen: got true beside lr; what is frozen has no step to be scaled",
        ),
        (
            [{"match": "rest"}, {"match": "x"}],
            "groups[1]: is never reached, since groups[0] takes all that is left",
        ),
    ],
)
def test_bad_groups_in_a_job_file(groups: Any, told: str) -> None:
    job, problems = try_job({**JOB, "groups": groups}, name="x")
    assert job is None
    assert len(problems) == 1
    assert problems[0].startswith(told)

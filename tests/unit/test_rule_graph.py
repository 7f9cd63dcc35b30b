"""A rule written down as a graph: the operations that the step does, or a refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.fx.experimental.proxy_tensor import make_fx

from mpi_dcasgd.rules.chain import Chain
from mpi_dcasgd.rules.graph import Step, trace
from tests.chains import CHAINS

WORKERS = 3


@pytest.mark.parametrize("name", CHAINS)
def test_the_graph_is_the_one_that_torch_would_write(name: str) -> None:
    chain = Chain(CHAINS[name], torch.zeros(64), WORKERS)
    (work,) = chain._works
    state, numbers, step = len(work.vectors[0]), work.numbers, work.step.step
    mine = trace(step, torch.zeros(64), len(numbers), state).module.graph
    vectors = [torch.zeros(64) for _ in range(3 + state)]
    theirs = make_fx(step)(*vectors[:3], numbers, *vectors[3:]).graph
    theirs.eliminate_dead_code()
    assert operations(mine) == operations(theirs)


def operations(graph: Graph) -> list[tuple[Any, ...]]:
    """What is done to the results of which operations before."""
    numbers: dict[Node, int] = {}
    found = []
    for node in graph.nodes:
        arguments = torch.fx.map_arg((node.args, node.kwargs), numbers.__getitem__)
        numbers[node] = len(numbers)
        target = None if node.op == "placeholder" else node.target
        found.append((node.op, target, repr(arguments)))
    return found


def step_of(change: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Step:
    """A step that changes the weights: ``change(params, grad, rate)``."""

    def step(params: Tensor, grad: Tensor, snapshot: Tensor, numbers: Tensor) -> tuple[Tensor, ...]:
        return (change(params, grad, numbers[0]), snapshot)

    return step


def scaled_in_place(params: Tensor, grad: Tensor, rate: Tensor) -> Tensor:
    scaled = grad * rate
    scaled.mul_(2.0).add_(1.0)
    return params - scaled


@pytest.mark.parametrize(
    "change",
    [
        scaled_in_place,
        lambda params, grad, rate: params - grad * torch.tensor(0.5) * rate,
        lambda params, grad, rate: params - grad.detach() * rate,
        lambda params, grad, rate: params - torch.where(grad > 0, grad, 0.1 * grad) * rate,
        lambda params, grad, rate: params - grad * (rate / len(params)),
        lambda params, grad, rate: torch.add(params, grad * rate, alpha=-2.0),
    ],
)
def test_what_is_written_down_does_what_the_step_does(
    change: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> None:
    step = step_of(change)
    params, grad, snapshot = torch.randn(3, 40).unbind()
    before = params.clone(), grad.clone()
    traced = trace(step, params, 1, 0)
    numbers = torch.tensor([0.25])
    found = traced.module(params, grad, snapshot, numbers)
    assert torch.equal(found[0], change(*before, numbers[0]))
    assert torch.equal(params, before[0])
    assert torch.equal(grad, before[1])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda p, g, r: p - g * r if r > 0 else p, "decides by a value"),
        (lambda p, g, r: p - g * float(r), "decides by a value"),
        (lambda p, g, r: p - g * r.tolist(), "a value that it has read"),
        (lambda p, g, r: p - g.mul_(r), "writes into what it reads"),
        (lambda p, g, r: p - g * torch.linspace(0, 1, len(g)), "none of its inputs"),
        (lambda p, g, r: p - torch.zeros(len(g)).add_(g) * r, "none of its inputs"),
        (lambda p, g, r: p - torch.from_numpy(g.numpy()) * r, "none of its inputs"),
    ],
)
def test_what_cannot_be_written_down_is_refused(
    change: Callable[[Tensor, Tensor, Tensor], Tensor], why: str
) -> None:
    with pytest.raises(NotImplementedError, match=why):
        trace(step_of(change), torch.zeros(40), 1, 0)


def test_a_graph_has_nothing_that_no_result_needs() -> None:
    def change(params: Tensor, grad: Tensor, rate: Tensor) -> Tensor:
        _ = grad * 3.0
        return params - rate

    traced = trace(step_of(change), torch.zeros(40), 2, 0)
    assert not traced.placeholders[1].users, "a pass does not read the gradient"
    assert [len(one) for one in traced.inputs()] == [40, 40, 40, 2]


def test_what_is_written_in_place_is_read_from_where_it_was_written() -> None:
    step, vectors = step_of(scaled_in_place), torch.zeros(4, 40).unbind()
    theirs = make_fx(step)(*vectors).graph
    theirs.eliminate_dead_code()
    assert operations(trace(step, vectors[0], 1, 0).module.graph) == operations(theirs)


@pytest.mark.parametrize("length", [1, 3])
def test_the_numbers_are_as_many_as_they_are(length: int) -> None:
    def step(params: Tensor, grad: Tensor, snapshot: Tensor, numbers: Tensor) -> tuple[Tensor, ...]:
        return params - grad * (numbers.sum() / len(numbers)), snapshot

    numbers = torch.arange(1.0, 1.0 + length)
    params, grad = torch.randn(2, 40).unbind()
    found = trace(step, params, length, 0).module(params, grad, params, numbers)
    assert torch.equal(found[0], params - grad * (numbers.sum() / length))


def test_only_a_state_that_is_another_vector_is_protected_from_being_that_one() -> None:
    def step(
        params: Tensor, grad: Tensor, snapshot: Tensor, numbers: Tensor, mean: Tensor, last: Tensor
    ) -> tuple[Tensor, ...]:
        return params - grad * numbers[0], snapshot, 0.9 * mean + 0.1 * params, params * 1.0

    traced = trace(step, torch.zeros(40), 1, 2)
    guards = torch.ops.aten.maximum.default
    assert [result.target == guards for result in traced.results] == [False, False, False, True]

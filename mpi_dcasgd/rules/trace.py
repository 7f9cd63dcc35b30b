"""A rule's arithmetic written down once, as a graph of elementwise operations.

The graph is what both ways of running a pass are made from, so they do the same operations in
the same order. It is taken with tensors that have a shape and no values: a part that decides
by the value of a scalar or an element cannot be written down, and says so here instead of being
frozen to what it saw first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

Step = Callable[..., tuple[Tensor, ...]]
"""``step(params, grad, snapshot, numbers, *state)`` -> new params, new snapshot, new state.

``numbers`` is a vector: the rate, then the scalars of every part. Nothing is written into.
"""


@dataclass(frozen=True)
class Traced:
    """A step as a graph.

    Attributes:
        module: Inputs params, grad, snapshot, numbers, state; returns params, snapshot, state.
        inputs: Tensors of the inputs' shapes, without values.
    """

    module: GraphModule
    inputs: tuple[Tensor, ...]

    def copy(self) -> Traced:
        """The same with a graph of its own, to be rewritten."""
        graph = Graph()
        graph.output(graph.graph_copy(self.module.graph, {}))
        return Traced(GraphModule(self.module, graph), self.inputs)

    @property
    def placeholders(self) -> list[Node]:
        return [node for node in self.module.graph.nodes if node.op == "placeholder"]

    @property
    def results(self) -> list[Node]:
        """The nodes that are returned: params, snapshot, state."""
        (output,) = (node for node in self.module.graph.nodes if node.op == "output")
        return list(output.args[0])

    @property
    def targets(self) -> list[Node]:
        """The inputs that the results replace: params, snapshot, state."""
        params, _, snapshot, _, *state = self.placeholders
        return [params, snapshot, *state]

    @property
    def vectors_moved(self) -> int:
        """The fewest vectors that a pass has to read and write, each counted once."""
        params, grad, snapshot, _, *state = self.placeholders
        reads = sum(1 for node in (params, grad, snapshot, *state) if node.users)
        writes = sum(
            1
            for result, target in zip(self.results, self.targets, strict=True)
            if result is not target
        )
        return reads + writes


def trace(step: Step, params: Tensor, num_numbers: int, num_state: int) -> Traced:
    """Write a step down for vectors like ``params``; no vector is allocated.

    Raises:
        Exception: Whatever torch raises where the step cannot be written down.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    with FakeTensorMode(), torch.no_grad():

        def like() -> Tensor:
            return torch.empty(params.shape, dtype=params.dtype, device=params.device)

        numbers = torch.empty(num_numbers, dtype=params.dtype, device=params.device)
        inputs = (like(), like(), like(), numbers, *(like() for _ in range(num_state)))
        module = make_fx(step)(*inputs)
    traced = Traced(module, inputs)
    _protect(traced)
    module.graph.eliminate_dead_code()
    module.recompile()
    return traced


def _protect(traced: Traced) -> None:
    """Let no result be another one's target, read when that has been overwritten already.

    A result that is computed from one such input alone, say a state that keeps the weights of
    last time, may be that input, or be simplified to it by a compiler that has not noticed the
    writing (Inductor drops copies this way). The larger of a value and itself is the value, and
    nobody simplifies it.
    """
    targets = traced.targets
    (output,) = (node for node in traced.module.graph.nodes if node.op == "output")
    results = traced.results
    for index, (result, target) in enumerate(zip(results, targets, strict=True)):
        sources = _sources(result)
        if result is target or len(sources) != 1 or target in sources:
            continue
        if sources.issubset(targets):
            with traced.module.graph.inserting_before(output):
                same = traced.module.graph.call_function(
                    torch.ops.aten.maximum.default, (result, result)
                )
            same.meta["val"] = result.meta["val"]
            results[index] = same
    output.args = (tuple(results),)


def _sources(node: Node) -> set[Node]:
    """The input vectors that a node is computed from."""
    found: set[Node] = set()
    seen: set[Node] = set()
    ahead = [node]
    while ahead:
        one = ahead.pop()
        if one in seen:
            continue
        seen.add(one)
        ahead += one.all_input_nodes
        if one.op == "placeholder" and one.meta["val"].shape == node.meta["val"].shape:
            found.add(one)
    return found

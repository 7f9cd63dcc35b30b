"""A rule's arithmetic written down once, as a graph of elementwise operations.

The graph is what all ways of running a pass are made from, so they do the same operations in
the same order. It is taken with tensors that have a shape and no values: a part that decides
by the value of a scalar or an element cannot be written down, and says so here instead of being
frozen to what it saw first.

``torch.fx``'s own ``make_fx`` would write the same graph, and takes seconds to be imported.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

_READS_A_VALUE = (torch.ops.aten._local_scalar_dense.default,)
_SAME = (torch.ops.aten.lift_fresh.default, torch.ops.aten.detach.default)

Step = Callable[..., tuple[Tensor, ...]]
"""``step(params, grad, snapshot, numbers, *state)`` -> new params, new snapshot, new state.

``numbers`` is a vector: the rate, then the scalars of every part. Nothing is written into.
"""


@dataclass(frozen=True)
class Traced:
    """A step as a graph.

    Attributes:
        module: Inputs params, grad, snapshot, numbers, state; returns params, snapshot, state.
        length: Of the vectors.
        num_numbers: Of the vector of numbers.
        dtype: Of all of them.
        device: Where the step is to run.
    """

    module: GraphModule
    length: int
    num_numbers: int
    dtype: torch.dtype
    device: torch.device

    def copy(self) -> Traced:
        """The same with a graph of its own, to be rewritten."""
        graph = Graph()
        graph.output(graph.graph_copy(self.module.graph, {}))
        return replace(self, module=GraphModule(self.module, graph))

    def inputs(self) -> list[Tensor]:
        """Fresh inputs of the step, all zero."""
        lengths = [self.length] * len(self.placeholders)
        lengths[3] = self.num_numbers
        return [torch.zeros(n, dtype=self.dtype, device=self.device) for n in lengths]

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
        NotImplementedError: The step decides by a value, writes into its inputs, or reads a
            vector that is none of them.
        Exception: Whatever torch raises where the step asks for values in another way.
    """
    sheet = _Sheet(len(params), num_numbers, params.dtype)
    with torch.no_grad(), sheet:
        vectors = [sheet.vector() for _ in range(3)]
        results = step(*vectors, sheet.numbers(), *(sheet.vector() for _ in range(num_state)))
    traced = Traced(sheet.finish(results), len(params), num_numbers, params.dtype, params.device)
    _protect(traced)
    traced.module.graph.eliminate_dead_code()
    traced.module.recompile()
    return traced


class _Sheet(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operation that torch is asked for, with what it reads and what it gives.

    What the step sees has the right shape and is nothing but NaN, so that a value that is smuggled
    out would not go unnoticed. What an operation gives is found out with a few numbers.
    """

    def __init__(self, length: int, num_numbers: int, dtype: torch.dtype) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._length = length
        self._sample = num_numbers + 1  # unlike any other length in the step
        self._num_numbers = num_numbers
        self._dtype = dtype
        self._graph = Graph()
        self._constants = nn.Module()
        # By identity; tensors are kept, so that no other one gets the same.
        self._nodes: dict[int, Node] = {}
        self._kept: list[Tensor] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # To be skipped, torch imports its compiler, which takes seconds.
        return False

    def vector(self) -> Tensor:
        """One more input of the length of the weights."""
        return self._input(self._sample)

    def numbers(self) -> Tensor:
        """One more input: the numbers."""
        return self._input(self._num_numbers)

    def finish(self, results: Iterable[Tensor]) -> GraphModule:
        """The graph whose results these are."""
        self._graph.output(tuple(self._argument(result) for result in results))
        return GraphModule(self._constants, self._graph)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        known = [one for one in tree_leaves((args, kwargs)) if id(one) in self._nodes]
        if not known:
            return func(*args, **kwargs)  # a tensor made of nothing: a constant, if it is used
        if func in _READS_A_VALUE:
            raise NotImplementedError(f"{func} in an update, which decides by a value")
        if func in _SAME:
            return self._show(self._nodes[id(known[0])])
        arguments = tree_map(self._argument, args), tree_map(self._argument, kwargs)
        mutable = func._schema.is_mutable
        if mutable and self._nodes[id(args[0])].op == "placeholder":
            raise NotImplementedError(f"{func} in an update, which writes into what it reads")
        samples = tree_map(_sample, arguments[0]), tree_map(_sample, arguments[1])
        found = func(*samples[0], **samples[1])
        node = self._graph.call_function(func, *arguments)
        if mutable:
            node.meta["val"] = _sample(self._nodes[id(args[0])])
            self._nodes[id(args[0])] = node
            return args[0]
        if isinstance(found, Tensor):
            return self._show(node, found)
        return [
            self._show(self._graph.call_function(operator.getitem, (node, index)), one)
            for index, one in enumerate(found)
        ]

    def _input(self, length: int) -> Tensor:
        node = self._graph.placeholder(f"input{len(self._graph.nodes)}")
        return self._show(node, torch.ones(length, dtype=self._dtype))

    def _show(self, node: Node, sample: Tensor | None = None) -> Tensor:
        """Return what the step sees of a node, and of the sample that is its value here."""
        if sample is None:
            sample = node.meta["val"]
        node.meta["val"] = sample
        shape = [self._length if n == self._sample else n for n in sample.shape]
        value = float("nan") if sample.dtype.is_floating_point else 0
        shown = torch.full((), value, dtype=sample.dtype).expand(shape)
        self._nodes[id(shown)] = node
        self._kept.append(shown)
        return shown

    def _argument(self, value: Any) -> Any:
        if isinstance(value, float) and math.isnan(value):
            raise NotImplementedError("a number in an update comes from a value that it has read")
        if not isinstance(value, Tensor):
            return value
        if id(value) in self._nodes:
            return self._nodes[id(value)]
        if value.ndim:
            raise NotImplementedError("a vector in an update that is none of its inputs")
        name = f"constant{len(self._graph.nodes)}"
        self._constants.register_buffer(name, value)
        node = self._graph.get_attr(name)
        node.meta["val"] = value
        self._nodes[id(value)] = node
        return node


def _sample(value: Any) -> Any:
    return value.meta["val"] if isinstance(value, Node) else value


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
    _, _, _, numbers, *_ = traced.placeholders
    for index, (result, target) in enumerate(zip(results, targets, strict=True)):
        sources = _sources(result) - {numbers}
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
    """The inputs that a node is computed from."""
    found: set[Node] = set()
    seen: set[Node] = set()
    ahead = [node]
    while ahead:
        one = ahead.pop()
        if one in seen:
            continue
        seen.add(one)
        ahead += one.all_input_nodes
        if one.op == "placeholder":
            found.add(one)
    return found

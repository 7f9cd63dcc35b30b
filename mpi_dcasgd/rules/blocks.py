"""A pass in blocks that fit into a core's cache, in ordinary calls of torch or NumPy.

Each operation of the step runs over one block before the next block is touched, so memory is
read and written once and what lies between comes from the cache. Intermediate values go into a
few scratch blocks that are allocated once, or straight to where they belong: with fresh memory for
each of them an update takes half as long again, and many times as long when the allocator hands
pages back in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from mpi_dcasgd.rules.block_ops import Writing, split
from mpi_dcasgd.rules.graph import Step, Traced

BLOCK = 1 << 17
"""Elements in a block: half a MiB a lane in float32 (measured, docs/performance.md)."""

Program = Callable[..., Any]


class BlockPass:
    """The pass as a program over scratch blocks, made from the step's graph.

    Args:
        traced: The step.
        writing: Whose functions the program calls.
        block: Elements in a block.

    Raises:
        NotImplementedError: Something in the step is not known to be elementwise, or these
            functions do not have it.
    """

    def __init__(self, traced: Traced, writing: Writing, block: int = BLOCK) -> None:
        self._writing = writing
        self._block = min(block, traced.length)
        self._prologue, self._body, num_scratch = _programs(traced, writing)
        scratch = [torch.empty(self._block, dtype=traced.dtype) for _ in range(num_scratch)]
        self._scratch = [writing.block(one) for one in scratch]
        tail = traced.length % self._block or self._block
        self._tail = [one[:tail] for one in self._scratch]

    def __call__(
        self, params: Tensor, grad: Tensor, snapshot: Tensor, numbers: Tensor, *state: Tensor
    ) -> None:
        block, lanes_of = self._block, self._writing.block
        vectors = (params, grad, snapshot, *state)
        with np.errstate(all="ignore"):
            values = self._prologue(lanes_of(numbers))
            if len(params) == block:
                self._body(*map(lanes_of, vectors), *values, *self._scratch)
                return
            blocks = [self._writing.split(vector, block) for vector in vectors]
            last = len(blocks[0]) - 1
            for index, lanes in enumerate(zip(*blocks, strict=True)):
                scratch = self._tail if index == last else self._scratch
                self._body(*lanes, *values, *scratch)


class EagerPass:
    """The pass by calling the parts as they are, block by block.

    Slower than ``BlockPass``, and without conditions on what the parts do. With ``block`` as long
    as the vectors it is the plain way: one torch call after another over whole vectors.
    """

    def __init__(self, step: Step, block: int = BLOCK) -> None:
        self._step = step
        self._block = block

    def __call__(
        self, params: Tensor, grad: Tensor, snapshot: Tensor, numbers: Tensor, *state: Tensor
    ) -> None:
        if params.numel() <= self._block:
            self._one(params, grad, snapshot, numbers, *state)
            return
        vectors = [split(v, self._block) for v in (params, grad, snapshot, *state)]
        for new_params, grad_block, new_snapshot, *new_state in zip(*vectors, strict=True):
            self._one(new_params, grad_block, new_snapshot, numbers, *new_state)

    def _one(
        self, params: Tensor, grad: Tensor, snapshot: Tensor, numbers: Tensor, *state: Tensor
    ) -> None:
        targets = (params, snapshot, *state)
        results = self._step(params, grad, snapshot, numbers, *state)
        for target, result in zip(targets, _unaliased(results, targets), strict=True):
            target.copy_(result)


def _unaliased(results: Sequence[Tensor], targets: Sequence[Tensor]) -> list[Tensor]:
    """Results that can be copied one after the other: none of them is another one's target."""
    return [
        result.clone() if any(result is t for t in targets if t is not target) else result
        for result, target in zip(results, targets, strict=True)
    ]


def _programs(traced: Traced, writing: Writing) -> tuple[Program, Program, int]:
    """The part of the step that reads numbers only, the part that runs on blocks, its scratch."""
    _, _, _, numbers, *_ = traced.placeholders
    scalar: set[Node] = {numbers}
    block: list[Node] = []
    for node in traced.module.graph.nodes:
        if node.op == "call_function":
            (scalar.add if scalar.issuperset(node.all_input_nodes) else block.append)(node)
        elif node.op not in ("placeholder", "output"):
            raise NotImplementedError(f"{node.op} {node.target} in an update")
    needed = [
        node
        for node in traced.module.graph.nodes
        if node in scalar and any(user not in scalar for user in node.users)
    ]
    body, num_scratch = _Body(traced, writing, block, needed).build()
    return _prologue(numbers, writing, scalar, needed), body, num_scratch


def _prologue(numbers: Node, writing: Writing, scalar: set[Node], needed: list[Node]) -> Program:
    graph = Graph()
    copies = {numbers: graph.placeholder("numbers")}
    for node in numbers.graph.nodes:
        if node in scalar and node is not numbers:
            arguments, keywords = torch.fx.map_arg((node.args, node.kwargs), copies.__getitem__)
            copies[node] = graph.call_function(writing.number(node), arguments, keywords)
    graph.output(tuple(copies[node] for node in needed))
    return _function(graph)


class _Body:
    """Writes the step again with a place for every result.

    A place is an input block that nobody reads any more and that the result replaces in the end,
    else a scratch block, which is free again after the result's last reader. An elementwise
    operation may write over what it reads.
    """

    def __init__(
        self, traced: Traced, writing: Writing, block: list[Node], needed: list[Node]
    ) -> None:
        self._traced = traced
        self._writing = writing
        self._nodes = block
        self._graph = Graph()
        params, grad, snapshot, _, *state = traced.placeholders
        inputs = [params, grad, snapshot, *state, *needed]
        self._place = {n: self._graph.placeholder(f"in{i}") for i, n in enumerate(inputs)}
        self._last_use = self._find_last_uses()
        self._free: list[Node] = []
        self._scratch: list[Node] = []
        self._targets = self._find_targets()

    def build(self) -> tuple[Program, int]:
        # Placeholders come first in a graph, but how many are needed is known at the end only.
        end_of_inputs = list(self._graph.nodes)[-1]
        for index, node in enumerate(self._nodes):
            dying = [n for n in node.all_input_nodes if self._last_use.get(n) == index]
            released = [self._place[n] for n in dying if self._place[n] in self._scratch]
            self._free += released
            self._place[node] = self._write(node, end_of_inputs)
        # An input that is replaced by itself needs no copy.
        for result, target in zip(self._traced.results, self._traced.targets, strict=True):
            if self._place[result] is not self._place[target]:
                arguments = (self._place[target], self._place[result])
                self._graph.call_function(self._writing.copy, arguments)
        self._graph.output(None)
        return _function(self._graph), len(self._scratch)

    def _find_last_uses(self) -> dict[Node, int]:
        last = {n: i for i, node in enumerate(self._nodes) for n in node.all_input_nodes}
        for result in self._traced.results:
            last[result] = len(self._nodes)
        return last

    def _find_targets(self) -> dict[Node, Node]:
        """Results that can be written straight to where they belong."""
        found: dict[Node, Node] = {}
        position = {node: index for index, node in enumerate(self._nodes)}
        for result, target in zip(self._traced.results, self._traced.targets, strict=True):
            unread = self._last_use.get(target, -1) <= position.get(result, -1)
            if result in position and result not in found and unread:
                found[result] = self._place[target]
        return found

    def _write(self, node: Node, end_of_inputs: Node) -> Node:
        arguments, keywords = torch.fx.map_arg((node.args, node.kwargs), self._place.__getitem__)
        function = self._writing.into(node)
        if function is None:
            return self._graph.create_node("call_function", node.target, arguments, keywords)
        place = self._targets.get(node) or self._take_scratch(end_of_inputs)
        self._graph.call_function(function, arguments, {**keywords, "out": place})
        return place

    def _take_scratch(self, end_of_inputs: Node) -> Node:
        if self._free:
            return self._free.pop()
        after = self._scratch[-1] if self._scratch else end_of_inputs
        with self._graph.inserting_after(after):
            fresh = self._graph.placeholder(f"scratch{len(self._scratch)}")
        self._scratch.append(fresh)
        return fresh


def _function(graph: Graph) -> Program:
    graph.lint()
    return GraphModule(torch.nn.Module(), graph).forward

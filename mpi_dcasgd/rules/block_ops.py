"""The functions that a pass in blocks is written with: torch's, or NumPy's.

NumPy's cost a fraction of torch's a call, which is what counts for a short vector, and run on one
thread. Only operations whose result IEEE 754 prescribes are written with them, so it makes no
difference to a single bit which are taken.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

ONE_THREAD = 1 << 15
"""Elements up to which torch leaves an elementwise operation to one thread."""

_REMEMBERED = 256
"""Vectors whose arrays are kept: enough for one of each worker; 32 MiB at most."""

_aten = torch.ops.aten
_FRESH = (_aten.clone.default, _aten.zeros_like.default, _aten.ones_like.default)
"""Not marked as elementwise by torch, yet safe: what they return shares memory with nothing."""


class Writing(Protocol):
    """Writer of the code for a block, and for operations on blocks or numbers."""

    def block(self, vector: Tensor) -> Any:
        """A view of the vector that the functions take."""
        ...

    def split(self, vector: Tensor, block: int) -> Sequence[Any]:
        """Views of the vector's blocks; the last may be shorter."""
        ...

    @property
    def copy(self) -> Callable[..., object]:
        """``copy(target, source)``."""
        ...

    def number(self, node: Node) -> Callable[..., object]:
        """Return what the node does, between numbers.

        Raises:
            NotImplementedError: There is no such function here.
        """
        ...

    def into(self, node: Node) -> Callable[..., object] | None:
        """Return what the node does, into an ``out``; None where it can only give its own memory.

        Raises:
            NotImplementedError: There is no such function here, the node is not elementwise, or
                its result lives in an argument.
        """
        ...


class TorchWriting:
    """Whatever is elementwise, on any number of threads."""

    copy = staticmethod(torch.Tensor.copy_)

    def block(self, vector: Tensor) -> Tensor:
        return vector

    def split(self, vector: Tensor, block: int) -> tuple[Tensor, ...]:
        return split(vector, block)

    def number(self, node: Node) -> Callable[..., object]:
        return node.target  # type: ignore[return-value]

    def into(self, node: Node) -> Callable[..., object] | None:
        # The public functions take a third of the time of the same call through ``torch.ops``.
        target = _elementwise(node)
        if target is None or not _gives_a_vector(node):
            return None
        if target is _aten.sqrt.default:
            return _square_root
        takes_out = any("out" in overload for overload in target.overloadpacket.overloads())
        return getattr(torch, target.overloadpacket.__name__, None) if takes_out else None


class NumpyWriting:
    """Operations that IEEE 754 rounds correctly, on one thread."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = torch.empty(0, dtype=dtype).numpy().dtype
        self._arrays: dict[int, Any] = {}

    @property
    def copy(self) -> Callable[..., object]:
        return np.copyto

    def block(self, vector: Tensor) -> Any:
        # It takes as long as an operation on a few thousand elements. An array keeps the memory
        # of its vector alive, so the address stays its own.
        address = vector.data_ptr()
        array = self._arrays.get(address)
        if array is None:
            if len(self._arrays) == _REMEMBERED:
                self._arrays.clear()
            array = vector.numpy()
            if len(array) <= ONE_THREAD:
                self._arrays[address] = array
        return array

    def split(self, vector: Tensor, block: int) -> list[Any]:
        array = vector.numpy()
        return [array[start : start + block] for start in range(0, len(array), block)]

    def number(self, node: Node) -> Callable[..., object]:
        if node.target is operator.getitem:
            return operator.getitem
        if node.target is _aten.unbind.int:
            return _unbind
        if node.target is _aten.select.int:
            return _select
        # Two numbers would be computed in Python's precision.
        return _named(_ufunc(node), dtype=self._dtype)

    def into(self, node: Node) -> Callable[..., object] | None:
        _elementwise(node)
        if not _gives_a_vector(node):
            raise NotImplementedError(f"{node.target} gives something else than a vector")
        return _named(_ufunc(node))


def split(vector: Tensor, block: int) -> tuple[Tensor, ...]:
    """The vector's blocks, views of it; the last may be shorter."""
    blocks: tuple[Tensor, ...] = vector.split(block)  # type: ignore[no-untyped-call]
    return blocks


_UFUNCS = {
    _aten.add.Tensor: np.add,
    _aten.sub.Tensor: np.subtract,
    _aten.mul.Tensor: np.multiply,
    _aten.div.Tensor: np.divide,
    _aten.neg.default: np.negative,
    _aten.abs.default: np.absolute,
    _aten.sqrt.default: np.sqrt,
    _aten.maximum.default: np.maximum,
    _aten.minimum.default: np.minimum,
    _aten.clone.default: np.positive,
}


def _ufunc(node: Node) -> np.ufunc:
    # Keywords, such as the factor that torch's addition takes, mean something else to NumPy.
    if node.target not in _UFUNCS or node.kwargs:
        raise NotImplementedError(f"{node.target} {node.kwargs} is not written with NumPy")
    return _UFUNCS[node.target]


def _named(ufunc: np.ufunc, **keywords: object) -> Callable[..., object]:
    """The function with what a graph asks of its functions, which a ufunc has not always had."""
    named = functools.partial(ufunc, **keywords)
    named.__name__ = ufunc.__name__  # type: ignore[attr-defined]
    named.__module__ = np.__name__
    return named


def _unbind(numbers: Any) -> Any:
    return numbers.tolist()  # Python's numbers do not change an array's precision


def _select(numbers: Any, dim: int, index: int) -> Any:
    return numbers.item(index)


def _elementwise(node: Node) -> torch._ops.OpOverload | None:
    """The node's operation; None for one that gives fresh memory and is known to do no harm."""
    target = node.target
    if target is operator.getitem or not isinstance(target, torch._ops.OpOverload):
        raise NotImplementedError(f"{target} in an update")
    if target in _FRESH:
        return None
    if torch.Tag.pointwise not in target.tags or target._schema.is_mutable:
        raise NotImplementedError(f"{target} is not elementwise")
    if any(result.alias_info is not None for result in target._schema.returns):
        raise NotImplementedError(f"{target} gives a view")
    return target


def _gives_a_vector(node: Node) -> bool:
    value, reference = node.meta["val"], next(iter(node.graph.nodes)).meta["val"]
    return bool(value.dtype == reference.dtype and value.shape == reference.shape)


def _square_root(values: Tensor, *, out: Tensor) -> None:
    # torch's own, from MKL, is one unit in the last place off for every seventh value, and the
    # compiled pass is not. NumPy's is what IEEE 754 asks for and takes no longer.
    np.sqrt(values.numpy(), out=out.numpy())

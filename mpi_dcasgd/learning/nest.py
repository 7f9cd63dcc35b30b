"""Nests of tensors: what a batch is made of, and what a data set that lies in memory is.

A nest is a tensor, or a tuple, list, named tuple or dictionary of nests. What is no tensor
(a string, a number, None) is passed on as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def map_tensors(change: Callable[[Tensor], Any], nest: Any) -> Any:
    """Make a nest of the same form with every tensor changed.

    Example:
        >>> map_tensors(lambda tensor: tensor.tolist(), {"x": (torch.tensor([1, 2]), "words")})
        {'x': ([1, 2], 'words')}
    """
    if isinstance(nest, Tensor):
        return change(nest)
    if isinstance(nest, Mapping):
        return _like(nest, {key: map_tensors(change, inner) for key, inner in nest.items()})
    if isinstance(nest, tuple) and hasattr(nest, "_fields"):
        return type(nest)(*(map_tensors(change, inner) for inner in nest))
    if isinstance(nest, (tuple, list)):
        return type(nest)(map_tensors(change, inner) for inner in nest)
    return nest


def tensors_of(nest: Any) -> list[Tensor]:
    """List the tensors of a nest, those of dictionaries in the order of insertion."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(note, nest)
    return found


def to_device(nest: Any, device: torch.device) -> Any:
    """Move every tensor to a device, without waiting for the copies."""
    return map_tensors(lambda tensor: tensor.to(device, non_blocking=True), nest)


def describe(nest: Any) -> str:
    """Describe a nest in words for messages: ``{x: float32 (8, 3), y: int64 (8,)}``."""
    if isinstance(nest, Tensor):
        return f"{str(nest.dtype).removeprefix('torch.')} {tuple(nest.shape)}"
    if isinstance(nest, Mapping):
        return "{" + ", ".join(f"{key}: {describe(inner)}" for key, inner in nest.items()) + "}"
    if isinstance(nest, (tuple, list)):
        return "(" + ", ".join(map(describe, nest)) + ")"
    return type(nest).__name__


def _like(nest: Mapping[Any, Any], changed: dict[Any, Any]) -> Any:
    """The changed entries in a mapping of the same kind where it can be made from a dictionary."""
    if type(nest) is dict:
        return changed
    try:
        return type(nest)(changed)  # type: ignore[call-arg]
    except TypeError:
        return changed

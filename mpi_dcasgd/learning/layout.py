"""Layout of the flat vectors that weights and gradients travel in.

Both vectors, float32::

    [ parameter 0 | pad | parameter 1 | pad | ... ]  [ BatchNorm statistics ]
      `num_params` elements, pads included              `num_stats` elements

Every tensor begins on a 64-byte boundary. Pads are zero in weights and gradients alike and every
rule keeps them zero. Behind the weights travel the running statistics; behind the gradient what
the worker has to say about them (see ``StatisticsPolicy``).

Parameters are in the model's order. If a job has groups, they are in the order of the groups, so
that what is updated alike lies side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning.groups import NO_GROUPS, Grouping
from mpi_dcasgd.learning.matching import Named, assign, decays, named_parameters
from mpi_dcasgd.rules.stretch import Stretch, merged

ALIGN = 16
"""Elements (64 bytes) to which every tensor is aligned: a cache line, and AVX-512's width."""


@dataclass(frozen=True)
class Field:
    """One tensor's place in the vector, offset and size in elements."""

    name: str
    shape: tuple[int, ...]
    offset: int
    size: int


@dataclass(frozen=True)
class FlatLayout:
    """Layout of a flat vector; equal on all ranks of a run.

    Attributes:
        params: The parameters, in the order of the vector.
        stats: The running statistics behind them.
        num_params: Elements up to the statistics, pads included.
        num_stats: Elements of the statistics.
        stretches: Parts of the parameters with factors of their own; none if all are alike.
        frozen: Names of the parameters that a group keeps as they are.
        model_order: Numbers of ``params`` in the model's order; empty if it is the same.
    """

    params: tuple[Field, ...]
    stats: tuple[Field, ...]
    num_params: int
    num_stats: int
    stretches: tuple[Stretch, ...] = ()
    frozen: tuple[str, ...] = ()
    model_order: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Elements in a vector: parameters with pads, then statistics."""
        return self.num_params + self.num_stats

    @property
    def num_trainable(self) -> int:
        """Parameters without the pads: the number that papers quote."""
        return sum(field.size for field in self.params)

    @property
    def in_model_order(self) -> tuple[Field, ...]:
        """The parameters in the model's order, whatever the groups."""
        return tuple(self.params[n] for n in self.model_order) or self.params

    @property
    def rearranged(self) -> tuple[str, ...]:
        """Names in the order of the vector, if groups have made it another; else none."""
        changed = self.model_order or self.frozen
        return tuple(field.name for field in self.params) if changed else ()

    @classmethod
    def of(cls, model: nn.Module, grouping: Grouping = NO_GROUPS) -> FlatLayout:
        """Lay out a model, whose parameters may be on the meta device; it is not changed.

        Raises:
            ConfigError: A parameter cannot be in the vector, or a group does not fit the model.
        """
        tensors = dict(model.named_parameters())
        parameters = named_parameters(model)
        numbers, problems = assign(parameters, grouping)
        places = [
            _Place.of(one, number, grouping)
            for one, number in zip(parameters, numbers, strict=True)
            if one.trained
        ]
        frozen = tuple(place.name for place in places if place.frozen)
        trained = [place for place in places if not place.frozen]
        problems += [line for p in trained for line in _unfit(p.name, tensors[p.name])]
        problems += [line for name, t in statistics_of(model) for line in _unfit(name, t)]
        if frozen and not trained:
            problems.append("groups: every parameter is frozen, so there is nothing to train")
        if not places and not problems:
            found = "none that is trained (requires_grad is False)" if parameters else "none"
            problems.append(f"got {found}; allowed: one or more")
        if problems:
            raise ConfigError("parameters of the model", problems)
        ordered = sorted(trained, key=lambda place: place.key)
        params, end = _fields([(place.name, tensors[place.name]) for place in ordered], 0)
        stats, last = _fields(statistics_of(model), end)
        at = {place.name: number for number, place in enumerate(ordered)}
        return cls(
            params,
            stats,
            end,
            last - end,
            _stretches(ordered, params, end),
            frozen,
            () if ordered == trained else tuple(at[place.name] for place in trained),
        )


@dataclass(frozen=True)
class _Place:
    """Place of a parameter in the vector, and the factors of its updates."""

    name: str
    key: tuple[int, bool]
    lr: float
    weight_decay: float
    frozen: bool

    @classmethod
    def of(cls, parameter: Named, number: int, grouping: Grouping) -> _Place:
        spared = grouping.decay_on != "all" and not decays(parameter)
        group = grouping.groups[number] if number < len(grouping.groups) else None
        return cls(
            parameter.name,
            (number, spared),
            group.lr if group else 1.0,
            0.0 if spared else (group.weight_decay if group else 1.0),
            group is not None and group.frozen,
        )


def statistics_of(model: nn.Module) -> list[tuple[str, Tensor]]:
    """List BatchNorm's running means and variances.

    Its batch counter plays no part in training.
    """
    found = []
    for prefix, module in model.named_modules():
        if keeps_statistics(module):
            for name in ("running_mean", "running_var"):
                found.append((f"{prefix}.{name}" if prefix else name, getattr(module, name)))
    return found


def keeps_statistics(module: nn.Module) -> bool:
    """Return whether a module has running statistics that training changes."""
    return getattr(module, "running_mean", None) is not None and hasattr(module, "momentum")


def _fields(tensors: list[tuple[str, Tensor]], offset: int) -> tuple[tuple[Field, ...], int]:
    fields = []
    for name, tensor in tensors:
        fields.append(Field(name, tuple(tensor.shape), offset, tensor.numel()))
        offset += -(-tensor.numel() // ALIGN) * ALIGN
    return tuple(fields), offset


def _stretches(places: list[_Place], fields: tuple[Field, ...], end: int) -> tuple[Stretch, ...]:
    ends = [*(field.offset for field in fields[1:]), end]
    found = merged(
        [
            Stretch(field.offset, stop, place.lr, place.weight_decay)
            for place, field, stop in zip(places, fields, ends, strict=True)
            if stop > field.offset
        ]
    )
    return () if all((one.lr, one.weight_decay) == (1.0, 1.0) for one in found) else found


def _unfit(name: str, tensor: Tensor) -> list[str]:
    """Say why a tensor cannot be in the vector."""
    if is_lazy(tensor):
        return [f"{name}: has no shape yet; run the model on a batch once before it is returned"]
    if tensor.layout != torch.strided:
        kind = str(tensor.layout).removeprefix("torch.")
        return [f"{name}: is sparse ({kind}); allowed: dense float32, as .to_dense() makes it"]
    if tensor.dtype != torch.float32:
        kind = "complex" if tensor.is_complex() else "of another type"
        dtype = str(tensor.dtype).removeprefix("torch.")
        return [f"{name}: is {kind} ({dtype}); allowed: float32, as model.float() makes it"]
    return []

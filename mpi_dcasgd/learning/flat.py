"""A model whose parameters are views into one flat vector, and its gradients into another.

The layout of both is that of layout.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from mpi_dcasgd.learning.groups import NO_GROUPS, Grouping
from mpi_dcasgd.learning.layout import ALIGN, Field, FlatLayout, keeps_statistics, statistics_of
from mpi_dcasgd.learning.settings import StatisticsPolicy
from mpi_dcasgd.pages import zeros

__all__ = ["ALIGN", "Field", "FlatLayout", "FlatModel"]

_WORTH_BINDING = 1 << 14
"""Elements a tensor, on average, from which a view of it costs little beside its memory."""


class FlatModel:
    """Binds a model to a weight vector and a gradient vector.

    Args:
        model: Its parameters are moved into the vector; initial values are kept.
        device: Where the vectors live, unless they are given.
        policy: What is pushed about BatchNorm's statistics.
        weights, grad: Use these vectors, shape (layout.size,), instead of new ones, so that what
            MPI receives and sends is the model's own memory.
        grouping: Parameter groups; those that are frozen stay outside of the vectors.

    Raises:
        ConfigError: A parameter cannot be in the vectors, or a group does not fit the model.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        policy: StatisticsPolicy = "average",
        weights: Tensor | None = None,
        grad: Tensor | None = None,
        grouping: Grouping = NO_GROUPS,
    ) -> None:
        self.layout = FlatLayout.of(model, grouping)
        self.model = model.to(device)
        self.policy = policy
        for name in self.layout.frozen:
            model.get_parameter(name).requires_grad_(False)
        self.weights = self._new(device) if weights is None else weights
        self.grad = self._new(device) if grad is None else grad
        self.weights.zero_()
        self.grad.zero_()
        modules = [m for m in self.model.modules() if keeps_statistics(m)]
        # How far the server's running statistics move towards what is pushed, per element.
        self.stats_rate = torch.ones(self.layout.num_stats)
        if policy == "average":
            _fill_rates(self.stats_rate, self.layout, self.model)
            for module in modules:
                module.momentum = 1.0  # type: ignore[assignment]  # so "running" is this batch's
        with torch.no_grad():
            self._params, self._grads = self._bind()
        self._views: dict[int, list[Tensor]] = {}
        self._streaming = False

    def _new(self, device: torch.device) -> Tensor:
        return zeros(self.layout.size, device=device)

    def _bind(self) -> tuple[list[nn.Parameter], list[Tensor]]:
        named = dict(self.model.named_parameters())
        params, grads = [], []
        for field in self.layout.params:
            parameter = named[field.name]
            view = _view(self.weights, field)
            view.copy_(parameter)
            parameter.data = view
            parameter.grad = _view(self.grad, field)
            params.append(parameter)
            grads.append(parameter.grad)
        for (_, buffer), field in zip(statistics_of(self.model), self.layout.stats, strict=True):
            view = _view(self.weights, field)
            view.copy_(buffer)
            _set_buffer(self.model, field.name, view)
        return params, grads

    @property
    def params(self) -> Tensor:
        """The parameters' part of the weights, shape (num_params,)."""
        return self.weights[: self.layout.num_params]

    def fixed_sha256(self) -> str:
        """Name the values of all parameters outside of the vectors, with SHA-256."""
        inside = {field.name for field in self.layout.params}
        digest = hashlib.sha256()
        for name, tensor in self.model.named_parameters():
            if name not in inside:
                digest.update(name.encode())
                digest.update(_bytes_of(tensor.detach().cpu()))
        return digest.hexdigest()

    def read(self, vector: Tensor) -> None:
        """Compute with the weights in ``vector`` from now on; they are never written.

        Where that is cheaper than a copy, and always with the same results, the parameters become
        views of ``vector`` until the next ``read``, and what ``weights`` holds does not matter.
        So ``vector`` must not change between a forward pass and the end of its backward pass.
        BatchNorm's statistics, which training writes, are copied in any case.

        Args:
            vector: ``[parameters | statistics]``, shape (layout.size,), on the model's device.
                ``weights`` itself undoes what an earlier call did.
        """
        border, params = self.layout.num_params, self._params
        if vector.device.type != "cpu" or border < _WORTH_BINDING * len(params):
            self.weights.copy_(vector)
            return
        views = self._views.get(vector.data_ptr())
        if views is None:
            # The views keep the vector's memory alive, so its address stays its own.
            views = [_view(vector, field) for field in self.layout.params]
            self._views[vector.data_ptr()] = views
        for parameter, view in zip(params, views, strict=True):
            parameter.data = view
        if self.layout.num_stats:
            self.weights[border:].copy_(vector[border:])

    def take_gradient(self, loss: Tensor, *, more: bool = False) -> None:
        """Put the gradient of ``loss`` with respect to the parameters into ``grad``.

        Autograd writes it into fresh memory, from where it is copied. Adding it to zeros in the
        vector, as ``backward`` does, would read and write the vector once more.

        Args:
            loss: A scalar.
            more: Add to what is there, the gradient of another part of the same minibatch.
        """
        found = torch.autograd.grad(loss, self._params, allow_unused=True)
        if self._streaming:
            return
        if more:
            for view, value in zip(self._grads, found, strict=True):
                if value is not None:
                    view.add_(value)
            return
        if all(value is not None for value in found):
            torch._foreach_copy_(self._grads, found)
            return
        for view, value in zip(self._grads, found, strict=True):
            view.zero_() if value is None else view.copy_(value)

    def stream_gradient(self, take: Callable[[int, Tensor], None]) -> None:
        """From now on hand over each parameter's gradient as soon as the backward pass has it.

        Nothing is put into ``grad`` any more, which is the receiver's business.

        Args:
            take: Called within the backward pass with the number of a field of ``layout.params``
                and its gradient; not for parameters that the loss does not depend on.
        """
        self._streaming = True
        for number, parameter in enumerate(self._params):
            parameter.register_hook(partial(take, number))  # type: ignore[no-untyped-call]

    def note_statistics(self, share: float = 1.0, *, more: bool = False) -> None:
        """Put what this batch did to BatchNorm's statistics behind the gradient.

        Args:
            share: Of the batch, in one of which parts are computed.
            more: Add to what is there, as with ``take_gradient``.
        """
        if not self.layout.num_stats:
            return
        mine, theirs = (vector[self.layout.num_params :] for vector in (self.grad, self.weights))
        if self.policy == "latest" or share == 1.0:
            mine.copy_(theirs)
        elif more:
            mine.add_(theirs, alpha=share)
        else:
            torch.mul(theirs, share, out=mine)

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the parameters that are trained, by name."""
        names = [field.name for field in self.layout.params]
        return dict(zip(names, self._params, strict=True))


def _fill_rates(rates: Tensor, layout: FlatLayout, model: nn.Module) -> None:
    modules = dict(model.named_modules())
    for field in layout.stats:
        momentum = modules[field.name.rpartition(".")[0]].momentum
        start = field.offset - layout.num_params
        # momentum=None asks for a cumulative mean, which has no meaning for an endless stream.
        rates[start : start + field.size] = 0.1 if momentum is None else float(momentum)


def _bytes_of(tensor: Tensor) -> bytes:
    """Return the values of a tensor of any type, sparse ones included."""
    dense = tensor.to_dense().contiguous().flatten()
    return bytes(dense.view(torch.uint8).numpy().tobytes())


def _set_buffer(model: nn.Module, name: str, value: Tensor) -> None:
    prefix, _, attribute = name.rpartition(".")
    model.get_submodule(prefix)._buffers[attribute] = value


def _view(vector: Tensor, field: Field) -> Tensor:
    return vector[field.offset : field.offset + field.size].view(field.shape)

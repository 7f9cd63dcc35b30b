"""What CUDA graphs do, on a CPU: operations recorded once and repeated on the same memory.

As on a GPU, Python does not run again when a graph is repeated: a number that was computed in
Python stays what it was, a tensor that is made anew each time is always the same one, and random
numbers are drawn from the generator's state of then. And as there, work that needs a tensor's value
in Python cannot be recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_WAITS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)


class OpGraphs:
    """Records on the CPU; counts what was recorded and repeated.

    Attributes:
        recorded: Operations of each recording.
        repeated: How often any of them was repeated.
    """

    def __init__(self) -> None:
        self.recorded: list[int] = []
        self.repeated = 0

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        work()
        recorder = _Recorder()
        with recorder:
            work()
        self.recorded.append(len(recorder.calls))

        def repeat() -> None:
            self.repeated += 1
            recorder.repeat()

        return repeat


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _WAITS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        found = func(*args, **(kwargs or {}))
        memory = {t.untyped_storage().data_ptr() for t in _tensors((args, kwargs))}
        made = _tensors(found)
        # Views need not be made again: they are of memory that stays where it is.
        fresh = [t for t in made if t.untyped_storage().data_ptr() not in memory]
        if fresh or func._schema.is_mutable:
            # Operations work on values, so that autograd is not asked a second time.
            self.calls.append((func, args, kwargs or {}, found))
        return found

    @torch.no_grad()
    def repeat(self) -> None:
        for func, args, kwargs, before in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(_tensors(before), _tensors(again), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]

"""Names for the content of a split: equal data have one name, and changed data another."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mpi_dcasgd.learning.data.dataset import ResidentSplit, Split
from mpi_dcasgd.learning.data.part import Part
from mpi_dcasgd.learning.nest import tensors_of


def fingerprint_of(split: Split) -> str:
    """Return a name for the content of a split, as far as it is cheap to look at.

    A split may have a method ``fingerprint()`` that knows it. Of samples that lie in memory every
    byte counts; of others the first and the last sample, if they come out alike twice.

    Returns:
        Hexadecimal digits; empty where nothing can be said.

    Raises:
        DataError: A sample cannot be read.

    Example:
        >>> split = TensorSplit(torch.eye(3), torch.arange(3), torch.device("cpu"))
        >>> fingerprint_of(split) == fingerprint_of(split)
        True
    """
    own = getattr(split, "fingerprint", None)
    if callable(own):
        return str(own())
    if isinstance(split, Part):
        whole = fingerprint_of(split.split)
        indices = np.ascontiguousarray(split.indices)
        return hashlib.sha256(whole.encode() + indices.tobytes()).hexdigest() if whole else ""
    if isinstance(split, ResidentSplit):
        held = {name: value for name, value in sorted(vars(split).items()) if name != "device"}
        return _digest(held)
    ends = (0, len(split) - 1)
    first, second = (_digest([_sample(split, end) for end in ends]) for _ in range(2))
    return first if first == second else ""  # they draw from what nobody seeds


def held_bytes(split: Split) -> int:
    """Return the bytes of the samples that a split holds in memory, all of which have to be read.

    Example:
        >>> held_bytes(TensorSplit(torch.eye(3), torch.arange(3), torch.device("cpu")))
        60
    """
    if isinstance(split, Part):
        return held_bytes(split.split)
    if not isinstance(split, ResidentSplit):
        return 0
    return sum(tensor.nbytes for tensor in tensors_of(vars(split)))


def _sample(split: Split, number: int) -> Any:
    return split.batch(np.array([number], dtype=np.int64), None)


def _digest(nest: Any) -> str:
    digest = hashlib.sha256()
    for tensor in tensors_of(nest):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)} {tensor.layout}\n".encode())
        if tensor.layout == torch.strided:  # others are told apart by their shape alone
            digest.update(_bytes(tensor).data)
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> NDArray[np.uint8]:
    tensor = tensor.detach()
    storage = tensor.untyped_storage()
    if tensor.numel() * tensor.element_size() > storage.nbytes():
        # A view whose rows overlap: its elements would take more memory than there may be.
        tensor = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage)
    flat = tensor.resolve_conj().resolve_neg().contiguous().reshape(-1)
    found: NDArray[np.uint8] = flat.view(torch.uint8).cpu().numpy()
    return found

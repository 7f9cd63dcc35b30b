"""weights.pt and best.pt: an ordinary ``state_dict`` that needs nothing of this package."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.atomic import atomic_file
from mpi_dcasgd.record.hangs import alive
from mpi_dcasgd.record.sealed import DamagedError, load_sealed, save_sealed


def save_weights(path: Path, model: nn.Module, version: int) -> None:
    """Write the weights of a model.

    Args:
        path: The file; replaced once it is whole.
        model: On any device.
        version: Updates that made the weights.

    Raises:
        RunFolderError: It cannot be written; ``path`` is as it was before.
    """
    # Clones, or every tensor would drag the whole flat vector into the file.
    state = {name: value.cpu().clone() for name, value in model.state_dict().items()}
    with atomic_file(path) as file:
        save_sealed({"state_dict": state, "version": version}, file, alive)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the ``state_dict`` that a file has, on the CPU.

    Raises:
        RunFolderError: It is damaged.
    """
    try:
        content = load_sealed(path)
        weights: dict[str, Tensor] = content["state_dict"]
    except Exception as error:  # whatever a torn file makes PyTorch raise
        detail = f": {error}" if isinstance(error, DamagedError) else ""
        raise RunFolderError(f"{path}: cannot be read as weights: it is damaged{detail}") from error
    return weights

"""torchvision, also beside a PyTorch that it was not built for.

torchvision's wheels for Linux are linked against CUDA. Beside a CPU build of PyTorch their
compiled operators do not load, and then ``import torchvision`` fails because it describes one of
them (``nms``) to a PyTorch that has never heard of it. Image classification uses none of them, so
declaring the two operators is all that the import needs.
"""

from __future__ import annotations

import importlib
import logging
import sys
from types import ModuleType

import torch

from mpi_dcasgd.errors import DataError

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept: list[torch.library.Library] = []  # the operators go away with the object that declared them


def torchvision() -> ModuleType:
    """The torchvision module, imported when first asked for.

    Raises:
        DataError: It is not installed, or does not load even so.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise DataError(f"torchvision cannot be imported: {error}. {_REMEDY}") from error
    except ImportError as error:
        raise DataError(f"torchvision cannot be imported: {error}. {_REMEDY}") from error
    _forget()
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    _kept.append(library)
    logging.getLogger("mpi_dcasgd").info(
        "torchvision's compiled operators do not fit this PyTorch; declared nms and qnms so that "
        "it can be imported. Classification does not use them, detection models will not work."
    )
    try:
        return importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        raise DataError(f"torchvision cannot be imported: {error}. {_REMEDY}") from error


_REMEDY = (
    "Install the torchvision that goes with this PyTorch (torch 2.13 with torchvision 0.28, 2.11 "
    "with 0.26); `pip install 'mpi-dcasgd[vision]'` asks for one. Only torchvision's models and "
    "the cifar10 and imagefolder data need it."
)


def _forget() -> None:
    """Take the half-imported package out again, so that the next import begins anew."""
    for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
        del sys.modules[name]

"""torchvision, also beside a PyTorch that it was not built for.

torchvision's wheels for Linux are linked against CUDA. Beside a CPU build of PyTorch, or one of
another release, their compiled operators do not load, and then ``import torchvision`` fails
because it describes two of them (``nms``, ``qnms``) to a PyTorch that has never heard of them.
Image classification uses none of them, so declaring the two is all that the import needs.
"""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from functools import cache
from types import ModuleType

import torch

from mpi_dcasgd.errors import DataError

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept: list[torch.library.Library] = []  # the operators go away with the object that declared them

_REMEDY = (
    "Install the torchvision that goes with this PyTorch (torch 2.13 with torchvision 0.28, 2.11 "
    "with 0.26); `pip install 'mpi-dcasgd[vision]'` asks for one. Only torchvision's models and "
    "the cifar10 and imagefolder data need it."
)


@cache
def torchvision() -> ModuleType:
    """The torchvision module, imported when first asked for.

    Raises:
        DataError: It is not installed, or does not load even so.
    """
    try:
        return _import()
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise _unusable(error) from error
    except ImportError as error:
        raise _unusable(error) from error
    _declare_operators()
    try:
        module = _import()
    except (ImportError, RuntimeError, AttributeError) as error:
        raise _unusable(error) from error
    logging.getLogger("mpi_dcasgd").info(
        "the compiled operators of torchvision %s do not load beside torch %s; declared nms and "
        "qnms so that it can be imported. Classification does not use them, detection models will "
        "not work.",
        module.__version__,
        torch.__version__,
    )
    return module


def _import() -> ModuleType:
    if "torchvision" not in sys.modules:
        # A failed import leaves submodules behind, and torchvision < 0.26 stumbles over them.
        for name in [name for name in sys.modules if name.startswith("torchvision.")]:
            del sys.modules[name]
    with warnings.catch_warnings():
        # Older ones warn that their own image decoders do not load either; Pillow decodes here.
        warnings.filterwarnings("ignore", "Failed to load image Python extension")
        return importlib.import_module("torchvision")


def _declare_operators() -> None:
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    _kept.append(library)


def _unusable(error: Exception) -> DataError:
    return DataError(f"torchvision cannot be imported: {error}. {_REMEDY}")

"""Models by the names that job files use: built in, torchvision's, or the user's own."""

from mpi_dcasgd.learning.models.base import ModelSource
from mpi_dcasgd.learning.models.factory import MODELS, build_model, find_model

__all__ = ["MODELS", "ModelSource", "build_model", "find_model"]

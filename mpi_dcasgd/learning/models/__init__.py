"""Models by the names that job files use: built in, or torchvision's for classification."""

from mpi_dcasgd.learning.models.factory import build_model, check_model, model_names

__all__ = ["build_model", "check_model", "model_names"]

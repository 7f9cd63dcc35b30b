"""Tasks by the names that job files use: built in, or the user's own."""

from mpi_dcasgd.learning.tasks.source import TaskSource
from mpi_dcasgd.learning.tasks.table import TASKS, find_task

__all__ = ["TASKS", "TaskSource", "find_task"]

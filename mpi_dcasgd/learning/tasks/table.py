"""The table of tasks."""

from __future__ import annotations

from collections.abc import Iterable

from mpi_dcasgd.extension import Table
from mpi_dcasgd.learning.signature import settings_of_call
from mpi_dcasgd.learning.task import Task
from mpi_dcasgd.learning.tasks.source import TaskSource

_PLACES = {
    "classification": "mpi_dcasgd.learning.tasks.classification:Classification",
    "regression": "mpi_dcasgd.learning.tasks.regression:Regression",
    "language-model": "mpi_dcasgd.learning.tasks.language_model:LanguageModel",
    "least-squares": "mpi_dcasgd.learning.tasks.least_squares:LeastSquares",
    "quadratic": "mpi_dcasgd.learning.tasks.quadratic:Quadratic",
    "logistic": "mpi_dcasgd.learning.tasks.logistic:Logistic",
}

TASKS: Table[Task] = Table(Task, _PLACES)
"""Name in job files to the class."""

DEFAULT = "classification"


def find_task(name: object, given: Iterable[str] = ()) -> type[TaskSource]:
    """Look up the settings of a task: built in, or the user's own.

    Args:
        name: A key of ``TASKS``, or ``package.module:Name`` of a subclass of ``Task``.
        given: Keys that a job gives, for a constructor that takes any.

    Raises:
        UserError: There is no such task, or its constructor cannot be called by keywords.
    """
    TASKS.find(name)
    return settings_of_call(_PLACES.get(str(name), str(name)), TaskSource, given)


def default_task() -> TaskSource:
    """Make the settings of the task that a job has unless it names one."""
    return find_task(DEFAULT)(name=DEFAULT)

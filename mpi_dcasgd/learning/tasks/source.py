"""Settings of a task: the arguments of its constructor."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT, ConfigError, UserError
from mpi_dcasgd.extension import import_class, import_object
from mpi_dcasgd.learning.guard import failed
from mpi_dcasgd.learning.signature import CallSettings, parameters_of
from mpi_dcasgd.learning.task import Task

if TYPE_CHECKING:
    from mpi_dcasgd.learning.data import DataSource
    from mpi_dcasgd.learning.models import ModelSource


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TaskSource(CallSettings):
    """Settings of a task; a subclass has its constructor's parameters as fields."""

    call_filled: ClassVar[tuple[str, ...]] = ("model", "data")

    @classmethod
    def takes(cls, section: str) -> bool:
        """Return whether the task is made with the job's section ``model`` or ``data``."""
        return section in parameters_of(import_object(cls.call_target))

    def make(self, model: ModelSource, data: DataSource) -> Task:
        """Make the task.

        Args:
            model: The job's section, for a task that takes it.
            data: The job's section, for a task that takes it.

        Raises:
            ConfigError: The constructor fails.
        """
        kind = import_class(self.call_target, Task)
        try:
            return kind(**self.arguments(), **self.wanted({"model": model, "data": data}))
        except UserError:
            raise
        except Exception as error:
            raise ConfigError("task", failed(self.name, error).problems) from error

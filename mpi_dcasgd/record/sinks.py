"""Metric sinks: wherever the events of metrics.jsonl go besides, such as a tracker of your own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mpi_dcasgd.errors import UserError
from mpi_dcasgd.extension import Table
from mpi_dcasgd.record.hangs import working_on

if TYPE_CHECKING:
    from mpi_dcasgd.record.run_folder import RunFolder


class MetricSink:
    """Receiver of a run's events: those that are written to metrics.jsonl, as they happen.

    docs/run-folder.md lists the events and their values; the first is ``start``, or ``resume``,
    with the description of the run. One sink is made in each process that records, which is rank
    0 of a real run.

    Args:
        folder: The run's; ``folder.path`` is a ``Path``.
        offset: What the ``offset`` of a checkpoint was, if the run is resumed from there: what was
            written after it will be written again. None for a new run.

    Example:
        A tracker in ``my_sinks.py``, for a job with ``record: {sinks: ["my_sinks:Tracker"]}``::

            class Tracker(MetricSink):
                def __init__(self, folder, offset=None):
                    self._run = tracker.start(folder.path.name)

                def write(self, event, time_s, values):
                    self._run.log({f"{event}/{key}": value for key, value in values.items()})

                def close(self):
                    self._run.finish()
    """

    def __init__(self, folder: RunFolder, offset: Any = None) -> None:
        pass

    def write(self, event: str, time_s: float, values: Mapping[str, Any]) -> None:
        """Take one event; an exception ends the run.

        Args:
            event: Its kind, such as ``progress`` or ``evaluation``.
            time_s: Seconds since training began, virtual ones in a simulation.
            values: Plain values by name; a float may be NaN or infinite.
        """
        raise NotImplementedError(f"{type(self).__name__} must override write")

    @property
    def offset(self) -> Any:
        """Plain value that says in a checkpoint where the sink is; None if it need not know."""
        return None

    def close(self) -> None:
        """Finish; called once, also when a run fails."""


JSONL = "jsonl"
"""The sink that every run has, since reports and resumes read it."""

SINKS: Table[MetricSink] = Table(
    MetricSink,
    {
        JSONL: "mpi_dcasgd.record.metrics:JsonLines",
        "csv": "mpi_dcasgd.record.metrics_csv:CsvLines",
        "tensorboard": "mpi_dcasgd.record.tensorboard:TensorBoard",
    },
)
"""Name in job files to the class."""


def check_sinks(names: Sequence[str]) -> list[str]:
    """Find out whether all sinks that a job names exist, one line a problem."""
    problems = []
    for place, name in enumerate(names):
        if name == JSONL:
            problems.append(f"{JSONL} is always written; omit it")
        elif name in names[:place]:
            problems.append(f"{name} stands here twice; omit one")
        else:
            try:
                SINKS.find(name)
            except UserError as error:
                problems.append(str(error))
    return problems


class Sinks:
    """The sinks of a run as one.

    Args:
        folder: The run's.
        names: Of the sinks beside metrics.jsonl.
        offsets: What ``offsets`` was, where the run resumes from a checkpoint.

    Raises:
        RunFolderError: A file cannot be written, or is not the one that an offset belongs to.
    """

    def __init__(
        self, folder: RunFolder, names: Sequence[str], offsets: Mapping[str, Any] | None = None
    ) -> None:
        offsets = offsets or {}
        self._sinks: dict[str, MetricSink] = {}
        try:
            for name in (JSONL, *names):
                self._sinks[name] = SINKS.find(name)(folder, offsets.get(name))
        except BaseException:
            self.close()
            raise

    def write(self, event: str, time_s: float, **values: Any) -> None:
        """Hand one event to all of them, metrics.jsonl first."""
        for name, sink in self._sinks.items():
            with working_on(f"metric sink {name}"):
                sink.write(event, time_s, values)

    def offsets(self) -> dict[str, Any]:
        """Tell where each of them is, for a checkpoint."""
        return {name: sink.offset for name, sink in self._sinks.items()}

    def close(self) -> None:
        """Close all of them."""
        for name, sink in self._sinks.items():
            with working_on(f"metric sink {name}"):
                sink.close()

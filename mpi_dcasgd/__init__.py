"""Asynchronous and synchronous SGD on a cluster: a parameter server over MPI beside Horovod.

The names below are the Python API (docs/python.md). They are loaded when they are first used, so
that ``import mpi_dcasgd`` takes no time: neither PyTorch nor MPI is imported by it.

Example:
    >>> import mpi_dcasgd
    >>> mpi_dcasgd.load_job("jobs/digits.yaml", lr=0.05).lr
    0.05
"""

import time

STARTED = time.monotonic()
"""When this process began to import the package; the imports that follow make up most of start-up.

In ``time.monotonic``'s seconds.
"""

from typing import TYPE_CHECKING  # noqa: E402

__version__ = "0.2.0.dev0"
"""PEP 440: a release, or ``.dev0`` of the one that comes next."""

if TYPE_CHECKING:
    from mpi_dcasgd.config.schema import Job
    from mpi_dcasgd.drivers.signals import StopFlag
    from mpi_dcasgd.drivers.simulation.timing import Timing
    from mpi_dcasgd.errors import (
        ConfigError,
        DataError,
        DcasgdError,
        LaunchError,
        NonFiniteError,
        ProtocolError,
        RunFolderError,
        UserError,
        WorkersLostError,
    )
    from mpi_dcasgd.learning.task import Task
    from mpi_dcasgd.reporting.write import Report, ReportWithoutPlotsError
    from mpi_dcasgd.rules.part import Part
    from mpi_dcasgd.runs.advise import Advice, advise
    from mpi_dcasgd.runs.calibrate import Calibration, calibrate
    from mpi_dcasgd.runs.compare import compare
    from mpi_dcasgd.runs.doctor import doctor
    from mpi_dcasgd.runs.jobs import load_job
    from mpi_dcasgd.runs.replay import replay
    from mpi_dcasgd.runs.replay_verdict import Replay
    from mpi_dcasgd.runs.report import report
    from mpi_dcasgd.runs.result import Run
    from mpi_dcasgd.runs.sharpness import Sharpness, sharpness
    from mpi_dcasgd.runs.simulate import simulate, simulate_timing
    from mpi_dcasgd.runs.timeline import WrittenTimeline, timeline
    from mpi_dcasgd.runs.train import train
    from mpi_dcasgd.runs.watch import Watched, watch
    from mpi_dcasgd.tools.doctor.finding import Finding

__all__ = [
    "load_job",
    "train",
    "simulate",
    "simulate_timing",
    "calibrate",
    "replay",
    "compare",
    "report",
    "advise",
    "sharpness",
    "timeline",
    "watch",
    "doctor",
    "Job",
    "Run",
    "Replay",
    "Timing",
    "Calibration",
    "Report",
    "Advice",
    "Sharpness",
    "WrittenTimeline",
    "Watched",
    "Finding",
    "StopFlag",
    "Task",
    "Part",
    "DcasgdError",
    "UserError",
    "ConfigError",
    "DataError",
    "LaunchError",
    "RunFolderError",
    "ProtocolError",
    "NonFiniteError",
    "WorkersLostError",
    "ReportWithoutPlotsError",
    "STARTED",
    "__version__",
]

if not TYPE_CHECKING:  # or a type checker would believe in any attribute
    _PLACES = {
        "load_job": "runs.jobs",
        "train": "runs.train",
        "simulate": "runs.simulate",
        "simulate_timing": "runs.simulate",
        "calibrate": "runs.calibrate",
        "replay": "runs.replay",
        "compare": "runs.compare",
        "report": "runs.report",
        "advise": "runs.advise",
        "sharpness": "runs.sharpness",
        "timeline": "runs.timeline",
        "watch": "runs.watch",
        "doctor": "runs.doctor",
        "Job": "config.schema",
        "Run": "runs.result",
        "Replay": "runs.replay_verdict",
        "Timing": "drivers.simulation.timing",
        "Calibration": "runs.calibrate",
        "Advice": "runs.advise",
        "Sharpness": "runs.sharpness",
        "WrittenTimeline": "runs.timeline",
        "Watched": "runs.watch",
        "Finding": "tools.doctor.finding",
        "StopFlag": "drivers.signals",
        "Task": "learning.task",
        "Part": "rules.part",
        "Report": "reporting.write",
        **{name: "errors" for name in __all__ if name.endswith("Error")},
        "ReportWithoutPlotsError": "reporting.write",
    }

    def __getattr__(name):
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)

    def __dir__():
        return sorted({*globals(), *__all__})

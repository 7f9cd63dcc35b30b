"""Simulated runs that look like real ones: replay takes no others, and they need no MPI."""

from __future__ import annotations

from pathlib import Path

import mpi_dcasgd


def disguise(folder: Path) -> None:
    """Let a simulated run's trace say that it is of a real one."""
    from mpi_dcasgd.record.trace_writer import TraceWriter

    trace = mpi_dcasgd.Run(folder).trace()
    writer = TraceWriter(folder / "trace.bin", {**trace.meta, "driver": "mpi"})
    for r in trace.records():
        writer.add(r.worker, r.ticket, r.staleness, r.action, r.time_s, r.mark)
    writer.end("completed")

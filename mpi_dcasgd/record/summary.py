"""Summary of a run: what its pushes and its evaluations come to."""

from __future__ import annotations

from typing import Any

from mpi_dcasgd.record.results import Results
from mpi_dcasgd.record.tally import Tally
from mpi_dcasgd.server.records import Action


def summary_of(tally: Tally, results: Results, startup_s: float, time_s: float) -> dict[str, Any]:
    """Return the numbers of summary.json that come of training.

    Args:
        tally: Sums over the pushes.
        results: The evaluations.
        startup_s: Seconds of all starts.
        time_s: Seconds of training.
    """
    return {
        "updates": tally.updates,
        "samples": tally.samples,
        "dropped": tally.refused[Action.DROPPED],
        "nonfinite": tally.refused[Action.NONFINITE],
        **results.summary(),
        "not_numbers": results.not_numbers(),
        "startup_s": startup_s,
        # As in metrics.jsonl: an evaluation at the very end must not lie after the end.
        "wall_s": round(time_s, 6),
        "samples_per_s": tally.samples / time_s if time_s > 0 else None,
        **tally.staleness_summary(),
    }

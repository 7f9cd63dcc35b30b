"""Predictions of simulated runs beside the measurements of their real twins."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mpi_dcasgd.record.run_files import CLUSTER_YAML
from mpi_dcasgd.reporting.document import Table
from mpi_dcasgd.reporting.groups import Group, twins
from mpi_dcasgd.reporting.table import NONE, digits, name_of, show, show_metric, staleness_of

NOTE = (
    f"Predicted is what the simulated twin of a row gave, on the cluster in its {CLUSTER_YAML};"
    " the percentages say by how much it is above (+) or below (-) what was measured."
)


def prediction_table(groups: Sequence[Group]) -> Table | None:
    """One row for each group that is there real and simulated; None if there is no such group."""
    pairs = twins(groups)
    if not pairs:
        return None
    header = ["algorithm", "workers"]
    rows = [[name_of(real), str(real.num_workers)] for real, _ in pairs]

    def add(title: str, cell: Callable[[Group], str]) -> None:
        header.extend((title, "predicted"))
        for row, (real, simulated) in zip(rows, pairs, strict=True):
            row.extend((cell(real), cell(simulated)))

    both = [group for pair in pairs for group in pair]
    places = digits(both, "samples_per_s")
    add("samples/s measured", lambda g: show(g.stat("samples_per_s"), places))
    header.append("%")
    for row, (real, simulated) in zip(rows, pairs, strict=True):
        row.append(_apart(real, simulated))
    if any(max(group.histogram, default=0) for group in both):
        add("staleness measured", staleness_of)
        add("max measured", lambda g: str(max(g.histogram, default=NONE)))
    measures = pairs[0][0].measures
    primary = measures.primary
    add(
        f"test {measures.title(primary)} measured",
        lambda g: show_metric(g.metric(f"test_{primary}"), measures, primary),
    )
    return Table(tuple(header), tuple(tuple(row) for row in rows))


def _apart(real: Group, simulated: Group) -> str:
    measured, predicted = real.stat("samples_per_s"), simulated.stat("samples_per_s")
    if measured is None or predicted is None or measured.mean <= 0:
        return NONE
    return f"{100 * (predicted.mean / measured.mean - 1):+.1f}"

"""``mpi-dcasgd closeup``: gaps, compensations and steps of a run, from its trace."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mpi_dcasgd.cli.arguments import count
from mpi_dcasgd.quick import importing_torch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mpi_dcasgd.record.closeup import Closeup

HELP = "gaps, compensations and steps of an asynchronous run"

_HEAD = (
    "  worker  looked at  staleness         gap  gradient norm  effective lr  compensation/gradient"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder, finished or not")
    parser.add_argument(
        "--every",
        type=count,
        metavar="N",
        help="look at every Nth push (default: at about 500 in all)",
    )
    parser.add_argument(
        "--code",
        metavar="DIR",
        help="folder in which modules of one's own are looked for first; `recorded` for the copies "
        "in the run folder (default: where the run had them from)",
    )


def run(args: argparse.Namespace) -> int:
    """Compute the run again, and print a line for each worker."""
    with importing_torch():
        from mpi_dcasgd.runs.closeup import closeup

    written = closeup(args.run, every=args.every, code=args.code, show=sys.stdout)
    print(_table(written.closeup))
    found = "bit for bit" if written.closeup.meta["identical"] else "not bit for bit"
    print(f"computed again {found} in {written.seconds:.1f} s")
    for note in written.notes:
        print(note)
    print(f"closeup: {written.path} (`mpi-dcasgd report` draws it)")
    return 0


def _table(seen: Closeup) -> str:
    import numpy as np

    rows = [(str(n), seen.worker == n) for n in range(int(seen.worker.max()) + 1)]
    rows = [(name, of) for name, of in rows if of.any()]
    lines = [_HEAD]
    for name, of in [*rows, ("all", np.ones(len(seen), bool))]:
        share = _median(seen.compensation_share[of])
        compensated = "-" if math.isnan(share) else f"{100 * share:.3g} %"
        lines.append(
            f"  {name:>6}  {of.sum():>9,}  {np.median(seen.staleness[of]):>9g}  "
            f"{_shown(seen.gap[of]):>10}  {_shown(seen.grad_norm[of]):>13}  "
            f"{_shown(seen.effective_lr[of]):>12}  {compensated:>21}"
        )
    return "\n".join(
        [*lines, "medians over pushes; effective lr is step over gradient, both norms"]
    )


def _median(values: NDArray[np.float64]) -> float:
    import numpy as np

    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else math.nan


def _shown(values: NDArray[np.float64]) -> str:
    median = _median(values)
    return "-" if math.isnan(median) else f"{median:.4g}"

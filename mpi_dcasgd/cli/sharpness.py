"""``mpi-dcasgd sharpness``: the largest curvature at a run's weights, and what rate it allows."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from mpi_dcasgd.cli.arguments import add_overrides, count, fraction
from mpi_dcasgd.quick import importing_torch
from mpi_dcasgd.wording import counted

if TYPE_CHECKING:
    from mpi_dcasgd.runs.sharpness import Allowed, Sharpness

HELP = "largest curvature of the loss, and the learning rate that it allows"

_HEAD = "  delay                      staleness   largest stable lr     lr used   used/stable"
_FOOT = """\
Near a minimum, for delays that are constant, without weight decay. Above 1, steps along the
sharpest direction grow; training may then still go on, where the loss is flatter."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "source",
        type=Path,
        metavar="RUN|JOB",
        help="run folder, for its final weights; or job file, for its initial weights",
    )
    add_overrides(parser)
    parser.add_argument(
        "--workers",
        type=count,
        nargs="+",
        metavar="N",
        help="delays of so many equal workers, a line each (default: those of the run; of a job 1 "
        "2 4 8 16 32)",
    )
    parser.add_argument(
        "--samples",
        type=count,
        default=1024,
        metavar="N",
        help="training samples whose mean loss is taken (default: 1024)",
    )
    parser.add_argument(
        "--tolerance",
        type=fraction,
        default=1e-3,
        metavar="SHARE",
        help="relative error wanted (default: 0.001)",
    )
    parser.add_argument("--best", action="store_true", help="weights of the best evaluation")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the curvature, and a line for each delay."""
    with importing_torch():
        from mpi_dcasgd.runs.sharpness import sharpness

    found = sharpness(
        args.source,
        workers=args.workers,
        samples=args.samples,
        tolerance=args.tolerance,
        best=args.best,
        words=args.overrides,
    )
    print(json.dumps(found.plain(), indent=2) if args.json else _as_text(found))
    return 0


def _as_text(found: Sharpness) -> str:
    job, top = found.job, found.found
    lines = [
        f"{job.name}: {job.algorithm}, {found.weights}",
        f"largest curvature {top.value:.5g} ± {top.error:.2g} (largest eigenvalue of the training "
        "loss's Hessian)",
        f"over {found.samples} of {counted(found.of, 'training sample')}, "
        f"{counted(top.products, 'Hessian-vector product')}",
    ]
    if top.value <= 0:
        lines.append("the loss is nowhere convex here: curvature sets no limit to the rate")
    if found.last_lr is not None and found.last_lr < max(row.used_lr for row in found.allowed):
        lines.append(f"lr used is before the schedule; at the run's end it was {found.last_lr:.4g}")
    lines += [_HEAD, *map(_row, found.allowed)]
    if not all(row.exact for row in found.allowed):
        lines.append("~ continued from a smaller delay as 1/(2 staleness + 1)")
    return "\n".join([*lines, *found.notes, _FOOT])


def _row(row: Allowed) -> str:
    mark = " " if row.exact else "~"
    return (
        f"  {row.what:<26}{row.staleness:10d}{mark + f'{row.stable_lr:.4g}':>20}"
        f"{row.used_lr:12.4g}{row.share:14.3g}"
    )

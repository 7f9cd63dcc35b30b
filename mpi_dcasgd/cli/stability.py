"""``mpi-dcasgd stability``: what delay does to the largest stable learning rate of a job's rule."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mpi_dcasgd.cli.arguments import (
    add_overrides,
    count,
)
from mpi_dcasgd.quick import importing_torch

if TYPE_CHECKING:
    from mpi_dcasgd.config.schema import Job

HELP = "largest stable learning rate by number of workers"

_HEAD = """\
  workers  staleness   largest stable    lr with the margin
                       lr x curvature    of one worker"""
_FOOT = """\
For equal workers that push in turn, near a minimum, without weight decay. The margin is how
far lr is from where training grows without bound. To see how unequal workers behave and what
they learn, use `mpi-dcasgd simulate`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("job", type=Path, metavar="JOB", help="job file")
    add_overrides(parser)
    parser.add_argument(
        "--workers",
        type=count,
        nargs="+",
        default=[1, 2, 4, 8, 16, 32],
        metavar="N",
        help="a line each (default: 1 2 4 8 16 32)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print a line for each number of workers."""
    with importing_torch():
        from mpi_dcasgd.runs.stability import stability

    found = stability(args.job, args.workers, words=args.overrides)
    job = found.job
    if args.json:
        rows = [{**asdict(one), "lr": found.lr(one)} for one in found.rates]
        print(json.dumps({"algorithm": job.algorithm, "lr": job.lr, "workers": rows}, indent=2))
        return 0
    print(f"{job.name}: {job.algorithm}{_momentum(job)}, lr {job.lr:g}")
    print(_HEAD)
    for one in found.rates:
        print(
            f"{one.workers:9d}{one.workers - 1:11d}{one.rate:17.4f}"
            f"{found.lr(one):15.4g}  (x {one.factor:.4f})"
        )
    print(_FOOT)
    return 0


def _momentum(job: Job) -> str:
    momentum = job.rule.momentum
    value = getattr(momentum, "momentum", None)
    return "" if value is None else f", momentum {value:g}"

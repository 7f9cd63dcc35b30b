"""``mpi-dcasgd stability``: what delay does to the largest stable learning rate of a job's rule."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from mpi_dcasgd.config.load import load_job
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.tools.stability import Stable, stable_rates

_HEAD = """\
  workers  staleness   largest stable    lr with the margin
                       lr x curvature    of one worker"""
_FOOT = """\
For equal workers that push in turn, near a minimum, without weight decay. The margin is how
far lr is from where training grows without bound. What unequal workers come to, and what is
learnt until then, tells `mpi-dcasgd simulate`."""


def stability(args: argparse.Namespace) -> int:
    """The command: print a line for each number of workers."""
    job = load_job(args.job, args.overrides)
    if job.mode != "asynchronous":
        raise ConfigError(
            f"{args.job}",
            [f"algorithm: no gradient of {job.algorithm} is stale; say, for one, algorithm=asgd"],
        )
    found = stable_rates(job.rule, args.workers, job.algorithm)
    if args.json:
        rows = [{**asdict(one), "lr": one.factor * job.lr} for one in found]
        print(json.dumps({"algorithm": job.algorithm, "lr": job.lr, "workers": rows}, indent=2))
        return 0
    print(f"{job.name}: {job.algorithm}{_momentum(job)}, lr {job.lr:g}")
    print(_HEAD)
    for one in found:
        print(_row(one, job.lr))
    print(_FOOT)
    return 0


def _row(one: Stable, lr: float) -> str:
    return (
        f"{one.workers:9d}{one.workers - 1:11d}{one.rate:17.4f}"
        f"{one.factor * lr:15.4g}  (x {one.factor:.4f})"
    )


def _momentum(job: Job) -> str:
    momentum = job.rule.momentum
    value = getattr(momentum, "momentum", None)
    return "" if value is None else f", momentum {value:g}"

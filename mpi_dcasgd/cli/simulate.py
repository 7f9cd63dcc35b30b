"""``mpi-dcasgd simulate``: a run on a cluster that is only described, in virtual time."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mpi_dcasgd import STARTED
from mpi_dcasgd.cli.arguments import (
    add_overrides,
    add_resume,
    add_run_dir,
    count,
)
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.quick import importing_torch
from mpi_dcasgd.wording import counted

if TYPE_CHECKING:
    from mpi_dcasgd.config.schema import Job
    from mpi_dcasgd.drivers.simulation.timing import Timing

HELP = "simulate a job on a described cluster"

_SETTLED = 10
"""Updates a worker before throughput and staleness are near their steady state."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("job", type=Path, metavar="JOB", help="job file")
    add_overrides(parser)
    add_run_dir(parser)
    parser.add_argument(
        "--checkpoint-every",
        type=count,
        metavar="EPOCHS",
        help="save a checkpoint every so many epochs: checkpoint.every of the job",
    )
    add_resume(parser)
    parser.add_argument(
        "--timing-only",
        action="store_true",
        help="only throughput, staleness and utilisation; compute no gradient",
    )
    parser.add_argument(
        "--updates",
        type=count,
        metavar="N",
        help="with --timing-only: updates to make (default: those of the job)",
    )
    parser.add_argument("--json", action="store_true", help="with --timing-only: print JSON")


def run(args: argparse.Namespace) -> int:
    """Simulate with gradients, into a run folder, or only the timing, onto the terminal."""
    with importing_torch():
        from mpi_dcasgd.drivers.signals import StopFlag
        from mpi_dcasgd.runs.hung_files import own_process
        from mpi_dcasgd.runs.simulate import simulate

    if args.timing_only:
        return _show_timing(args)
    if args.updates is not None:
        raise ConfigError(
            "command line", ["--updates: only with --timing-only; epochs=N is for the job"]
        )
    if args.resume == "auto" and args.run_dir is None:
        raise ConfigError("command line", ["--resume: name the run to resume with --run-dir"])
    stop = StopFlag()
    with own_process(), stop.listening():
        made = simulate(
            args.job,
            run_dir=args.run_dir,
            resume=args.resume or "auto",
            overwrite=args.overwrite,
            checkpoint_every=args.checkpoint_every,
            show=sys.stdout,
            words=args.overrides,
            argv=args.argv,
            started=STARTED,
            stop=stop,
        )
    return 128 + made.stopped_by if made.stopped_by else 0


def _show_timing(args: argparse.Namespace) -> int:
    from mpi_dcasgd.runs.jobs import load_job
    from mpi_dcasgd.runs.simulate import simulate_timing
    from mpi_dcasgd.runs.simulation import split_overrides

    timing = simulate_timing(args.job, updates=args.updates, words=args.overrides)
    if args.json:
        print(_as_json(timing))
    else:
        print(_as_text(load_job(args.job, words=split_overrides(args.overrides)[1]), timing))
    return 0


def _as_json(timing: Timing) -> str:
    values = asdict(timing) | {
        "updates_per_s": timing.updates_per_s,
        "staleness_mean": timing.staleness_mean,
        "workers_busy": sum(timing.workers_busy) / len(timing.workers_busy),
    }
    return json.dumps(values)


def _as_text(job: Job, timing: Timing) -> str:
    busy = timing.workers_busy
    rows: Sequence[tuple[str, str]] = (
        ("updates", f"{timing.updates} in {timing.time_s:.6g} s"),
        ("throughput", f"{timing.updates_per_s:.6g} updates/s"),
        (
            "staleness",
            f"mean {timing.staleness_mean:.2f}, median {timing.staleness_quantile(0.5)}, "
            f"99 % {timing.staleness_quantile(0.99)}, max {max(timing.staleness, default=0)}",
        ),
        ("server busy", f"{100 * timing.server_busy:.1f} %"),
        *([("link busy", f"{100 * timing.link_busy:.1f} %")] if timing.link_busy else []),
        (
            "workers busy",
            f"mean {100 * sum(busy) / len(busy):.1f} %, least {100 * min(busy):.1f} %",
        ),
        ("dropped", str(timing.dropped)),
        ("crashes", str(timing.crashes)),
    )
    simulated = counted(timing.num_workers, "simulated worker")
    head = f"{job.name}: {job.algorithm}, {simulated}, timing only"
    lines = [head, *(f"  {name:<13} {value}" for name, value in rows)]
    if job.mode == "synchronous":
        return "\n".join(lines)
    if timing.updates < _SETTLED * timing.num_workers:
        enough = 10 * _SETTLED * timing.num_workers
        lines.append(
            f"  Start-up figures ({counted(timing.updates, 'update')}, "
            f"{counted(timing.num_workers, 'worker')}). "
            f"For steady state, rerun with --updates {enough}"
        )
    return "\n".join(lines)

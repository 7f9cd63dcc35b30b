"""``mpi-dcasgd submit``: check a job or a study, write its batch script, hand it to SLURM."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mpi_dcasgd.cli.arguments import (
    add_dry_run,
    add_overrides,
    count,
)
from mpi_dcasgd.wording import counted

if TYPE_CHECKING:
    from mpi_dcasgd.runs.submission import Submitted

HELP = "submit a job or a study to SLURM"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("file", type=Path, metavar="JOB|STUDY", help="job file, or study file")
    add_overrides(parser)
    parser.add_argument(
        "-o",
        "--out",
        "--run-dir",
        dest="run_dir",
        type=Path,
        metavar="DIR",
        help="run folder (default: runs/<job>-<algorithm>-<time>), or folder of a study's runs "
        "(default: runs/<study>); existing runs are resumed",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help="only these runs of a study; * and ? are wildcards",
    )
    _add_size(parser)
    _add_site(parser)
    add_dry_run(parser, "print the script; write and submit nothing")


def _add_size(parser: argparse.ArgumentParser) -> None:
    size = parser.add_argument_group("size of the allocation (of each run of a study)")
    numbers = (
        ("nodes", "nodes (default: left to SLURM)"),
        ("tasks-per-node", "ranks on each node, the server included"),
        ("cpus-per-task", "cores of each rank, and its PyTorch threads (default: 1)"),
        ("gpus-per-node", "GPUs of each node (default: none are asked for)"),
    )
    size.add_argument(
        "-n",
        "--ranks",
        type=count,
        metavar="N",
        help="ranks in all (a study's default: those of its largest run)",
    )
    for name, text in numbers:
        size.add_argument(f"--{name}", type=count, metavar="N", help=text)
    size.add_argument("--time", metavar="T", help="time limit as sbatch has it (default: 01:00:00)")


def _add_site(parser: argparse.ArgumentParser) -> None:
    site = parser.add_argument_group("site")
    for name in ("partition", "account", "qos"):
        site.add_argument(f"--{name}", metavar="NAME", help=f"sbatch's --{name}")
    site.add_argument(
        "--sbatch",
        action="append",
        default=[],
        metavar="OPTION",
        help="another option for sbatch, as one word: --sbatch=--constraint=gpu; may be repeated",
    )
    site.add_argument(
        "--site-env",
        metavar="NAME|FILE",
        help="what the script sources first: a file, or the name of one in ./slurm/env or in the "
        "package (default: the variable SITE, or slurm/env/generic.sh if there is one)",
    )
    site.add_argument(
        "--launcher",
        choices=("auto", "mpirun", "srun"),
        help="who starts the ranks (default: the site file says, or auto)",
    )
    site.add_argument(
        "--array-limit", type=count, metavar="N", help="runs of a study at a time (default: all)"
    )
    site.add_argument(
        "--signal-lead",
        type=count,
        metavar="SECONDS",
        help="seconds before the time limit at which a run saves and stops (default: 120)",
    )
    site.add_argument(
        "--max-requeues",
        type=count,
        metavar="N",
        help="how often a job may be requeued (default: 10)",
    )


def run(args: argparse.Namespace) -> int:
    """Submit a job or a study, or print its script."""
    from mpi_dcasgd.runs.slurm_request import SlurmRequest
    from mpi_dcasgd.runs.submit import submit

    request = SlurmRequest(
        ranks=args.ranks,
        nodes=args.nodes,
        tasks_per_node=args.tasks_per_node,
        cpus_per_task=args.cpus_per_task,
        gpus_per_node=args.gpus_per_node,
        time=args.time,
        partition=args.partition,
        account=args.account,
        qos=args.qos,
        sbatch=tuple(args.sbatch),
        site_env=args.site_env,
        launcher=args.launcher,
        array_limit=args.array_limit,
        signal_lead_s=args.signal_lead,
        max_requeues=args.max_requeues,
    )
    found = submit(
        args.file,
        args.overrides,
        request=request,
        out=args.run_dir,
        only=args.only,
        dry_run=args.dry_run,
    )
    if found.waiting:
        print(f"in the queue already: {', '.join(found.waiting)}", file=sys.stderr)
    if not found.script:
        print(f"{found.name}: no run is left to submit; mpi-dcasgd status {_short(found.folder)}")
    elif found.job_id is None:
        print(found.script, end="")
    else:
        _tell(found)
    return 0


def _tell(found: Submitted) -> None:
    what = f"job {found.job_id}"
    if found.report_id is not None:
        count = sum(map(len, found.parts))
        limit = f", {found.array_limit} at a time" if found.array_limit else ""
        what += f" ({counted(count, 'run')} in an array of {len(found.parts)}{limit})"
        what += f", and job {found.report_id} for the report"
    if found.tuning_id is not None:
        count = sum(map(len, found.tuning_parts))
        tuning = f"job {found.tuning_id} ({counted(count, 'tuning run')} in an array of "
        what = f"{tuning}{len(found.tuning_parts)}), then {what}"
    short = _short(found.folder)
    print(f"submitted {what}")
    print(f"  folder: {short}")
    if found.logs:
        print(f"  logs:   {', '.join(f'{short}/{log}' for log in found.logs)}")
    both = f"{short}/tuning {short}" if found.tuning_id is not None else short
    print(f"  watch:  mpi-dcasgd status {both}")
    print(f"  cancel: scancel {' '.join(found.job_ids)}")


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)

"""``mpi-dcasgd chaos``: let faults strike real runs, and check that nothing is lost."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mpi_dcasgd.cli.arguments import add_dry_run, add_overrides, count

if TYPE_CHECKING:
    from mpi_dcasgd.tools.chaos.verdict import Verdict

HELP = "kill, stop, suspend and starve real runs, and check that nothing is lost"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "job",
        nargs="?",
        metavar="JOB",
        help="job file (default: the example of the digits, made short)",
    )
    add_overrides(parser)
    parser.add_argument(
        "--runs", type=count, default=200, metavar="N", help="runs to make (default: 200)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="decides which faults strike, and when (default: 0)"
    )
    parser.add_argument(
        "-n",
        "--workers",
        type=count,
        default=4,
        metavar="N",
        help="workers, which a synchronous job has no server beside (default: 4)",
    )
    parser.add_argument(
        "--kinds",
        default="",
        metavar="K,K",
        help="kinds of faults, such as kill,stop or hang-worker (default: all; --dry-run names "
        "them)",
    )
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument(
        "--fault-tolerant", action="store_true", help="start runs with --fault-tolerant"
    )
    modes.add_argument("--both", action="store_true", help="start runs with it and without in turn")
    parser.add_argument(
        "--limit",
        type=count,
        default=120,
        metavar="S",
        help="seconds after its last fault within which a start has to end (default: 120)",
    )
    parser.add_argument(
        "--only",
        type=_numbers,
        metavar="RUN|A-B",
        help="make this one of the runs, or those from A to B, as after an interruption",
    )
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="DIR",
        help="keep all run folders and outputs there (default: those of failures, in TMPDIR)",
    )
    parser.add_argument("--json", action="store_true", help="print the verdicts as JSON")
    add_dry_run(parser, "show the kinds and what would strike each run; start nothing")


def run(args: argparse.Namespace) -> int:
    """Make the runs and print a table; 1 if one of them failed."""
    from mpi_dcasgd.runs.chaos import chaos_runs
    from mpi_dcasgd.runs.chaos_plan import prepare
    from mpi_dcasgd.tools.chaos.plan import KINDS

    file, words = args.job, list(args.overrides)
    if file is not None and "=" in file and not Path(file).exists():
        file, words = None, [file, *words]
    chaos = prepare(
        None if file is None else Path(file),
        words=words,
        runs=args.runs,
        seed=args.seed,
        workers=args.workers,
        kinds=args.kinds.split(",") if args.kinds else tuple(KINDS),
        modes=(False, True) if args.both else (args.fault_tolerant,),
        limit_s=float(args.limit),
    )
    shown = sys.stderr if args.json else sys.stdout
    for line in chaos.left_out:
        print(f"left out: {line}", file=shown)
    if args.dry_run:
        print(*(f"{kind:14} {KINDS[kind]}" for kind in chaos.kinds), sep="\n")
        for number in range(args.runs) if args.only is None else args.only:
            plan = chaos.plan(number)
            print(f"run {number}{', fault-tolerant' * plan.fault_tolerant}: {plan}")
        return 0
    # A stop ends the run that is under way with all its processes, and tells of those before.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    verdicts: list[Verdict] = []

    def told(verdict: Verdict) -> None:
        verdicts.append(verdict)
        print(verdict, file=shown, flush=True)
        if verdict.failures:
            print(f"  again: {verdict.command}\n  kept: {verdict.kept}", file=shown, flush=True)

    try:
        chaos_runs(chaos, only=args.only, keep=args.keep, told=told)
    finally:
        _show(verdicts, as_json=args.json)
    return 1 if any(verdict.failures for verdict in verdicts) else 0


def _numbers(text: str) -> range:
    """Parse the number of a run, from 0, or those of the first and the last of several."""
    first, dash, last = text.partition("-")
    ends = (first, last) if dash else (first, first)
    if not all(end.isdecimal() for end in ends) or int(ends[0]) > int(ends[1]):
        raise argparse.ArgumentTypeError(f"{text!r}: allowed: a run's number from 0, or A-B")
    return range(int(ends[0]), int(ends[1]) + 1)


def _show(verdicts: list[Verdict], *, as_json: bool) -> None:
    """Print what all runs came to."""
    from mpi_dcasgd.tools.chaos.table import table

    if as_json:
        print(json.dumps([verdict.as_plain() for verdict in verdicts], indent=2))
    elif verdicts:
        print(f"\n{table(verdicts)}")

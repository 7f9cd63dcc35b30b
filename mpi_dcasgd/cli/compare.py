"""``mpi-dcasgd compare``: run a study, or what is left of it, and report."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mpi_dcasgd.cli.arguments import add_dry_run, add_mpirun, add_restarts, part
from mpi_dcasgd.cli.report import show
from mpi_dcasgd.errors import UserError
from mpi_dcasgd.shell import shell_words

if TYPE_CHECKING:
    from mpi_dcasgd.config.study import Study
    from mpi_dcasgd.reporting.write import Report

HELP = "run a study: a grid of algorithms, workers and seeds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("study", type=Path, metavar="STUDY", help="study file")
    parser.add_argument(
        "-o", "--out", type=Path, metavar="DIR", help="folder of its runs (default: runs/<study>)"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="only these runs; * and ? are wildcards"
    )
    parser.add_argument("--rerun", action="store_true", help="rerun finished runs, too")
    parser.add_argument(
        "--part",
        type=part,
        metavar="I/N",
        help="only the I-th of N parts of the runs, counted from 0: an element of a job array",
    )
    report = parser.add_mutually_exclusive_group()
    report.add_argument(
        "--no-report",
        action="store_true",
        help="write no report, and let others work on other runs of the study at the same time",
    )
    report.add_argument(
        "--report-only", action="store_true", help="report on the existing runs; start none"
    )
    tuning = parser.add_mutually_exclusive_group()
    tuning.add_argument(
        "--tune-only",
        action="store_true",
        help="make the study's tuning runs, or those that --only names, choose once all have a "
        "result, and make no other run",
    )
    tuning.add_argument(
        "--tuned",
        action="store_true",
        help="make no tuning runs: refuse if any have no result, as a job array does",
    )
    add_mpirun(parser)
    add_restarts(parser)
    add_dry_run(parser, "show the runs and their state; start nothing")


def run(args: argparse.Namespace) -> int:
    """Run a study, or only show or report it.

    Returns:
        0 if all runs are there, 1 if one failed, 130 after Ctrl-C, 138 after SIGUSR1.
    """
    from mpi_dcasgd.config.study import load_study
    from mpi_dcasgd.runs.compare import compare, plan_comparison
    from mpi_dcasgd.tools.launch.restarts import restarts_wanted

    study = load_study(args.study)
    if args.report_only:
        return _report_only(study, args.out)
    of_runs = None if args.tune_only else args.only
    plan = plan_comparison(study, args.out, only=of_runs, part=args.part)
    if not plan.runs:
        print(f"{study.name}: {_nothing_for(args)}")
        return 0
    if args.dry_run:
        print(plan.overview())
        return 0
    with _table_without_plots():
        result = compare(
            study,
            args.out,
            only=args.only,
            part=args.part,
            rerun=args.rerun,
            report=not args.no_report,
            tune_only=args.tune_only,
            tuned=args.tuned,
            launcher=args.launcher,
            mpirun=args.mpirun,
            mpirun_args=shell_words(args.mpirun_args, "--mpirun-args"),
            restarts=restarts_wanted(args.restarts),
            show=sys.stdout,
        )
    if result.stopped_by is not None:
        # What was run again has been: with --rerun it would begin from the start.
        again = [word for word in args.argv if word != "--rerun"]
        print(f"stopped; to resume: {shlex.join(again)}", file=sys.stderr)
        return 128 + result.stopped_by
    _show(result.report)
    for outcome in result.failed:
        told = "\n  ".join([f"{outcome.run.name} failed:", *outcome.reason.splitlines()])
        print(told, file=sys.stderr)
    return 1 if result.failed else 0


def _nothing_for(args: argparse.Namespace) -> str:
    if args.part is not None:
        return f"no run is left for part {args.part[0]} of {args.part[1]}"
    return f"tuning left out {', '.join(args.only)}: no tuning run of that algorithm has won"


def _report_only(study: Study, out: Path | None) -> int:
    """Report what is there, and say what is not."""
    from mpi_dcasgd.runs.compare import report_study

    with _table_without_plots():
        result = report_study(study, out)
    _show(result.report)
    if result.missing:
        print(f"not finished: {', '.join(result.missing)}", file=sys.stderr)
    return 1 if result.missing else 0


def _show(written: Report | None) -> None:
    if written is not None:
        print()
        show(written)


@contextmanager
def _table_without_plots() -> Iterator[None]:
    """Print the table of a report that lacks matplotlib, before the error about it."""
    try:
        yield
    except UserError as error:
        # Only `ReportWithoutPlotsError` has a report; to import it takes seconds.
        if report := getattr(error, "report", None):
            print(f"\n{report.table}")
        raise

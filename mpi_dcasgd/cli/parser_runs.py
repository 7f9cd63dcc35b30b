"""The commands that make, start and compare runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from mpi_dcasgd.cli.arguments import (
    add_dry_run,
    add_job,
    add_mpirun,
    add_overrides,
    add_resume,
    add_run_dir,
    count,
    fraction,
    part,
)


def _add_train(parser: argparse.ArgumentParser) -> None:
    add_job(parser)
    add_run_dir(parser)
    add_resume(parser)
    parser.add_argument(
        "-n",
        "--ranks",
        type=count,
        metavar="N",
        help="with --dry-run: ranks to plan for, where no launcher says how many there are",
    )
    parser.set_defaults(command="mpi_dcasgd.cli.start:start")


def _add_run(parser: argparse.ArgumentParser) -> None:
    add_job(parser)
    parser.add_argument(
        "-n",
        "--ranks",
        type=count,
        metavar="N",
        help="processes to start, the server included (default in a SLURM allocation: its tasks)",
    )
    add_run_dir(parser)
    add_resume(parser)
    add_mpirun(parser)
    parser.add_argument(
        "--fault-tolerant",
        action="store_true",
        help="let the run outlive the death of a worker (Open MPI built with ULFM)",
    )
    parser.set_defaults(command="mpi_dcasgd.cli.run:run_job")


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", type=Path, metavar="STUDY", help="study file")
    parser.add_argument(
        "-o", "--out", type=Path, metavar="DIR", help="folder of its runs (default: runs/<study>)"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="only these runs; * and ? stand for any letters"
    )
    parser.add_argument("--rerun", action="store_true", help="run again what is finished, too")
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
        "--report-only", action="store_true", help="report the runs that are there; start none"
    )
    add_mpirun(parser)
    add_dry_run(parser, "show the runs and which of them are finished; start nothing")
    parser.set_defaults(command="mpi_dcasgd.cli.compare:compare")


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="run folder, or a folder of run folders"
    )
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="DIR", help="folder to write into"
    )
    parser.add_argument(
        "--target-error",
        type=fraction,
        metavar="X",
        help="also report how soon this test error was reached, as a fraction of 1",
    )
    parser.set_defaults(command="mpi_dcasgd.cli.report:report")


def _add_replay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    add_overrides(parser)
    parser.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="with key=value: folder to write the run into"
    )
    parser.set_defaults(command="mpi_dcasgd.cli.start:replay")


COMMANDS_FOR_RUNS = (
    ("train", "train as one rank of an MPI world, or alone", _add_train),
    ("run", "start the world of a job with mpirun or srun", _add_run),
    ("compare", "run a study: a grid of algorithms, workers and seeds", _add_compare),
    ("report", "compare runs that are there", _add_report),
    ("replay", "compute an asynchronous run again from its trace", _add_replay),
)

"""The commands beside training: simulation, measuring, checking."""

from __future__ import annotations

import argparse
from pathlib import Path

from mpi_dcasgd.cli.arguments import (
    add_mpirun,
    add_overrides,
    add_run_dir,
    count,
)


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", type=Path, metavar="JOB", help="job file")
    add_overrides(parser)
    add_run_dir(parser)
    parser.add_argument(
        "--checkpoint-every",
        type=count,
        metavar="EPOCHS",
        help="write a checkpoint so often, and when a signal stops the simulation",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the checkpoint in --run-dir, if there is one; same job, same words",
    )
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
    parser.set_defaults(command="mpi_dcasgd.cli.simulate:simulate")


def _add_calibrate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        type=Path,
        nargs="+",
        metavar="SOURCE",
        help="a job file, to measure this machine with; or the folders of runs",
    )
    parser.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="file to write (default: the terminal)"
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="key=value",
        help="change a setting of the job",
    )
    parser.set_defaults(command="mpi_dcasgd.cli.calibrate:calibrate")


def _add_bench(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(metavar="WHAT", required=True)
    for name, text in (("simulator", "the simulator against a plain training loop"),):
        each = what.add_parser(name, help=text, description=text.capitalize() + ".")
        each.add_argument("--json", action="store_true", help="print JSON")
        each.set_defaults(command=f"mpi_dcasgd.cli.bench:{name}")
    text = "the parameter server over MPI against the bare messages"
    _add_bench_mpi(what.add_parser("mpi", help=text, description=text.capitalize() + "."))
    text = "the update rules against a triad: compiled, in blocks and plainly"
    _add_bench_update(what.add_parser("update", help=text, description=text.capitalize() + "."))


def _add_bench_mpi(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--workers",
        type=count,
        nargs="+",
        default=[1, 2],
        metavar="N",
        help="a world each (default: 1 2)",
    )
    parser.add_argument(
        "--params",
        type=count,
        nargs="+",
        metavar="N",
        help="lengths of the vectors (default: 270000 11000000 25600000)",
    )
    parser.add_argument(
        "--rules",
        nargs="+",
        default=["dcasgd-a"],
        metavar="ALGORITHM",
        help="asynchronous algorithms (default: dcasgd-a)",
    )
    parser.add_argument(
        "--rounds", type=count, default=5, metavar="N", help="measurements of each (default: 5)"
    )
    add_mpirun(parser)
    parser.set_defaults(command="mpi_dcasgd.cli.bench_mpi:mpi")


def _add_bench_update(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rules", nargs="+", metavar="RULE", help="only these (default: all)")
    parser.add_argument(
        "--params",
        type=count,
        nargs="+",
        metavar="N",
        help="lengths of the vectors (default: 270000 11000000 25600000)",
    )
    parser.add_argument(
        "--repeats", type=count, default=11, metavar="N", help="samples of each (default: 11)"
    )
    parser.add_argument(
        "--threads", type=count, default=1, metavar="N", help="as the server has (default: 1)"
    )
    parser.set_defaults(command="mpi_dcasgd.cli.bench_update:update")


def _add_conformance(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="a named algorithm, or package.module:Name of a part, a rule or a server class",
    )
    parser.set_defaults(command="mpi_dcasgd.tools.conformance:command")


def _add_stability(parser: argparse.ArgumentParser) -> None:
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
    parser.set_defaults(command="mpi_dcasgd.cli.stability:stability")


COMMANDS_BESIDE = (
    ("stability", "how the learning rate must change with the number of workers", _add_stability),
    ("conformance", "hold an update rule against the laws of all rules", _add_conformance),
    ("simulate", "run a job on a cluster that is only described", _add_simulate),
    ("calibrate", "describe a cluster from runs or from this machine", _add_calibrate),
    ("bench", "measure the speed of the package itself", _add_bench),
)

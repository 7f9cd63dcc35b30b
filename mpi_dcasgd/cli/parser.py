"""What can be said on the command line. Imports nothing but argparse: ``--help`` must be quick."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import mpi_dcasgd

_EPILOG = """\
examples:
  mpirun -n 5 python -m mpi_dcasgd train jobs/digits.yaml algorithm=dcasgd-a
  mpi-dcasgd run -n 5 jobs/digits.yaml algorithm=dcasgd-a
  mpi-dcasgd compare jobs/compare_digits.yaml
"""


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; ``command`` of the result is ``module:function`` to call with it.

    Raises:
        SystemExit: It is wrong (status 2), or asked for help or the version (0).
    """
    parser = build_parser()
    args, rest = parser.parse_known_args(list(words))
    # argparse takes the positional arguments at the first option, so overrides may come after.
    overrides = getattr(args, "overrides", None)
    unknown = [word for word in rest if overrides is None or word.startswith("-")]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if overrides is not None:
        args.overrides = [*overrides, *rest]
    return args


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="mpi-dcasgd",
        description="Train with asynchronous SGD and delay compensation over MPI, or with "
        "Horovod's synchronous SGD, from the same job file.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action="version", version=f"mpi-dcasgd {mpi_dcasgd.__version__}"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, text, add in (
        ("train", "train as one rank of an MPI world, or alone", _add_train),
        ("run", "start the world of a job with mpirun", _add_run),
        ("compare", "run a study: a grid of algorithms, workers and seeds", _add_compare),
        ("report", "compare runs that are there", _add_report),
        ("replay", "compute an asynchronous run again from its trace", _add_replay),
        ("conformance", "hold an update rule against the laws of all rules", _add_conformance),
        ("simulate", "run a job on a cluster that is only described", _add_simulate),
        ("calibrate", "describe a cluster from runs or from this machine", _add_calibrate),
        ("bench", "measure the speed of the package itself", _add_bench),
    ):
        add(commands.add_parser(name, help=text, description=text.capitalize() + "."))
    return parser


def _add_train(parser: argparse.ArgumentParser) -> None:
    _add_job(parser)
    _add_run_dir(parser)
    parser.add_argument(
        "-n",
        "--ranks",
        type=_count,
        metavar="N",
        help="with --dry-run: ranks to plan for, where no launcher says how many there are",
    )
    parser.set_defaults(command="mpi_dcasgd.cli.start:start")


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_job(parser)
    parser.add_argument(
        "-n", "--ranks", type=_count, metavar="N", help="processes to start, the server included"
    )
    _add_run_dir(parser)
    _add_mpirun(parser)
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
    _add_mpirun(parser)
    _add_dry_run(parser, "show the runs and which of them are finished; start nothing")
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
        type=_fraction,
        metavar="X",
        help="also report how soon this test error was reached, as a fraction of 1",
    )
    parser.set_defaults(command="mpi_dcasgd.cli.report:report")


def _add_replay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    _add_overrides(parser)
    parser.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="with key=value: folder to write the run into"
    )
    parser.set_defaults(command="mpi_dcasgd.cli.start:replay")


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", type=Path, metavar="JOB", help="job file")
    _add_overrides(parser)
    _add_run_dir(parser)
    parser.add_argument(
        "--timing-only",
        action="store_true",
        help="only throughput, staleness and utilisation; compute no gradient",
    )
    parser.add_argument(
        "--updates",
        type=_count,
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
    text = "the update rules against a triad: compiled, in blocks and plainly"
    _add_bench_update(what.add_parser("update", help=text, description=text.capitalize() + "."))


def _add_bench_update(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rules", nargs="+", metavar="RULE", help="only these (default: all)")
    parser.add_argument(
        "--params",
        type=_count,
        nargs="+",
        metavar="N",
        help="lengths of the vectors (default: 270000 11000000 25600000)",
    )
    parser.add_argument(
        "--repeats", type=_count, default=11, metavar="N", help="samples of each (default: 11)"
    )
    parser.add_argument(
        "--threads", type=_count, default=1, metavar="N", help="as the server has (default: 1)"
    )
    parser.set_defaults(command="mpi_dcasgd.cli.bench_update:update")


def _add_conformance(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="a named algorithm, or package.module:Name of a part, a rule or a server class",
    )
    parser.set_defaults(command="mpi_dcasgd.tools.conformance:command")


def _add_job(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", type=Path, metavar="JOB", help="job file")
    _add_overrides(parser)
    _add_dry_run(parser, "show the resolved job, the ranks and the memory; start nothing")


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="change a setting, e.g. lr=0.1 or rule.compensation.dc_lambda=1.0",
    )


def _add_dry_run(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--dry-run", action="store_true", help=text)


def _add_run_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help="run folder (default: runs/<job>-<algorithm>-<time>)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a finished run that --run-dir holds"
    )


def _add_mpirun(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mpirun", metavar="PATH", help="the mpirun to use (default: the one of this Python)"
    )
    parser.add_argument(
        "--mpirun-args",
        default="",
        metavar="WORDS",
        help='further arguments for it, in one word: --mpirun-args="--hostfile hosts"',
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed: a whole number >= 1")
    return int(text)


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r}: allowed: a number > 0 and < 1 (0.04 for 4 per cent)"
        )
    return value

"""``mpi-dcasgd bench mpi``, ``training`` and ``peers``: benchmarks that start processes."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpi_dcasgd.cli.arguments import add_mpirun, add_overrides, count, finite
from mpi_dcasgd.drivers.transport.chunks import AUTO_MB
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.tools.bench.ways import WAYS
from mpi_dcasgd.wording import counted

if TYPE_CHECKING:
    from mpi_dcasgd.tools.bench.worlds import Starter


def add_worlds(what: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add these benchmarks to those of the command."""
    text = "the parameter server over MPI against the bare messages and the update alone"
    _add_mpi(what.add_parser("mpi", help=text, description=text.capitalize() + "."))
    text = (
        "asynchronous training against its workers by themselves and against synchronous training"
    )
    _add_training(what.add_parser("training", help=text, description=text.capitalize() + "."))
    text = "the parameter server against those of torch.distributed.rpc and Ray"
    description = f"{text[0].upper()}{text[1:]}; all on this host, where ours shares memory."
    _add_peers(what.add_parser("peers", help=text, description=description))


def _add_mpi(parser: argparse.ArgumentParser) -> None:
    _add_sizes(parser)
    parser.add_argument(
        "--rules",
        nargs="+",
        default=["dcasgd-a"],
        metavar="ALGORITHM",
        help="asynchronous algorithms (default: dcasgd-a)",
    )
    parser.add_argument(
        "--transport",
        nargs="+",
        choices=WAYS,
        default=["messages", "shared"],
        help="how vectors travel, measured in turns: in one message, in chunks, in 16 bits a "
        "number, or in memory that is shared (default: messages shared)",
    )
    parser.add_argument(
        "--chunk-mb",
        type=megabytes,
        default=AUTO_MB,
        metavar="MB",
        help=f"megabytes of a chunk (default: {AUTO_MB:g})",
    )
    parser.add_argument(
        "--pushes",
        type=count,
        metavar="N",
        help="pushes of a measurement (default: 2,000, of long vectors fewer)",
    )
    parser.add_argument(
        "--servers",
        type=count,
        nargs="+",
        default=[1],
        metavar="N",
        help="numbers of servers that are as one, measured in turns (default: 1)",
    )
    add_common(parser, rounds=5)
    parser.set_defaults(measure=_mpi)


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "job",
        type=Path,
        nargs="?",
        metavar="JOB",
        help="job file (default: an MLP on made-up samples, whose steps take --step-ms)",
    )
    add_overrides(parser)
    parser.add_argument(
        "--workers", type=count, default=4, metavar="N", help="number of workers (default: 4)"
    )
    parser.add_argument(
        "--slow",
        type=_factor,
        default=4.0,
        metavar="X",
        help="the last worker is X times as slow in the runs with a slow one (default: 4)",
    )
    parser.add_argument(
        "--algorithm",
        default="dcasgd-a",
        metavar="NAME",
        help="the asynchronous algorithm (default: dcasgd-a)",
    )
    parser.add_argument(
        "--backend",
        choices=("horovod", "ddp"),
        help="of synchronous runs (default: Horovod, or ddp where it is not installed)",
    )
    parser.add_argument(
        "--step-ms",
        type=milliseconds,
        metavar="MS",
        help="a step takes at least MS milliseconds, of which a worker sleeps what it does not "
        "compute; 0: as long as it computes (default: 20, and 0 for a JOB)",
    )
    parser.add_argument(
        "--steps",
        type=count,
        default=150,
        metavar="N",
        help="steps of each worker in a run, unless a JOB says how many (default: 150)",
    )
    add_common(parser, rounds=3)
    parser.set_defaults(measure=_training)


def _add_peers(parser: argparse.ArgumentParser) -> None:
    _add_sizes(parser, "270000 25600000")
    add_common(parser, rounds=3)
    parser.set_defaults(measure=_peers)


def _factor(text: str) -> float:
    value = finite(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed: a number >= 1")
    return value


def megabytes(text: str) -> float:
    """Read a number of megabytes from the command line."""
    value = finite(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed: a number > 0")
    return value


def milliseconds(text: str) -> float:
    """Read a number of milliseconds from the command line."""
    value = finite(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed: a number >= 0")
    return value


def _add_sizes(parser: argparse.ArgumentParser, default: str = "270000 11000000 25600000") -> None:
    parser.add_argument(
        "--workers",
        type=count,
        nargs="+",
        default=[1, 2],
        metavar="N",
        help="numbers of workers, one world each (default: 1 2)",
    )
    parser.add_argument(
        "--params",
        type=count,
        nargs="+",
        metavar="N",
        help=f"lengths of the vectors (default: {default})",
    )


def add_common(parser: argparse.ArgumentParser, *, rounds: int) -> None:
    """Add the options that all of these benchmarks have."""
    parser.add_argument(
        "--rounds",
        type=count,
        default=rounds,
        metavar="N",
        help=f"measurements of each case (default: {rounds})",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_mpirun(parser)


def starter(args: argparse.Namespace) -> Starter:
    """Return what starts the worlds that the command line asks for."""
    from mpi_dcasgd.tools.bench.worlds import Starter

    return Starter(args.launcher, args.mpirun, args.mpirun_args)


def _mpi(args: argparse.Namespace) -> int:
    """The command: one world for each number of workers.

    Raises:
        ConfigError: A rule that is not asynchronous, or unknown.
        LaunchError: There is no mpirun, or the world failed.
    """
    from mpi_dcasgd.tools.bench.mpi import SIZES, as_table, measure

    _check(args.rules)
    sizes = args.params or SIZES
    cases = [
        case
        for workers in args.workers
        for case in measure(
            workers,
            sizes,
            args.rules,
            args.rounds,
            starter(args),
            args.transport,
            args.chunk_mb,
            args.pushes,
            args.servers,
        )
    ]
    show(args, [case.entry() for case in cases], as_table(cases))
    return 0


def _training(args: argparse.Namespace) -> int:
    """The command: six kinds of runs in turns.

    Raises:
        ConfigError: An algorithm that is not asynchronous, or a job that is wrong.
        LaunchError: There is no launcher, or a run failed.
    """
    from mpi_dcasgd.runs.jobs import load_job
    from mpi_dcasgd.tools.bench.training import Course, as_table, installed_backend, measure

    _check([args.algorithm], "--algorithm")
    job, words = args.job, tuple(args.overrides)
    if job is not None and "=" in job.name and not job.exists():  # there is no job, but changes
        job, words = None, (str(job), *words)
    if job is not None:
        load_job(job, words=[*words, f"algorithm={args.algorithm}"])
    step_ms = args.step_ms if args.step_ms is not None else 20.0 if job is None else 0.0
    course = Course(
        args.workers,
        args.slow,
        args.algorithm,
        args.backend or installed_backend(),
        step_ms / 1e3,
        args.steps,
        job,
        words,
    )
    found = measure(course, args.rounds, starter(args), tell)
    show(args, [found.entry()], as_table(found))
    return 0


def _peers(args: argparse.Namespace) -> int:
    """The command: every peer and this package's server in turns.

    Raises:
        LaunchError: A world failed.
    """
    from mpi_dcasgd.tools.bench.peers import SIZES, as_table, measure

    sizes = args.params or SIZES
    cases = [
        case
        for workers in args.workers
        for case in measure(workers, sizes, args.rounds, starter(args), tell)
    ]
    show(args, [case.entry() for case in cases], as_table(cases))
    return 0


def tell(line: str) -> None:
    """Show progress to somebody who sits there: it takes minutes."""
    if sys.stderr.isatty():
        print(line, file=sys.stderr)


def show(args: argparse.Namespace, results: Sequence[dict[str, Any]], shown: str) -> None:
    """Print what was measured, and where."""
    from mpi_dcasgd.tools.bench.show import machine

    where = machine(args.rounds)
    if args.json:
        print(json.dumps({"machine": where, "results": results}, indent=2))
        return
    print(
        f"{where['cpu']}, {where['cpus']} CPUs, load {where['load'][0]} when done; medians of "
        f"{counted(args.rounds, 'round')} (least to most of a ratio within a "
        f"round)\n\n{shown}"
    )


def _check(rules: Sequence[str], option: str = "--rules") -> None:
    from mpi_dcasgd.config.check import unknown_algorithm
    from mpi_dcasgd.rules.algorithms import ALGORITHMS, mode_of

    problems = []
    for name in rules:
        if name not in ALGORITHMS:
            problems.append(f"{option}: {unknown_algorithm(name)}")
        elif mode_of(name) != "asynchronous":
            problems.append(f"{option} {name}: has no server; choose an asynchronous algorithm")
    if problems:
        raise ConfigError("command line", problems)

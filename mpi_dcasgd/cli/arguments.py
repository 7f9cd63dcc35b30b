"""Arguments that several commands have."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from pathlib import Path


def add_job(parser: argparse.ArgumentParser) -> None:
    """A job file, its overrides, and ``--dry-run``."""
    parser.add_argument("job", type=Path, metavar="JOB", help="job file")
    add_overrides(parser)
    add_dry_run(parser, "show the resolved job, the ranks and the memory; start nothing")


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """``key=value`` words; they may also stand after options."""
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="set a key of the job, e.g. lr=0.1 or rule.compensation.dc_lambda=1.0",
    )


def add_dry_run(parser: argparse.ArgumentParser, text: str) -> None:
    """``--dry-run``, with what it does here."""
    parser.add_argument("--dry-run", action="store_true", help=text)


def add_run_dir(parser: argparse.ArgumentParser) -> None:
    """``--run-dir`` and ``--overwrite``."""
    parser.add_argument(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help="run folder (default: runs/<job>-<algorithm>-<time>)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a finished run in --run-dir"
    )


def add_resume(parser: argparse.ArgumentParser) -> None:
    """``--resume``."""
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="WHAT",
        help="auto: resume from the newest checkpoint in --run-dir, if it has one (default); "
        "never: start over; or a checkpoint file, or another run's folder",
    )


def bare_resume(words: Sequence[str]) -> list[str]:
    """Words in which a ``--resume`` before a job or an override does not take it for its value.

    Example:
        >>> bare_resume(["simulate", "--resume", "job.yaml", "workers=4"])
        ['simulate', '--resume=auto', 'job.yaml', 'workers=4']
    """
    found = list(words)
    for number, word in enumerate(words[:-1]):
        following = words[number + 1]
        if word == "--resume" and _NO_CHECKPOINT.search(following) and not _exists(following):
            found[number] = "--resume=auto"
    return found


_NO_CHECKPOINT = re.compile(r"\.ya?ml\Z|\A[A-Za-z_][\w.-]*=")


def _exists(word: str) -> bool:
    """True if this is a run folder or a checkpoint."""
    return Path(word).is_dir() or (word.endswith(".pt") and Path(word).is_file())


def add_mpirun(parser: argparse.ArgumentParser) -> None:
    """Add the options of the launcher."""
    parser.add_argument(
        "--launcher",
        choices=("auto", "mpirun", "srun"),
        help="who starts the ranks (default: the variable MPI_DCASGD_LAUNCHER, or auto: mpirun, "
        "or srun in a SLURM allocation that has no mpirun)",
    )
    parser.add_argument(
        "--mpirun", metavar="PATH", help="the mpirun to use (default: the one of this Python)"
    )
    parser.add_argument(
        "--mpirun-args",
        default="",
        metavar="WORDS",
        help='more arguments for mpirun or srun, as one word: --mpirun-args="--hostfile hosts"',
    )


def add_restarts(parser: argparse.ArgumentParser) -> None:
    """Add the option that starts a run again."""
    parser.add_argument(
        "--restarts",
        type=count,
        metavar="N",
        help="start a run that ends early again, up to N times, to resume from its checkpoint "
        "(default: the variable MPI_DCASGD_RESTARTS, or 0)",
    )


def count(text: str) -> int:
    """A whole number >= 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed: a whole number >= 1")
    return int(text)


def part(text: str) -> tuple[int, int]:
    """``I/N`` with 0 <= I < N."""
    index, _, count_ = text.partition("/")
    if index.isdecimal() and count_.isdecimal() and int(index) < int(count_):
        return int(index), int(count_)
    raise argparse.ArgumentTypeError(f"{text!r}: allowed: I/N with 0 <= I < N")


def fraction(text: str) -> float:
    """A number between 0 and 1, neither included."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r}: allowed: a number > 0 and < 1 (0.04 for 4 per cent)"
        )
    return value


def finite(text: str) -> float:
    """A number that is finite."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r}: allowed: a finite number (0.04, 1e-6)")
    return value

"""``mpi-dcasgd doctor``: what works here, what does not, and the command that mends it."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mpi_dcasgd.cli.arguments import add_mpirun, count
from mpi_dcasgd.wording import counted

if TYPE_CHECKING:
    from mpi_dcasgd.tools.doctor.finding import Finding

HELP = "check MPI, Horovod, PyTorch, SLURM and this machine; name the command that mends it"

_WIDTH = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--ranks", type=count, metavar="N", help="start N ranks and time messages between them"
    )
    parser.add_argument(
        "--run-dir",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="folder of runs, whose disk and locks are tried (default: runs)",
    )
    add_mpirun(parser)


def run(args: argparse.Namespace) -> int:
    """Check, show, and return 1 if anything failed."""
    from mpi_dcasgd.runs.doctor import doctor
    from mpi_dcasgd.tools.doctor.finding import healthy

    found = doctor(
        args.ranks,
        run_dir=args.run_dir,
        launcher=args.launcher,
        mpirun=args.mpirun,
        mpirun_args=args.mpirun_args,
    )
    well = healthy(found)
    if args.json:
        print(json.dumps({"ok": well, "checks": [asdict(one) for one in found]}, indent=2))
    else:
        print(as_text(found))
    return 0 if well else 1


def as_text(found: Sequence[Finding]) -> str:
    """Return a line for each check, with the command below it where there is one."""
    names = max(len(one.name) for one in found)
    margin = " " * (len("fail  ") + names + 2)
    lines = []
    for one in found:
        head = f"{'FAIL' if one.result == 'fail' else one.result:<4}  {one.name:<{names}}  "
        seen = " ".join(one.seen.split())
        lines += textwrap.wrap(
            seen,
            _WIDTH,
            initial_indent=head,
            subsequent_indent=margin,
            break_long_words=False,
            break_on_hyphens=False,
        )
        if one.fix:  # in one line, to be copied
            lines.append(f"{margin}-> {one.fix}")
    counts = {result: sum(one.result == result for one in found) for result in ("warn", "fail")}
    lines.append("")
    lines.append(
        f"{counted(len(found), 'check')}: {counts['fail']} failed, "
        f"{counted(counts['warn'], 'warning')}"
    )
    return "\n".join(lines)

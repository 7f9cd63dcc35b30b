"""``mpi-dcasgd init``: copy example jobs, batch scripts and site files into a folder."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

HELP = "copy a starter job, studies, batch scripts and site files into a folder"

_NEXT = """\
next:
{cd}  mpi-dcasgd run -n 5 jobs/digits.yaml            # train: 1 server and 4 workers
  mpi-dcasgd compare jobs/compare_digits.yaml     # algorithms x seeds, then a report
      (its synchronous runs need Horovod: python -m mpi_dcasgd.tools.build_horovod)
on a cluster, once slurm/env/generic.sh loads its modules and activates the environment:
  mpi-dcasgd submit jobs/digits.yaml -n 5 --site-env generic --dry-run
  sbatch slurm/async.sbatch
more example jobs: {jobs}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=Path(),
        metavar="DIR",
        help="folder to copy into, created if need be (default: the current folder)",
    )


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from mpi_dcasgd.shipped import shipped
    from mpi_dcasgd.tools.starter import copy_starter_files

    folder: Path = args.folder
    starter = copy_starter_files(folder)
    for name in starter.written:
        print(f"wrote {folder / name}")
    for name in starter.kept:
        print(f"kept  {folder / name} (exists already)")
    cd = "" if folder == Path() else f"  cd {shlex.quote(str(folder))}\n"
    print(_NEXT.format(cd=cd, jobs=shipped("jobs")))
    return 0

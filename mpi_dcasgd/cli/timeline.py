"""``mpi-dcasgd timeline``: what each rank of a run did when, for Perfetto or as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from mpi_dcasgd.cli.arguments import finite

HELP = "what each rank did when, for Perfetto or as a picture"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder, finished or not")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help="file to write: .json or .json.gz for Perfetto, .png, .svg or .pdf for a picture "
        "(default: timeline.json in RUN)",
    )
    parser.add_argument(
        "--from", dest="start_s", type=finite, metavar="S", help="seconds since training began"
    )
    parser.add_argument(
        "--to", dest="end_s", type=finite, metavar="S", help="seconds since training began"
    )


def run(args: argparse.Namespace) -> int:
    """Write the timeline and say where it is."""
    from mpi_dcasgd.runs.timeline import PICTURES, timeline

    written = timeline(args.run, args.out, start_s=args.start_s, end_s=args.end_s)
    found = written.timeline
    begin, end = found.span
    pushes = len({one.push for one in found.slices})
    print(
        f"{pushes:,} pushes of {found.num_workers} workers, from {begin:.6g} to {end:.6g} s"
        + ("" if found.detailed else "; steps.bin is missing: only the end of each step is known")
    )
    where = "" if written.path.suffix in PICTURES else " (open it in https://ui.perfetto.dev)"
    print(f"timeline: {written.path}{where}")
    return 0

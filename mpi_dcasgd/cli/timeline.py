"""``mpi-dcasgd timeline``: what each rank of a run did when, for Perfetto or as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mpi_dcasgd.cli.arguments import finite
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.wording import counted

if TYPE_CHECKING:
    from mpi_dcasgd.reporting.timeline import Timeline

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
        f"{counted(pushes, 'push', ',')} of {counted(found.num_workers, 'worker')}, "
        f"from {begin:.6g} to {end:.6g} s"
        + ("" if found.detailed else f"; {_why_coarse(RunFolder(args.run))}")
    )
    print(_table(found))
    where = "" if written.path.suffix in PICTURES else " (open it in https://ui.perfetto.dev)"
    print(f"timeline: {written.path}{where}")
    return 0


def _why_coarse(folder: RunFolder) -> str:
    from mpi_dcasgd.rules.algorithms import mode_of

    if mode_of(folder.job().get("algorithm", "")) != "asynchronous":
        return "a run without a server records the end of each step, and nothing within it"
    return "steps.bin is missing: only the end of each step is known"


def _table(found: Timeline) -> str:
    from mpi_dcasgd.reporting.timeline import shares

    lines = ["  worker  pushes  staleness   max  ms a step  waiting"]
    for one in shares(found):
        step = "-" if one.step_s is None else f"{1e3 * one.step_s:.4g}"
        waited = "-" if one.waited is None else f"{100 * one.waited:.0f} %"
        lines.append(
            f"  {one.worker:>6}  {one.pushes:>6,}  {one.staleness_mean:>9.2f}  "
            f"{one.staleness_max:>4}  {step:>9}  {waited:>7}"
        )
    return "\n".join(lines)

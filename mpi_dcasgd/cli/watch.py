"""``mpi-dcasgd watch``: follow runs from another shell, from their folders alone."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mpi_dcasgd.cli.arguments import finite
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.wording import counted

if TYPE_CHECKING:
    from mpi_dcasgd.runs.watch import Watched

HELP = "follow a run or a study from another shell, until it ends"
_BAR = 24
_A_LINE = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "folder", type=Path, metavar="RUN|STUDY", help="run folder, or the folder of a study's runs"
    )
    parser.add_argument(
        "--every",
        type=finite,
        default=2.0,
        metavar="S",
        help="seconds between two looks (default: 2)",
    )


def run(args: argparse.Namespace) -> int:
    """Show the runs in place on a terminal, elsewhere what has changed; end with them."""
    from mpi_dcasgd.runs.watch import watch

    if args.every <= 0:
        raise ConfigError("command line", [f"--every {args.every:g}: give seconds above 0"])
    terminal = sys.stdout.isatty()
    before: list[str] = []
    try:
        for seen in watch(args.folder, args.every):
            lines = [line for run in seen for line in lines_of(run, detailed=len(seen) == 1)]
            if terminal:
                _redraw(lines, len(before))
            elif fresh := [line for line in lines if line not in before]:
                print("\n".join(fresh), flush=True)
            before = lines
    except KeyboardInterrupt:
        return 0  # the run goes on; only the look at it ends
    return 1 if any(run.status.state == "failed" for run in seen) else 0


def lines_of(run: Watched, *, detailed: bool) -> list[str]:
    """Return a run as lines of text.

    Args:
        run: As far as it is known.
        detailed: With what each worker has done lately.
    """
    from mpi_dcasgd.record.progress import format_duration

    status, progress = run.status, run.progress
    filled = round(_BAR * run.done)
    words = [f"{status.name}  [{'#' * filled}{'.' * (_BAR - filled)}] {100 * run.done:3.0f} %"]
    words.append(status.state)
    if status.epoch is not None:
        words.append(f"epoch {status.epoch:.1f}" + (f"/{run.epochs:g}" if run.epochs else ""))
    words.append(status.shown)
    if (loss := progress.get("train_loss")) is not None:
        words.append(f"loss {loss:.4g}")
    if (load := progress.get("server_load")) is not None:
        words.append(f"server {100 * load:.0f} % busy")
    if (rate := progress.get("samples_per_s")) is not None:
        words.append(f"{rate:,.0f} samples/s")
    if run.eta_s is not None:
        words.append(f"{format_duration(run.eta_s)} left")
    if status.restarts:
        words.append(f"restarted {counted(status.restarts, 'time')}")
    lines = ["  ".join(word for word in words if word)]
    if detailed:
        lines += _workers(run)
    lines += [f"  warning: {text}" for text in run.warnings]
    lines += [f"  {text}" for text in status.reason.splitlines()]
    return lines


def _workers(run: Watched) -> list[str]:
    pushes: Sequence[int] = run.progress.get("worker_pushes") or ()
    steps_s: Sequence[float | None] = run.progress.get("worker_step_s") or ()
    words = [
        f"{worker}: {count:,} of {1e3 * step_s:.3g} ms" if step_s is not None else f"{worker}: none"
        for worker, (count, step_s) in enumerate(zip(pushes, steps_s, strict=False))
    ]
    rows = range(0, len(words), _A_LINE)
    return [f"  pushes of worker {'   '.join(words[row : row + _A_LINE])}" for row in rows]


def _redraw(lines: Sequence[str], before: int) -> None:
    """Write over the lines of before: plain escapes, which any terminal knows."""
    columns, rows = shutil.get_terminal_size()
    shown = [line[: columns - 1] for line in lines[: rows - 1]]
    up = f"\x1b[{min(before, rows - 1)}A" if before else ""
    print(up + "\r\x1b[J" + "\n".join(shown), flush=True)

"""``mpi-dcasgd advise``: which algorithm to take on a cluster, with how many workers."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mpi_dcasgd.cli.arguments import add_overrides, count, finite
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.quick import importing_torch
from mpi_dcasgd.wording import counted

if TYPE_CHECKING:
    from mpi_dcasgd.runs.advise import Advice
    from mpi_dcasgd.tools.advice import Ranking, Row

HELP = "which algorithm and how many workers to take on a described cluster"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("job", type=Path, metavar="JOB", help="job file")
    add_overrides(parser)
    parser.add_argument(
        "--cluster",
        type=Path,
        required=True,
        metavar="FILE",
        help="description of the cluster, as calibrate writes it (docs/simulator.md)",
    )
    parser.add_argument(
        "--workers",
        type=count,
        nargs="+",
        default=[4, 8, 16, 32],
        metavar="N",
        help="numbers of workers to try (default: 4 8 16 32)",
    )
    parser.add_argument(
        "--algorithms",
        nargs="+",
        default=["ssgd", "asgd", "dcasgd-a"],
        metavar="NAME",
        help="algorithms to try (default: ssgd asgd dcasgd-a)",
    )
    parser.add_argument(
        "--seeds", type=count, default=2, metavar="N", help="seeds of each, 2 or more (default: 2)"
    )
    parser.add_argument(
        "--target",
        type=finite,
        metavar="VALUE",
        help="value of the primary metric to be reached, a fraction of 1 where it is shown in per "
        "cent (default: what one worker has reached after three quarters of the budget)",
    )
    parser.add_argument(
        "--minutes",
        type=finite,
        default=10.0,
        metavar="M",
        help="most real time; what would take longer is refused (default: 10)",
    )
    parser.add_argument(
        "-o", "--out", type=Path, metavar="DIR", help="keep the run folders here (default: none)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Simulate, and print the advice and a line for all that was tried."""
    if any(word.partition("=")[0] == "algorithm" for word in args.overrides):
        raise ConfigError("command line", ["algorithm: use --algorithms NAME ..."])
    with importing_torch():
        from mpi_dcasgd.runs.advise import advise

    advice = advise(
        args.job,
        cluster=args.cluster,
        workers=args.workers,
        algorithms=args.algorithms,
        seeds=args.seeds,
        target=args.target,
        minutes=args.minutes,
        out=args.out,
        show=sys.stderr if args.json else sys.stdout,
        words=args.overrides,
    )
    if advice.ranking is None:
        print("stopped before one seed was done: no advice", file=sys.stderr)
    else:
        print(_as_json(advice, advice.ranking) if args.json else _as_text(advice, advice.ranking))
    return 128 + advice.stopped_by if advice.stopped_by else 0


def _as_text(advice: Advice, ranking: Ranking) -> str:
    primary = ranking.measures.primary
    goal = ranking.measures.shown(primary, ranking.target)
    title = ranking.measures.title(primary)
    head = (
        f"  {'algorithm':<18}{'workers':>8}{f's to {goal}':>16}{'least to most':>20}"
        f"{'x one worker':>14}{f'{title} at end':>18}{'staleness':>11}"
    )
    rows = [_line(row, ranking) for row in (ranking.one, *ranking.rows)]
    return "\n".join(["", *ranking.sentences, "", head, *rows, *advice.notes])


def _line(row: Row, ranking: Ranking) -> str:
    reached = [time_s for time_s in row.times_s if time_s < math.inf]
    whole = len(reached) == len(row.times_s)
    time = (
        f"{row.time_s:.4g}" if whole else f"{len(reached)} of {counted(len(row.times_s), 'seed')}"
    )
    spread = f"{min(reached):.4g} to {max(reached):.4g}" if reached else "-"
    sooner = ranking.one.time_s / row.time_s if whole else math.nan
    ratio = f"{sooner:.2f}" if math.isfinite(sooner) else "-"
    measures = ranking.measures
    last = measures.shown(measures.primary, row.last).removesuffix(" %")
    stale = "-" if row.staleness is None else f"{row.staleness:.1f}"
    mark = "*" if row is ranking.take else " "
    return (
        f"{mark} {row.tried.algorithm:<18}{row.tried.workers:8d}{time:>16}{spread:>20}"
        f"{ratio:>14}{last:>18}{stale:>11}"
    )


def _as_json(advice: Advice, ranking: Ranking) -> str:
    def plain(row: Row) -> dict[str, object]:
        return {
            "algorithm": row.tried.algorithm,
            "workers": row.tried.workers,
            "time_s": row.time_s if math.isfinite(row.time_s) else None,
            "times_s": [t if math.isfinite(t) else None for t in row.times_s],
            "last": row.last if math.isfinite(row.last) else None,
            "staleness": row.staleness,
        }

    take = ranking.take
    values = {
        "take": None if take is None else plain(take),
        "advice": list(ranking.sentences),
        "metric": ranking.measures.primary,
        "target": ranking.target if math.isfinite(ranking.target) else None,
        "seeds": list(advice.seeds),
        "one_worker": plain(ranking.one),
        "tried": [plain(row) for row in ranking.rows],
        "notes": list(advice.notes),
    }
    return json.dumps(values, indent=2)

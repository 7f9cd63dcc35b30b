"""``mpi-dcasgd plan``: how many workers and servers pay on a cluster that is only described."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from mpi_dcasgd.cli.arguments import add_overrides, count, finite

if TYPE_CHECKING:
    from mpi_dcasgd.runs.scaling import Scaling, ScalingRow

HELP = "plan workers and servers for a model of any size, beside an allreduce"

_HEAD = f"""\
{"":>8}{"gradients/s":>24}{"servers":>24}{"":>10}{"sync":>12}{"async over sync":>18}
{"workers":>8}{"at most":>12}{"one server":>12}{"needed":>8}{"GiB each":>10}{"async":>12}\
{"staleness":>10}{"/s":>10}{"equal":>9}{"one slow":>9}"""
_GIB = 1 << 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "--params",
        type=_size,
        required=True,
        metavar="N",
        help="parameters of the model, such as 25.6e6",
    )
    add_overrides(parser)
    parser.add_argument(
        "--workers",
        type=count,
        nargs="+",
        default=[16, 64, 256, 1024, 4096],
        metavar="N",
        help="a line each (default: 16 64 256 1024 4096)",
    )
    parser.add_argument(
        "--step-s",
        type=_positive,
        metavar="S",
        help="mean seconds of a worker's step (default: 0.2)",
    )
    parser.add_argument(
        "--gbit",
        type=_positive,
        metavar="G",
        help="Gbit/s of each worker's and each server's link (default: 25)",
    )
    parser.add_argument(
        "--servers", type=count, metavar="K", help="so many (default: as many as it takes)"
    )
    parser.add_argument(
        "--server-gib",
        type=_positive,
        metavar="M",
        help="GiB that each server has for vectors (default: as much as it takes)",
    )
    parser.add_argument(
        "--slow",
        type=_positive,
        default=4.0,
        metavar="X",
        help="one slow worker's steps take so many times as long, in the last column (default: 4)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the delays")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print a line for each number of workers as soon as it is known."""
    from mpi_dcasgd.runs.scaling import plan_scaling

    shown: list[ScalingRow] = []

    def show(row: ScalingRow) -> None:
        if not shown:
            print(_HEAD)
        shown.append(row)
        print(_line(row), flush=True)

    plan = plan_scaling(
        args.params,
        args.workers,
        step_s=args.step_s,
        gbit=args.gbit,
        servers=args.servers,
        server_gib=args.server_gib,
        slow=args.slow,
        seed=args.seed,
        words=args.overrides,
        **({} if args.json else {"show": show}),
    )
    print(_as_json(plan) if args.json else _foot(plan))
    return 0


def _line(row: ScalingRow) -> str:
    servers = f"{row.servers}{'' if row.enough else '!'}"
    return (
        f"{row.workers:8d}{row.ideal_per_s:12,.0f}{row.one_server_per_s:12,.1f}{servers:>8}"
        f"{row.server_bytes / _GIB:10,.1f}{row.async_per_s:12,.1f}{row.staleness:10,.0f}"
        f"{row.sync_per_s:10,.1f}{row.pays:9.2f}{row.pays_slow:9.2f}"
    )


def _foot(plan: Scaling) -> str:
    network, server, exchange = plan.cluster.network, plan.cluster.server, plan.cluster.exchange
    size = plan.vector_bytes
    lines = [
        f"\n{plan.params:,} parameters, {size / 1e6:,.4g} MB; a push takes one server "
        f"{1e3 * server.push_s(size):.3g} ms and its link {_link_ms(plan)} each way; latency "
        f"{1e6 * network.latency_s:.3g} us; steps of {float(plan.cluster.delays.mean_s):g} s, "
        f"{network.hidden_s:g} s of an allreduce hidden.",
        _verdict(plan),
    ]
    if exchange.element_bytes != 4 or exchange.chunk_bytes is not None:
        lines[0] += f" Messages: {exchange.element_bytes} bytes an element" + (
            "." if exchange.chunk_bytes is None else f", chunks of {exchange.chunk_bytes:,} bytes."
        )
    if any(not row.enough for row in plan.rows):
        lines.append(
            f"! No number of servers is enough: each takes {1e6 * server.service_s:.3g} us a push, "
            "whatever its size. Longer steps (a larger batch_size) ask for fewer pushes."
        )
    lines.append(
        "Gradients a second say nothing of what is learnt: `mpi-dcasgd stability` tells the rate "
        "that such a staleness allows, `advise` trains in the simulator."
    )
    return "\n".join(lines)


def _link_ms(plan: Scaling) -> str:
    link = plan.cluster.network.server_bytes_per_s
    wire = plan.cluster.exchange.wire_bytes(plan.vector_bytes)
    return "no time" if link is None else f"{1e3 * wire / link:.3g} ms"


def _verdict(plan: Scaling) -> str:
    said = []
    for kind, pays in (
        ("equal workers", [row.pays for row in plan.rows]),
        (f"one worker {plan.slow:g} times as slow", [row.pays_slow for row in plan.rows]),
    ):
        losing = [row.workers for row, ratio in zip(plan.rows, pays, strict=True) if ratio < 1]
        if not losing:
            said.append(f"with {kind} at every size")
        elif len(losing) == len(pays):
            said.append(f"with {kind} at none")
        else:
            said.append(f"with {kind} not at {', '.join(f'{number:,}' for number in losing)}")
    return f"Asynchronous training makes more gradients a second {'; '.join(said)}."


def _as_json(plan: Scaling) -> str:
    rows = [{**asdict(row), "pays": row.pays, "pays_slow": row.pays_slow} for row in plan.rows]
    return json.dumps(
        {
            "params": plan.params,
            "vector_bytes": plan.vector_bytes,
            "delays": asdict(plan.cluster.delays),
            "network": asdict(plan.cluster.network),
            "server": asdict(plan.cluster.server),
            "exchange": asdict(plan.cluster.exchange),
            "step_s": float(plan.cluster.delays.mean_s),
            "slow": plan.slow,
            "rows": rows,
        },
        indent=2,
    )


def _size(text: str) -> int:
    """A whole number of parameters, which may be written as ``25.6e6``."""
    value = finite(text)
    if value < 1 or value != int(value):
        raise argparse.ArgumentTypeError(f"got {text}; allowed: a whole number >= 1, as in 25.6e6")
    return int(value)


def _positive(text: str) -> float:
    value = finite(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"got {text}; allowed: a number > 0")
    return value

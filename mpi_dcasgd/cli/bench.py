"""``mpi-dcasgd bench``: the package's own speed."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from mpi_dcasgd.cli.arguments import count
from mpi_dcasgd.cli.bench_prediction import TEXT, add_prediction
from mpi_dcasgd.cli.bench_worlds import add_worlds, show, tell
from mpi_dcasgd.errors import ConfigError, did_you_mean

HELP = "measure the speed of the package itself"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    what = parser.add_subparsers(metavar="WHAT", required=True)
    for name, text in (("simulator", "the simulator against a plain training loop"),):
        each = what.add_parser(name, help=text, description=text.capitalize() + ".")
        each.add_argument("--json", action="store_true", help="print JSON")
        each.set_defaults(measure=_simulator)
    add_worlds(what)
    add_prediction(what.add_parser("prediction", help=TEXT, description=TEXT.capitalize() + "."))
    text = "the update rules against a triad: compiled, in blocks and plainly"
    _add_bench_update(what.add_parser("update", help=text, description=text.capitalize() + "."))
    text = "numbers in 16 bits: what converting takes, and below which bandwidth that pays"
    _add_bench_wire(what.add_parser("wire", help=text, description=text.capitalize() + "."))
    text = "the records of a run: what each push costs the server"
    _add_bench_recording(
        what.add_parser("recording", help=text, description=text.capitalize() + ".")
    )


def _add_bench_recording(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--pushes",
        type=count,
        default=200_000,
        metavar="N",
        help="pushes of a sample (default: 200000)",
    )
    parser.add_argument(
        "--rounds", type=count, default=7, metavar="N", help="samples of each (default: 7)"
    )
    parser.set_defaults(measure=_recording)


def _add_bench_wire(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--params",
        type=count,
        nargs="+",
        metavar="N",
        help="lengths of the vectors (default: 270000 25600000)",
    )
    parser.add_argument(
        "--rounds", type=count, default=11, metavar="N", help="samples of each (default: 11)"
    )
    parser.set_defaults(measure=_wire)


def _add_bench_update(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--rules", nargs="+", metavar="RULE", help="rules to measure (default: all)"
    )
    parser.add_argument(
        "--params",
        type=count,
        nargs="+",
        metavar="N",
        help="lengths of the vectors (default: 270000 11000000 25600000)",
    )
    parser.add_argument(
        "--repeats", type=count, default=11, metavar="N", help="samples of each case (default: 11)"
    )
    parser.add_argument(
        "--threads",
        type=count,
        default=1,
        metavar="N",
        help="PyTorch threads (default: 1, as the server has)",
    )
    parser.add_argument(
        "--groups",
        type=count,
        default=1,
        metavar="N",
        help="measure each rule in N parameter groups, too (default: 1, only without groups)",
    )
    parser.set_defaults(measure=_update)


def run(args: argparse.Namespace) -> int:
    """Measure what was asked for."""
    status: int = args.measure(args)
    return status


def _wire(args: argparse.Namespace) -> int:
    """The command: convert vectors as workers and server do."""
    import torch

    from mpi_dcasgd.tools.bench.wire import SIZES, as_table, measure

    torch.set_num_threads(1)
    found = measure(args.params or SIZES, args.rounds)
    show(args, [one.entry() for one in found], as_table(found))
    return 0


def _recording(args: argparse.Namespace) -> int:
    """The command: record pushes as a server does."""
    from mpi_dcasgd.tools.bench.recording import as_table, measure

    costs = measure(args.pushes, args.rounds)
    show(args, [cost.entry() for cost in costs], as_table(costs))
    return 0


def _simulator(args: argparse.Namespace) -> int:
    """The simulator against a plain training loop, many seeds at once, its timing-only mode."""
    import torch

    from mpi_dcasgd.drivers.world import pick_device
    from mpi_dcasgd.tools.bench.seeds import measure_seeds
    from mpi_dcasgd.tools.bench.simulator import (
        CIFAR_GRADIENTS,
        RUNS,
        measure_overhead,
        measure_timing,
    )

    torch.set_num_threads(1)
    device = pick_device("auto", 0)
    overheads = [
        measure_overhead(case, algorithm, fuse, 8, device) for case, algorithm, fuse in RUNS
    ]
    seeds = measure_seeds()
    timings = measure_timing()
    if args.json:
        found = {
            "device": str(device),
            "overhead": [{**asdict(o), "ratio": o.ratio._asdict()} for o in overheads],
            "seeds": asdict(seeds),
            "timing_only": [asdict(t) for t in timings],
        }
        print(json.dumps(found, indent=2))
        return 0
    print(f"On {device}, one thread: a gradient of the plain loop and of 8 simulated workers, and")
    print("their ratio, median (least to most) of so many rounds")
    for o in overheads:
        print(
            f"  {o.case:<30} {o.algorithm:<9} {o.kernel:<9} {1e3 * o.plain_s:9.3f} ms "
            f"{1e3 * o.simulated_s:9.3f} ms  x{o.ratio.median:.2f} "
            f"({o.ratio.least:.2f} to {o.ratio.most:.2f}) of {o.rounds}"
        )
    slowest = max(o.simulated_s for o in overheads if o.case.startswith("resnet20"))
    print(
        f"  160 epochs of CIFAR-10 with ResNet-20 at this speed: {_span(slowest * CIFAR_GRADIENTS)}"
    )
    print(
        f"gradients of {seeds.seeds} seeds of the digits' MLP, batch {seeds.batch_size}, together"
    )
    print(
        f"  one after the other {1e3 * seeds.apart_s:.3f} ms, vmap {1e3 * seeds.vmap_s:.3f} ms, "
        f"batched matrices {1e3 * seeds.matrices_s:.3f} ms"
    )
    print("timing only")
    for t in timings:
        print(f"  {t.case:<12} {t.workers} workers, {t.updates} updates: {t.wall_s:.1f} s")
    return 0


def _span(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _update(args: argparse.Namespace) -> int:
    """The command: measure the update rules against a triad."""
    import torch

    from mpi_dcasgd.tools.bench.show import as_json, as_table, machine
    from mpi_dcasgd.tools.bench.update import SIZES, built_in_rules, measure

    rules = built_in_rules()
    chosen = {name: rules[name] for name in args.rules or rules if name in rules}
    unknown = [name for name in args.rules or () if name not in rules]
    if unknown:
        allowed = ", ".join(rules)
        raise ConfigError(
            "command line",
            [f"--rules {n}: unknown{did_you_mean(n, rules)} (allowed: {allowed})" for n in unknown],
        )
    torch.set_num_threads(args.threads)
    sizes = tuple(args.params or SIZES)
    measured = list(measure(chosen, sizes, args.repeats, tell, args.groups))
    shown = as_json if args.json else as_table
    print(shown(machine(args.repeats), measured))
    return 0

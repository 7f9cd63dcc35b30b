"""``mpi-dcasgd bench``: the package's own speed."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

import torch


def simulator(args: argparse.Namespace) -> int:
    """The simulator against a plain training loop, many seeds at once, its timing-only mode."""
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

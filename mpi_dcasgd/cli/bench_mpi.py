"""``mpi-dcasgd bench mpi``: what the parameter server sustains over this MPI."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from mpi_dcasgd.config.check import unknown_algorithm
from mpi_dcasgd.errors import ConfigError, LaunchError
from mpi_dcasgd.rules.algorithms import ALGORITHMS
from mpi_dcasgd.tools.bench.show import machine
from mpi_dcasgd.tools.launch import plan

_PARAMS = (270_000, 11_000_000, 25_600_000)
_RAW = "raw MPI"


def mpi(args: argparse.Namespace) -> int:
    """The command: one world for each number of workers.

    Raises:
        ConfigError: A rule that is not asynchronous, or unknown.
        LaunchError: There is no mpirun, or the world failed.
    """
    _check(args.rules)
    spec = {"params": args.params or _PARAMS, "rules": args.rules, "rounds": args.rounds}
    results: list[dict[str, Any]] = []
    for workers in args.workers:
        results += _world(workers, spec, args)
    if args.json:
        print(json.dumps({"machine": machine(args.rounds), "results": results}, indent=2))
    else:
        print(_table(results, args.rules, args.rounds))
    return 0


def _check(rules: Sequence[str]) -> None:
    problems = []
    for name in rules:
        if name not in ALGORITHMS:
            problems.append(f"--rules: {unknown_algorithm(name)}")
        elif ALGORITHMS[name].mode != "asynchronous":
            problems.append(f"--rules {name}: has no server; choose an asynchronous algorithm")
    if problems:
        raise ConfigError("command line", problems)


def _world(workers: int, spec: dict[str, Any], args: argparse.Namespace) -> list[dict[str, Any]]:
    program = [sys.executable, "-m", "mpi_dcasgd.tools.bench.mpi_rank", json.dumps(spec)]
    extra = shlex.split(args.mpirun_args)
    command = plan(workers + 1, program, launcher=args.launcher, mpirun=args.mpirun, extra=extra)
    done = subprocess.run(
        command.argv,
        env={**os.environ, **command.env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("[{")]
    if done.returncode or not lines:
        raise LaunchError(f"{command}\nfailed with status {done.returncode}:\n{done.stderr}")
    found: list[dict[str, Any]] = json.loads(lines[-1])
    return found


def _table(results: Sequence[dict[str, Any]], rules: Sequence[str], rounds: int) -> str:
    where = machine(rounds)
    heads = ["workers", "parameters", f"{_RAW} /s", *(f"{r} /s | of {_RAW}" for r in rules)]
    columns = 3 + 2 * len(rules)
    lines = [
        f"{where['cpu']}, {where['cpus']} CPUs, load {where['load'][0]} when done; pushes and "
        f"pulls a second, median of {rounds} rounds (least to most of the ratio within a round)",
        "",
        f"| {' | '.join(heads)} |",
        "|" + "---:|" * columns,
    ]
    for entry in results:
        raw = entry["per_s"][_RAW]
        cells = [str(entry["workers"]), f"{entry['params'] / 1e6:.2f} M", _rate(raw)]
        for rule in rules:
            rates = entry["per_s"][rule]
            shares = [rate / of for rate, of in zip(rates, raw, strict=True)]
            cells += [_rate(rates), _share(shares)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _rate(rates: Sequence[float]) -> str:
    return f"{statistics.median(rates):,.4g}"


def _share(shares: Sequence[float]) -> str:
    return f"{statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})"

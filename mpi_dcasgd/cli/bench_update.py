"""``mpi-dcasgd bench update``: how fast the update rules are."""

from __future__ import annotations

import argparse
import sys

import torch

from mpi_dcasgd.errors import ConfigError, did_you_mean
from mpi_dcasgd.tools.bench.show import as_json, as_table, machine
from mpi_dcasgd.tools.bench.update import SIZES, built_in_rules, measure


def update(args: argparse.Namespace) -> int:
    """The command: measure the update rules against a triad."""
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
    measured = list(measure(chosen, sizes, args.repeats, _tell))
    show = as_json if args.json else as_table
    print(show(machine(args.repeats), measured))
    return 0


def _tell(line: str) -> None:
    """Progress, for somebody who sits there: it takes minutes."""
    if sys.stderr.isatty():
        print(line, file=sys.stderr)

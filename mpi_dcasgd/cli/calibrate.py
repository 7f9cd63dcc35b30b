"""``mpi-dcasgd calibrate``: a cluster description for ``simulate``, from runs or this machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.quick import importing_torch

HELP = "describe a cluster from runs or from this machine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "sources",
        type=Path,
        nargs="+",
        metavar="SOURCE",
        help="a job file, to measure this machine with; or the folders of runs",
    )
    parser.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="file to write (default: the terminal)"
    )
    parser.add_argument(
        "--link",
        action="store_true",
        help="find the bandwidth of the links, which workers share at the server, in place of the "
        "time of a message; from one run",
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="key=value",
        help="change a setting of the job",
    )


def run(args: argparse.Namespace) -> int:
    """The command: write the description of a cluster to a file, or to the terminal."""
    with importing_torch():
        from mpi_dcasgd.runs.calibrate import calibrate

    folders = [path for path in args.sources if path.is_dir()]
    files = [path for path in args.sources if not path.is_dir()]
    if bool(folders) == bool(files) or len(files) > 1 or (folders and args.overrides):
        raise ConfigError(
            "command line",
            ["give the folders of one or more runs, or one job file and --set for changes to it"],
        )
    found = calibrate(files[0] if files else folders, words=args.overrides, link=args.link)
    if args.out is None:
        print(found.text, end="")
    else:
        found.write(args.out)
        print(_summary(found.cluster, args.out))
    return 0


def _summary(settings: dict[str, Any], out: Path) -> str:
    lists = settings["delays"]["steps_s"]
    network = settings["network"]
    if "latency_s" in network:
        message = f"message {1e3 * network['latency_s']:.3g} ms"
    else:
        message = f"links of {8e-6 * network['bytes_per_s']:.4g} Mbit/s"
    means = ", ".join(f"{1e3 * sum(steps) / len(steps):.3g}" for steps in lists)
    return (
        f"step {means} ms, {message}, "
        f"service {1e3 * settings['server']['service_s']:.3g} ms\n"
        f"cluster: {out} (simulate with cluster={out})"
    )

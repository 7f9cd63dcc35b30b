"""Command line of the studies: ``python -m mpi_dcasgd.tools.results run|build [NAME ...]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mpi_dcasgd.errors import DcasgdError, UserError
from mpi_dcasgd.tools.results.build import build, tables_of
from mpi_dcasgd.tools.results.kept import Kept
from mpi_dcasgd.tools.results.store import results_of, write_results
from mpi_dcasgd.tools.results.studies import STUDIES, study

_PAGES = Path("docs/results")
_RUNS = Path("runs/results")


def main(argv: Sequence[str] | None = None) -> int:
    """Run studies, or build their pages.

    Returns:
        The exit status: 2 for a user's mistake, 1 for a run that failed; both are told on stderr.
    """
    args = _parser().parse_args(argv)
    try:
        for name in args.names:
            study(name)
        for name in args.names or STUDIES:
            if args.action == "run":
                _run(name, args)
            else:
                _build(name, _PAGES if args.out is None else args.out)
    except DcasgdError as error:
        print(f"results: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    return 0


def _run(name: str, args: argparse.Namespace) -> None:
    runs = _RUNS / (f"{name}-short" if args.short else name) if args.runs is None else args.runs
    # A short form is for the reader's own eyes: it replaces no published number.
    out = (runs if args.short else _PAGES) if args.out is None else args.out
    print(f"{name}: runs are in {runs}", flush=True)
    rows = study(name).run(Kept(runs, sys.stdout), args.short)
    results = results_of(name, rows, short=args.short)
    write_results(results, out / f"{name}.json")
    for title, table in tables_of(results, study(name).page(rows)).items():
        print(f"\n{title}\n\n{table}")
    print()
    _build(name, out)


def _build(name: str, folder: Path) -> None:
    if folder == _PAGES and not (folder / f"{name}.json").exists():
        print(f"{name}: has no numbers yet")
        return
    for file in build(name, folder):
        print(file)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mpi_dcasgd.tools.results", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="run|build")
    run = actions.add_parser("run", help="make a study's runs and write its numbers and its page")
    run.add_argument("--short", action="store_true", help="a few minutes' form of it")
    run.add_argument(
        "--runs", type=Path, help=f"folder of its runs, which are resumed (default: {_RUNS}/NAME)"
    )
    built = actions.add_parser("build", help="build pages and plots from the numbers alone")
    for action in (run, built):
        action.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(STUDIES)}")
        action.add_argument(
            "--out", type=Path, help=f"folder of NAME.json and NAME.md (default: {_PAGES})"
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""Put small faults into the rules and the server, one at a time, and see whether a test notices.

    make mutants MUTANTS="server --sample 100"
    python -m tests.mutants rules.adam rules.dana

Prints every fault that no test noticed, with its place and the lines that it changes, and the share
that was noticed. CONTRIBUTING.md has the figures, and equivalent.py the faults that change nothing.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{_library}_NUM_THREADS"] = "1"  # a process with threads cannot be forked safely

from tests.mutants.equivalent import reason_for  # noqa: E402
from tests.mutants.mutations import Mutation, mutations_of  # noqa: E402
from tests.mutants.plan import REPOSITORY, TESTS, chosen, source_of  # noqa: E402
from tests.mutants.running import Trial, Verdict  # noqa: E402

Fault = tuple[str, Mutation]
T = TypeVar("T")


def main() -> int:
    """Run the command; 1 if a fault survived that is not known to change nothing."""
    arguments = _arguments()
    os.chdir(REPOSITORY)
    faults = _choose(chosen(arguments.modules), arguments.sample, arguments.seed)
    if arguments.list:
        for module, fault in faults:
            print(f"{_place(module, fault)}  {fault.name}")
        return 0
    _load()
    patience = _patience([*dict.fromkeys(module for module, _ in faults)], arguments.jobs)
    begun = time.monotonic()
    verdicts = _try_all(faults, patience, arguments.jobs)
    return _report(verdicts, time.monotonic() - begun)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("mutants", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("modules", nargs="*", help="beginnings of names: server, rules.adam")
    parser.add_argument("--sample", type=int, help="so many faults, drawn by the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--list", action="store_true", help="print the faults and try none")
    return parser.parse_args()


def _choose(modules: list[str], sample: int | None, seed: int) -> list[Fault]:
    faults = [
        (module, fault)
        for module in modules
        for fault in mutations_of(source_of(module).read_text())
        if not reason_for(module, fault)
    ]
    if sample is None or sample >= len(faults):
        return faults
    places = random.Random(seed).sample(range(len(faults)), sample)
    return [faults[place] for place in sorted(places)]


def _load() -> None:
    """Import what every process needs and no fault is put into."""
    for library in ("hypothesis", "numpy", "psutil", "pydantic", "pytest", "torch.fx"):
        importlib.import_module(library)
    assert not [name for name in sys.modules if name.split(".")[0] == "mpi_dcasgd"]


def _patience(modules: list[str], jobs: int) -> dict[str, float]:
    """Seconds that each file of tests may take: some times what it takes without a fault."""
    files = dict.fromkeys(file for module in modules for file in TESTS[module])
    any_module = modules[0]
    source = source_of(any_module).read_text()
    found: dict[str, float] = {}

    def keep(file: str, verdict: Verdict, trial: Trial) -> None:
        if verdict != "survived":
            raise SystemExit(f"mutants: {file} as it is was {verdict}:\n{trial.output()}")
        found[file] = 20 + 4 * trial.took_s

    _run([*files], lambda file: _trial(any_module, source, [(file, 600.0)]), keep, jobs)
    return found


def _trial(module: str, source: str, tests: list[tuple[str, float]]) -> Trial:
    return Trial(f"mpi_dcasgd.{module}", source_of(module), source, tests)


def _try_all(
    faults: list[Fault], patience: dict[str, float], jobs: int
) -> list[tuple[Fault, Verdict]]:
    verdicts: list[tuple[Fault, Verdict]] = []

    def begin(one: Fault) -> Trial:
        module, fault = one
        return _trial(module, fault.source, [(file, patience[file]) for file in TESTS[module]])

    def keep(one: Fault, verdict: Verdict, trial: Trial) -> None:
        verdicts.append((one, verdict))
        _tell(*one, verdict, len(verdicts), len(faults))

    _run(faults, begin, keep, jobs)
    return verdicts


def _run(
    tasks: Sequence[T],
    begin: Callable[[T], Trial],
    keep: Callable[[T, Verdict, Trial], None],
    jobs: int,
) -> None:
    """Run trials, so many at a time."""
    waiting, running = [*tasks][::-1], list[tuple[T, Trial]]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                task = waiting.pop()
                running.append((task, begin(task)))
            for task, trial in running[:]:
                if verdict := trial.verdict():
                    running.remove((task, trial))
                    keep(task, verdict, trial)
                    trial.remove()
            time.sleep(0.01)
    finally:
        for _, trial in running:
            trial.end()
            trial.remove()


def _place(module: str, fault: Mutation) -> str:
    return f"{source_of(module).relative_to(REPOSITORY)}:{fault.line}"


def _tell(module: str, fault: Mutation, verdict: str, number: int, of: int) -> None:
    if verdict == "survived":
        print(f"\n[{number}/{of}] {_place(module, fault)}: no test notices", flush=True)
        print(fault.diff(source_of(module).read_text()), flush=True)
    elif number % 50 == 0:
        print(f"[{number}/{of}]", flush=True)


def _report(verdicts: list[tuple[Fault, Verdict]], took: float) -> int:
    tried = Counter(module for (module, _), _ in verdicts)
    missed = Counter(module for (module, _), verdict in verdicts if verdict == "survived")
    print(f"\n{'module':24} {'faults':>7} {'noticed':>8}")
    for module, count in sorted(tried.items()):
        print(f"{module:24} {count:7} {count - missed[module]:8}")
    noticed = len(verdicts) - missed.total()
    slow = sum(verdict == "timed out" for _, verdict in verdicts)
    share = 100 * noticed / max(1, len(verdicts))
    print(
        f"{noticed} of {len(verdicts)} faults noticed ({share:.1f} %), {slow} of them by running "
        f"out of time; {took / 60:.1f} min"
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

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

for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{_library}_NUM_THREADS"] = "1"  # a process with threads cannot be forked safely

from tests.mutants.equivalent import reason_for  # noqa: E402
from tests.mutants.mutations import Mutation, mutations_of  # noqa: E402
from tests.mutants.plan import REPOSITORY, TESTS, chosen, source_of  # noqa: E402
from tests.mutants.running import Trial, Verdict  # noqa: E402

Fault = tuple[str, Mutation]


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
    patience = _patience({module for module, _ in faults})
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


def _patience(modules: set[str]) -> dict[str, float]:
    """Seconds that a file of each module's tests may take: some times what all take as they are."""
    took: dict[tuple[str, ...], float] = {}
    for module in sorted(modules):
        if TESTS[module] in took:
            continue
        trial = _begin(module, source_of(module).read_text(), 600)
        while not (verdict := trial.verdict()):
            time.sleep(0.02)
        output, took[TESTS[module]] = trial.output(), trial.took_s
        trial.remove()
        if verdict != "survived":
            raise SystemExit(f"mutants: the tests of {module} fail as it is:\n{output}")
    return {module: 20 + 2 * took[TESTS[module]] for module in modules}


def _begin(module: str, source: str, patience_s: float) -> Trial:
    return Trial(f"mpi_dcasgd.{module}", source_of(module), source, TESTS[module], patience_s)


def _try_all(
    faults: list[Fault], patience: dict[str, float], jobs: int
) -> list[tuple[Fault, Verdict]]:
    waiting, running = faults[::-1], list[tuple[Fault, Trial]]()
    verdicts: list[tuple[Fault, Verdict]] = []
    while waiting or running:
        while waiting and len(running) < jobs:
            module, fault = waiting.pop()
            running.append(((module, fault), _begin(module, fault.source, patience[module])))
        for one in running[:]:
            if verdict := one[1].verdict():
                running.remove(one)
                one[1].remove()
                verdicts.append((one[0], verdict))
                _tell(*one[0], verdict, len(verdicts), len(faults))
        time.sleep(0.01)
    return verdicts


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

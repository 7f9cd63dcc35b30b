"""Verdict on a run that was struck: what failed, how it ended, how soon that was told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpi_dcasgd.drivers.patience import LAST_ONES
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.stop_signals import signal_name
from mpi_dcasgd.tools.chaos.checks import Failure, whole_checkpoint
from mpi_dcasgd.tools.chaos.plan import ELSEWHERE, Plan
from mpi_dcasgd.tools.chaos.start import Start
from mpi_dcasgd.tools.chaos.strike import NAMED_WITHIN_S, Struck

_ENDS_MPIRUN = ("kill-mpirun", "stop-all")
"""Faults after which the launcher's exit status cannot be the run's."""

_UNTIMED = (ELSEWHERE, "full-disk")
"""Faults that are noticed when a timeout of the network's is over, or when the room that is left
is filled."""


@dataclass
class Verdict:
    """Verdict on a run.

    Attributes:
        plan: What was to happen to it.
        command: The command that repeats it.
        starts: Starts until it was complete.
        at_once: Whether the first one completed it.
        struck: Faults that were carried out, in words.
        failures: What must not be.
        named_s: Seconds until a fault was named, from the end of the patience where a rank hangs;
            one for each fault that had to be.
        seconds: From its first start to its last check.
        kept: Its folder, where that was kept.
    """

    plan: Plan
    command: str
    starts: int = 0
    at_once: bool = False
    struck: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    named_s: list[float] = field(default_factory=list)
    seconds: float = 0.0
    kept: Path | None = None

    def __str__(self) -> str:
        how = "completed at once" if self.at_once else f"completed with {self.starts} starts"
        if self.failures:
            how = "; ".join(map(str, self.failures))
        named = f", named after {max(self.named_s):.1f} s" if self.named_s else ""
        ft = ", fault-tolerant" if self.plan.fault_tolerant else ""
        missed = "" if self.struck else " (it was over before)"
        return f"run {self.plan.run}{ft}: {self.plan}{missed}: {how}{named} ({self.seconds:.0f} s)"

    def has(self, sort: str) -> bool:
        """Tell whether a failure of a sort was found."""
        return any(failure.sort == sort for failure in self.failures)

    def as_plain(self) -> dict[str, Any]:
        """The verdict as plain values, for JSON."""
        return {
            "run": self.plan.run,
            "kind": self.plan.kind,
            "faults": [str(fault) for fault in self.plan.faults],
            "fault_tolerant": self.plan.fault_tolerant,
            "struck": self.struck,
            "starts": self.starts,
            "completed_at_once": self.at_once,
            "failures": [{"sort": one.sort, "text": one.text} for one in self.failures],
            "named_s": [round(seconds, 3) for seconds in self.named_s],
            "seconds": round(self.seconds, 1),
            "command": self.command,
            "kept": None if self.kept is None else str(self.kept),
        }


def judge_start(
    verdict: Verdict, start: Start, folder: RunFolder, patience_s: float, total: int
) -> None:
    """Add to a verdict what one start shows.

    Args:
        verdict: Is added to.
        start: The start.
        folder: The run folder, as the start has left it.
        patience_s: Seconds after which the run gives up a rank that hangs.
        total: Tickets of the run.
    """
    fail = verdict.failures.append
    verdict.starts += 1
    verdict.struck += [f"start {verdict.starts}: {one.fault}" for one in start.struck]
    if start.hung:
        fail(Failure("hang", f"start {verdict.starts} was killed after {start.seconds:.0f} s"))
    if start.left:
        fail(Failure("left", f"processes outlived the launcher: {'; '.join(start.left)}"))
    if start.files:
        fail(Failure("files", f"start {verdict.starts} left {', '.join(start.files)}"))
    verdict.failures += _check_status(start, folder)
    for struck in start.struck:
        unheard = struck.named_s is None
        if struck.pattern and not (unheard and _unmissed(struck, start, patience_s, total)):
            _judge_naming(verdict, struck, patience_s)


def _unmissed(struck: Struck, start: Start, patience_s: float, total: int) -> bool:
    """Tell whether nobody need have told of a fault."""
    window_s = NAMED_WITHIN_S + _waited_s(struck, patience_s)
    others = [one.at_s for one in start.struck if one is not struck]
    if any(abs(at_s - struck.at_s) < window_s for at_s in others):
        return True  # the other one was in the way
    # Nobody misses a worker that had nothing left to do, or a disk that has held all there was.
    nothing_left = struck.pushes >= total * 0.97 or struck.fault.kind == "full-disk"
    return nothing_left and start.completed


def _check_status(start: Start, folder: RunFolder) -> list[Failure]:
    """Check that exit status, summary and checkpoint say the same of a start that ended."""
    if start.hung:
        return []
    kinds = [struck.fault.kind for struck in start.struck]
    told, status = start.told, start.status
    found = []
    if (status == 0) != (told == 0) and not any(kind in _ENDS_MPIRUN for kind in kinds):
        found.append(f"exit status {status}, but the summary {_summary_says(told)}")
    if told is not None and told > 128 and status is not None and status <= 128:
        found.append(f"exit status {status}, but the summary {_summary_says(told)}")
    if told is None and _asked_to_stop(start.struck):
        found.append(f"was asked to stop and ended with {status}, without a summary")
    if told is not None and told > 128 and whole_checkpoint(folder) is None:
        found.append("was stopped, and has no whole checkpoint")
    return [Failure("status", text) for text in found]


def _asked_to_stop(struck: Sequence[Struck]) -> bool:
    """Tell whether the only fault asked the run to stop while it trained."""
    return (
        len(struck) == 1
        and struck[0].fault.kind.startswith("stop")
        and bool(struck[0].victims)
        and struck[0].pushes > 0
    )


def _summary_says(told: int | None) -> str:
    if told is None:
        return "is missing"
    return {0: "says completed", 1: "says failed"}.get(told, f"tells of {signal_name(told - 128)}")


def _judge_naming(verdict: Verdict, struck: Struck, patience_s: float) -> None:
    fault = struck.fault
    if struck.named_s is None:
        verdict.failures.append(Failure("unnamed", f"nothing was said of {fault}"))
        return
    hangs = fault.kind.startswith("hang")
    after_s = max(0.0, struck.named_s - _waited_s(struck, patience_s))
    verdict.named_s.append(after_s)
    # What a rank is doing in the start-up has a patience of its own.
    untimed = fault.kind in _UNTIMED or (hangs and fault.moment.stage == "start")
    if after_s > NAMED_WITHIN_S and not untimed:
        beyond = " after the patience" if hangs else ""
        verdict.failures.append(Failure("unnamed", f"{fault} was named {after_s:.1f} s{beyond}"))


def _waited_s(struck: Struck, patience_s: float) -> float:
    """Return how long a run has to wait until it may name what struck it."""
    kinds = {"hang-worker": 1.0, "hang-server": LAST_ONES}  # nobody can take the server's place
    return kinds.get(struck.fault.kind, 0.0) * patience_s

"""Carry out a fault, and know it again in what a run says of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.tools.chaos import hosts
from mpi_dcasgd.tools.chaos.plan import Fault
from mpi_dcasgd.tools.chaos.processes import Process, Processes

NAMED_WITHIN_S = 2.0
"""Seconds within which a death, or the end of the patience with a rank, is to be told."""

_GONE = r"(died|dead|killed|signal|exited|hangs|lost|failed|is no more)"


def _rank_gone(fault: Fault) -> str:
    names = [rf"rank {fault.rank}\b"]
    names.append("the server" if fault.worker is None else rf"worker {fault.worker}\b")
    return rf"({'|'.join(names)}).{{0,200}}{_GONE}"


_NAMED: dict[str, Callable[[Fault], str]] = {
    "kill-worker": _rank_gone,
    "kill-server": _rank_gone,
    "kill-mpirun": lambda fault: rf"(mpirun|launcher|prterun)\b.{{0,200}}{_GONE}",
    "hang-worker": _rank_gone,
    "hang-server": _rank_gone,
    "full-disk": lambda fault: r"(too large|no space|cannot be written)",
    "cut-off": lambda fault: rf"\b(h\d|host|node|daemon|rank \d+)\b.{{0,300}}{_GONE}",
}
"""Kind to a pattern of what a run has to say of such a fault."""


@dataclass
class Struck:
    """A fault that was carried out.

    Attributes:
        fault: The fault.
        at_s: When, on the monotonic clock.
        heard: Length of the start's output at that moment.
        pushes: Pushes in the trace at that moment.
        ending: Whether the end of the run had begun: nobody need be told of anything.
        victims: Processes that were hit.
        paused: Those that are to go on, and when; empty once they have.
        named_s: Seconds until the run said so; None as long as it has not.
    """

    fault: Fault
    at_s: float
    heard: int
    pushes: int
    ending: bool
    victims: tuple[Process, ...] = ()
    paused: list[Process] = field(default_factory=list)
    goes_on_s: float = 0.0
    named_s: float | None = None

    @property
    def pattern(self) -> str:
        """The pattern by which the run names it; empty where it need not."""
        known = _NAMED.get(self.fault.kind)
        return known(self.fault) if known and not self.ending and self.victims else ""


class Striker:
    """Carries out faults on the processes of one start.

    Args:
        processes: Those of the run.
        folder: The run folder.
        patience_s: Seconds after which the run gives up a worker.
    """

    def __init__(self, processes: Processes, folder: RunFolder, patience_s: float) -> None:
        self._processes = processes
        self._folder = folder
        self._patience_s = patience_s

    def strike(self, struck: Struck) -> None:
        """Carry out a fault; what was done to whom is filled in."""
        fault = struck.fault
        ranks = self._processes.ranks()
        if fault.kind == "full-disk":
            size = self._longest() + fault.extra_bytes
            struck.victims = tuple(
                one for one in ranks.values() if self._processes.limit_files(one, size)
            )
            return
        chosen = self._victims(fault, ranks)
        struck.at_s = time.monotonic()  # to find them takes a while where there is much to do
        struck.victims = tuple(one for one in chosen if self._processes.send(one, fault.signum))
        if fault.kind.startswith("pause"):
            struck.paused = list(struck.victims)
            struck.goes_on_s = struck.at_s + fault.patience * self._patience_s

    def go_on(self, struck: Struck) -> None:
        """Let those go on whose pause is over."""
        if struck.paused and time.monotonic() >= struck.goes_on_s:
            for process in struck.paused:
                self._processes.send(process, signal.SIGCONT)
            struck.paused.clear()

    def _victims(self, fault: Fault, ranks: dict[int, Process]) -> Sequence[Process]:
        if fault.rank is not None:
            return [ranks[fault.rank]] if fault.rank in ranks else []
        if fault.kind == "stop-ranks":
            return list(ranks.values())
        everybody = self._processes.alive()
        if fault.kind == "cut-off":
            return [one for one in everybody if one.rank is None and _runs(one, hosts.MODULE)]
        launchers = {one.pid: one for one in everybody if one.rank is None and _runs(one, "run")}
        if fault.kind == "kill-mpirun":
            return [one for one in everybody if one.parent in launchers]
        if fault.kind == "stop-launcher":
            return list(launchers.values())
        # What makes the hosts is no part of the run.
        return [one for one in everybody if not {hosts.MODULE, "netns"} & {*one.words}]

    def _longest(self) -> int:
        """Bytes of the longest of the files that grow."""
        folder, sizes = self._folder, [0]
        for path in (folder.trace_bin, folder.metrics_jsonl, *folder.logs.glob("*.log")):
            with suppress(OSError):
                sizes.append(path.stat().st_size)
        return max(sizes)


def _runs(process: Process, what: str) -> bool:
    """Tell whether a process is Python with this module, or with this command of ours."""
    words = process.words[1:]
    return words[:2] == ("-m", what) or words[:3] == ("-m", "mpi_dcasgd", what)

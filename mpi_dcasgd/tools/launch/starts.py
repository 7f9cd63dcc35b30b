"""Start the world of a run, and start it again when something else than the job has ended it."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import IO, Protocol, Self

from mpi_dcasgd.errors import UserError
from mpi_dcasgd.record.restarts import write_restarts
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.tools.launch import world
from mpi_dcasgd.tools.launch.exit_status import RunEnd
from mpi_dcasgd.tools.launch.hosts import Without, is_one_of
from mpi_dcasgd.tools.launch.mpirun import MpirunCommand
from mpi_dcasgd.tools.launch.relay import Tail
from mpi_dcasgd.tools.launch.restarts import Ending, as_restart, hosts_of, pause_s, reason_to_stay
from mpi_dcasgd.tools.launch.steering import handling
from mpi_dcasgd.wording import counted

_LOOK_S = 0.1


class Startable(Protocol):
    """A world that can be started."""

    @property
    def sequential(self) -> bool:
        """True if the run is one process, which needs no launcher."""

    @property
    def begins_anew(self) -> bool:
        """True if the run does not go on from what its folder holds."""

    @property
    def ranks(self) -> int:
        """Processes."""

    def command(self, run_dir: Path | None = None, without: Without | None = None) -> MpirunCommand:
        """Return the command that starts it; a UserError says why there is none."""

    def again(self, ranks: int, *, resumes: bool) -> Self:
        """Return what starts it again with so many ranks; a UserError says why it cannot be.

        Args:
            ranks: Those that are left.
            resumes: There is a checkpoint of this run to resume from.
        """


@dataclass(frozen=True)
class Launched:
    """End of a world: its exit status and its run.

    Attributes:
        status: The exit status.
        complaint: What is wrong with a success that the launcher reports, or an empty string.
        words: Last part of what the last start has printed, if that was kept.
        restarts: How often it was started again.
    """

    status: int
    complaint: str = ""
    words: str = ""
    restarts: int = 0


class Starts:
    """Starts of a run one after the other, until it has ended well or will not.

    Args:
        plan: The first one.
        run_dir: The run folder.
        allowed: How many more there may be.
        output: File that takes what the ranks print; None for where this process's output goes.
        tell: Shows a line for people; None for stderr.

    Attributes:
        told_to_stop: The signal that came meanwhile, if one did, though the run came to its end.
    """

    def __init__(
        self,
        plan: Startable,
        run_dir: Path,
        allowed: int,
        *,
        output: IO[bytes] | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self._plan = plan
        self._first = plan
        self._folder = RunFolder(run_dir)
        self._allowed = allowed
        self._stamps = {} if plan.begins_anew else self._folder.checkpoint_stamps()
        self._before = self._folder.checkpoint_stamps()
        self._notes = self._folder.restarts() if self._stamps else []
        self._lost: list[str] = []
        self._hosts: Sequence[str] = ()
        self._hostfile = Path()
        self._output = output
        self._tell = tell or _tell
        self.told_to_stop: int | None = None

    def until_the_end(self) -> Launched:
        """Start the world, and start it again as often as is allowed and makes sense."""
        before: Ending | None = None
        with handling(self._note_signal), TemporaryDirectory(prefix="mpi-dcasgd-") as scratch:
            self._hostfile = Path(scratch, "hosts")
            for number in count(1):
                launched, ending = self._start()
                launched = replace(launched, restarts=number - 1)
                if not self._allowed or launched.status == 0:
                    return launched
                why = reason_to_stay(ending, before)
                if not why and number > self._allowed:
                    why = f"that was the last of {self._allowed} (--restarts): {ending.cause}"
                try:
                    line = "" if why else self._prepare(ending, number)
                except UserError as error:
                    why = str(error)
                if why:
                    told = (launched.complaint, f"not started again: {why}")
                    self._tell("\n".join(filter(None, told)))
                    return replace(launched, complaint="")
                self._tell(f"restart {number} of {self._allowed} in {pause_s(number):g} s: {line}")
                if not self._pause(pause_s(number)):
                    return Launched(128 + (self.told_to_stop or 0))
                before = ending
        raise AssertionError  # not reached

    def _start(self) -> tuple[Launched, Ending]:
        """Start the world once; its end, for the caller and for the decision about another."""
        plan, run_dir = self._plan, self._folder.path
        end = RunEnd(run_dir)
        # Not kept for nothing: stderr goes through a pipe of ours for it.
        tail = Tail() if self._allowed and self._output is None else None
        without = self._without() if self._lost else None
        told = None if plan.sequential else run_dir
        command = plan.command(run_dir, without)
        if self._output is None:
            ended = world.run_world(command, run_dir=told, tail=tail)
        else:
            begin = Path(self._output.name).stat().st_size
            ended = world.run_world(command, run_dir=told, stdout=self._output, stderr=self._output)
            ended = replace(ended, words=_words(Path(self._output.name), begin))
        self.told_to_stop = self.told_to_stop or ended.asked_by
        # Open MPI 5.0.11 ends with 0 when it has lost a host, and at times after an abort.
        status = end.exit_status(ended.status) or end.status() or 0
        complaint = ""
        if status == 0 and not end.completed:
            status, reason = 1, end.reason
            complaint = (
                f"{run_dir} holds no finished run, although the launcher reports success"
                f"{f' ({reason})' if reason else ''}: see above, and {run_dir}/logs"
            )
        ending = Ending(
            status=status,
            world=ended,
            summary=end.summary,
            version=max(self._own_stamps(), default=None),
            reached=_size(self._folder.trace_bin) or _size(self._folder.metrics_jsonl),
            hosts=hosts_of(self._folder),
        )
        return Launched(status, complaint, ended.words), ending

    def _own_stamps(self) -> dict[int, int]:
        """Checkpoints that this run can go on from, not those that it was told to ignore."""
        found = self._folder.checkpoint_stamps()
        ignored = self._before.items() - self._stamps.items()
        return dict(found.items() - ignored)

    def _prepare(self, ending: Ending, number: int) -> str:
        """Plan the next start, write it down, and return it in words."""
        plan = self._plan
        ranks = plan.ranks
        # A start that has not come to writing down its hosts was on those that were left before.
        self._hosts = ending.hosts or self._hosts
        if new := [host for host in ending.lost if host not in self._lost]:
            self._lost += new
            self._hosts = [host for host in self._hosts if not is_one_of(host, self._lost)]
            ranks = len(self._hosts) or ranks
        self._plan = self._first.again(ranks, resumes=bool(self._own_stamps()))
        if not plan.sequential:
            self._plan.command(self._folder.path, self._without() if self._lost else None)
        restart = as_restart(number, self._allowed, ending, ranks, self._lost)
        self._notes.append(restart)
        try:
            write_restarts(self._folder.restarts_jsonl, self._notes)
        except OSError as error:
            self._tell(f"{self._folder.restarts_jsonl}: cannot be written: {error.strerror}")
        fewer = (
            f" with {counted(ranks, 'rank')} in place of {plan.ranks}"
            if ranks != plan.ranks
            else ""
        )
        without = f", without {', '.join(self._lost)}" if self._lost else ""
        return f"{restart.cause}; {restart.whence}{fewer}{without}"

    def _without(self) -> Without:
        return Without(tuple(self._lost), Counter(self._hosts), self._hostfile)

    def _note_signal(self, signum: int, frame: FrameType | None) -> None:
        self.told_to_stop = signum

    def _pause(self, seconds: float) -> bool:
        """Wait; return whether nobody has asked for a stop meanwhile."""
        deadline = time.monotonic() + seconds
        while self.told_to_stop is None and (left_s := deadline - time.monotonic()) > 0:
            time.sleep(min(left_s, _LOOK_S))
        return self.told_to_stop is None


def _words(output: Path, begin: int) -> str:
    """Return what a start has printed, without its command."""
    with output.open("rb") as file:
        file.seek(begin)
        return file.read().decode(errors="replace").partition("\n")[2]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)

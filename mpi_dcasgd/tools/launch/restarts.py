"""Decide whether a run that has ended early is started again, and with what."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mpi_dcasgd.errors import LaunchError, UserError
from mpi_dcasgd.record.restarts import Restart
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.stop_signals import signal_name
from mpi_dcasgd.tools.launch.failure_reason import last_words
from mpi_dcasgd.tools.launch.hosts import lost_hosts
from mpi_dcasgd.tools.launch.world import WorldEnd

LONGEST_PAUSE_S = 30.0
VARIABLE = "MPI_DCASGD_RESTARTS"

_KILLED = re.compile(r"process rank (\d+) with PID \d+ on node (\S+) exited on\s+signal (\d+)")


@dataclass(frozen=True)
class Ending:
    """An early end of a run, as its launcher and its folder tell it.

    Attributes:
        status: The exit status that the command would have.
        world: The launcher's end.
        summary: The summary that this start has written, or nothing.
        version: Version of the newest checkpoint that this run can resume from.
        reached: Bytes of its records, which grow with every push.
        hosts: The host of each rank, if it came to that.
    """

    status: int
    world: WorldEnd
    summary: Mapping[str, Any]
    version: int | None
    reached: int
    hosts: Sequence[str] = ()

    @property
    def lost(self) -> list[str]:
        """Hosts that do not answer any more."""
        return lost_hosts(self.world.words) or list(self.world.lost)

    @property
    def cause(self) -> str:
        """Cause of the run's end, in one line."""
        reason = str(self.summary.get("reason", ""))
        if self.lost:
            return f"lost host {', '.join(self.lost)}"
        if self.world.killed_by:
            return f"the launcher was killed by {signal_name(self.world.killed_by)}"
        if reason:
            return reason.partition("\n")[0]
        if killed := _KILLED.search(self.world.words):
            return f"rank {killed[1]} on {killed[2]} was killed by {signal_name(int(killed[3]))}"
        words = last_words(self.world.words).partition("\n")[0]
        return f"exit status {self.status} ({words})"

    @property
    def own_error(self) -> bool:
        """True if an exception has ended the run, and nothing from outside."""
        return not self.lost and not self.world.killed_by and "Error" in self.cause


def restarts_wanted(choice: int | None, env: Mapping[str, str] = os.environ) -> int:
    """Return how often a run may be started again: as was chosen, or as the variable says.

    Args:
        choice: That of the command line.
        env: The environment.

    Raises:
        LaunchError: The variable is no number.

    Example:
        >>> restarts_wanted(None, {"MPI_DCASGD_RESTARTS": "3"})
        3
    """
    if choice is not None:
        return choice
    text = env.get(VARIABLE, "") or "0"
    if not (text.isascii() and text.isdecimal()):
        raise LaunchError(f"{VARIABLE} is {text!r}; allowed: a whole number >= 0")
    return int(text)


def reason_to_stay(ending: Ending, before: Ending | None) -> str:
    """Return why a run is not to be started again, or nothing if it is.

    Args:
        ending: Its end.
        before: The end before it, if it was started again already.
    """
    if ending.world.asked_by:
        return "it was told to stop"
    if ending.status == UserError.exit_status:
        return "the same mistake would end it again (status 2)"
    # mpirun's own signals are no wish of anybody's: it ends its ranks when it has lost a host.
    outside = ending.lost or ending.world.killed_by
    reason = str(ending.summary.get("reason", ""))
    if not outside and reason.startswith("stopped "):
        return "it was told to stop"
    if reason.startswith("NonFiniteError"):
        return "training diverges, and would again"
    if before is None or ending.version != before.version:
        return ""
    same = ending.reached == before.reached and ending.lost == before.lost
    if same or (ending.own_error and ending.cause == before.cause):
        at = "its start" if ending.version is None else f"update {ending.version}"
        return f"it has failed twice after {at}, without a checkpoint in between: {ending.cause}"
    return ""


def pause_s(number: int) -> float:
    """Return the seconds before a restart: 1, 2, 4 and so on, 30 at most.

    Example:
        >>> [pause_s(number) for number in (1, 2, 3, 9)]
        [1.0, 2.0, 4.0, 30.0]
    """
    return min(2.0 ** (number - 1), LONGEST_PAUSE_S)


def hosts_of(folder: RunFolder) -> list[str]:
    """Return the host of each rank of a run's last start; empty if it did not come to that."""
    ranks = folder.environment().get("ranks")
    if not isinstance(ranks, list):
        return []
    return [str(rank.get("host", "")) for rank in ranks if isinstance(rank, dict)]


def as_restart(
    number: int, allowed: int, ending: Ending, ranks: int, left_out: Sequence[str]
) -> Restart:
    """Describe a restart, for the run folder."""
    return Restart(
        restart=number,
        allowed=allowed,
        at=datetime.now().astimezone().isoformat(timespec="seconds"),
        cause=ending.cause,
        version=ending.version,
        ranks=ranks,
        left_out=tuple(left_out),
    )

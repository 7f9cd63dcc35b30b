"""Watch over an evaluation that is waited for: each batch that it ends is a sign of life."""

from __future__ import annotations

import time
from collections.abc import Callable

from mpi_dcasgd.drivers.conductor import Conductor
from mpi_dcasgd.drivers.fault_settings import FaultSettings
from mpi_dcasgd.drivers.patience import LAST_ONES, Watch
from mpi_dcasgd.errors import RanksLostError


class EvaluationWatch:
    """Watch of whoever waits for an evaluation; time in which nobody waits does not count.

    Args:
        settings: The job's ``faults:`` section.
        where: Who evaluates, for people.
        save: Called before the error is raised.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        settings: FaultSettings,
        where: str,
        save: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watch = Watch(settings, 1, clock)
        self._where = where
        self._save = save
        self._watch.asked(0)

    def alive(self) -> None:
        """Note that a batch has ended, on any thread."""
        self._watch.heard(0)
        self._watch.asked(0)

    def look(self) -> None:
        """Let time pass for which an evaluation is waited for.

        Raises:
            RanksLostError: None of its batches has ended for too long.
        """
        self._watch.look()
        silent_s = self._watch.silent_s(0)
        if silent_s >= LAST_ONES * self._watch.patience_s(0):
            self._save()
            raise RanksLostError(
                f"the evaluation on {self._where} hangs: none of its batches has ended for "
                f"{silent_s:.1f} s",
                hung=True,
            )


def watch_evaluations(
    conductor: Conductor, settings: FaultSettings, where: str, answer: Callable[[], None]
) -> None:
    """Have a conductor that waits for an evaluation answer others, and not wait for ever.

    Args:
        conductor: Whose evaluations they are.
        settings: The job's ``faults:`` section.
        where: Who evaluates, for people.
        answer: Called many times a second.
    """
    watch = EvaluationWatch(settings, where, lambda: conductor.stopping(wait=True))

    def meanwhile() -> None:
        answer()
        watch.look()

    conductor.meanwhile = meanwhile
    conductor.while_evaluating(watch.alive)

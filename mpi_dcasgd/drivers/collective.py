"""Steps of start-up that block every rank until all have come: who does not come is named.

Horovod, NCCL and gloo begin with operations that wait for ever for a rank that hangs, and may crash
where one has died. So such a step runs on a thread of its own, and the thread that called it asks
and answers meanwhile: each rank tells rank 0 every few seconds that it is there, and rank 0 tells
all others. Who is silent hangs or has died; then all are told, and nobody waits for the step.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

from mpi_dcasgd.drivers.backoff import Backoff
from mpi_dcasgd.drivers.fault_settings import FaultSettings
from mpi_dcasgd.drivers.meeting import BEAT_S, Meeting
from mpi_dcasgd.drivers.patience import Watch
from mpi_dcasgd.errors import RanksLostError

T = TypeVar("T")

SILENT_S = 30.0
"""Seconds of silence after which a rank is held to hang: all that its thread does is to speak."""
_BEATS = 4.0
"""Words of a rank within that time, at least."""
_LAST_S = 1.0
"""Seconds for the last words to get away, which everybody waits for."""
_LONGEST_LOOK_S = 1.0  # what was longer, this process was suspended for
_APART_S = 1.0
"""Seconds from one rank that gives up rank 0 to the next, so that one of them speaks."""

_TO_SERVER, _TO_OTHERS = 23, 24  # tags
_WORKS, _DONE, _FAILED = range(3)  # what a rank says


def collectively(meeting: Meeting, step: Callable[[], T]) -> T:
    """Run a step that ends on a rank once all ranks have run it; every rank has to call this.

    Args:
        meeting: Of all ranks; ``meeting.doing`` says for people what the step is.
        step: The step on this rank, which runs on another thread. It must not use the meeting.

    Returns:
        The result of the step on this rank.

    Raises:
        RanksLostError: On all ranks that are left, if one died, hangs or failed, or if the step
            does not end though all ranks are there. The step may then be left at work.
    """
    found: list[T] = []
    _Collective(meeting, lambda: found.append(step())).run()
    return found[0]


class _Collective:
    """One step on one rank."""

    def __init__(self, meeting: Meeting, step: Callable[[], None]) -> None:
        self._meeting = meeting
        self._comm = meeting.comm
        self._step = step
        self._error: BaseException | None = None
        self._done = threading.Event()
        patience = meeting.patience_s
        self._silent_s = SILENT_S if patience == math.inf else min(SILENT_S, patience)
        self._beat_s = min(BEAT_S, self._silent_s / _BEATS)
        self._sent: list[Any] = []  # what is on its way

    def run(self) -> None:
        thread = threading.Thread(target=self._take, name="collective", daemon=True)
        thread.start()
        self._lead() if self._meeting.rank == 0 else self._follow()
        thread.join()
        deadline, backoff = time.monotonic() + _LAST_S, Backoff()
        while not all(request.Test() for request in self._sent) and time.monotonic() < deadline:
            backoff.pause()

    def _take(self) -> None:
        try:
            self._step()
        except BaseException as error:  # the thread that waits tells it
            self._error = error
        finally:
            self._done.set()

    def _word(self) -> tuple[int, str]:
        """Return how this rank's step stands: a code, and the text of an error."""
        if not self._done.is_set():
            return _WORKS, ""
        if self._error is not None:
            return _FAILED, f"{type(self._error).__name__}: {self._error}".rstrip(": ")
        return _DONE, ""

    def _lead(self) -> None:
        """Listen to all others on rank 0, and tell them how it ends."""
        meeting, others = self._meeting, set(range(1, self._meeting.size))
        watch, backoff = self._watch(meeting.size), Backoff()
        working, beat_at = set(others), 0.0
        waited_s, last = 0.0, time.monotonic()
        while working or self._word()[0] != _DONE:
            if self._word()[0] == _FAILED:
                self._lose(f"{meeting.name(0)}: {self._word()[1]}", others, self._error)
            for rank in list(working):
                for word, text in self._heard(rank, _TO_SERVER):
                    watch.asked(rank)
                    if word == _FAILED:
                        self._lose(f"{meeting.name(rank)}: {text}", others)
                    if word == _DONE:
                        watch.forget(rank)
                        working.discard(rank)
            if late := set(watch.look()) & working:
                names = ", ".join(meeting.name(rank) for rank in sorted(late))
                verb = "hangs" if len(late) == 1 else "hang"
                silent_s = watch.silent_s(min(late))
                self._lose(f"{names} {verb}{self._during}: silent for {silent_s:.1f} s", others)
            if time.monotonic() >= beat_at:
                self._tell(others, _WORKS, "")
                beat_at = time.monotonic() + self._beat_s
            now = time.monotonic()
            waited_s, last = waited_s + min(now - last, _LONGEST_LOOK_S), now
            if waited_s >= meeting.patience_s + self._silent_s:
                self._lose(self._stuck(working, waited_s), others)
            backoff.pause()
        self._tell(others, _DONE, "")

    def _follow(self) -> None:
        """Tell rank 0 that this rank is there, until it says how it ends."""
        meeting = self._meeting
        watch, backoff = self._watch(1), Backoff()
        said, beat_at = _WORKS, 0.0
        while True:
            word, text = self._word()
            if word != said or (word == _WORKS and time.monotonic() >= beat_at):
                self._say(0, (word, text), _TO_SERVER)
                said, beat_at = word, time.monotonic() + self._beat_s
            for told, reason in self._heard(0, _TO_OTHERS):
                watch.asked(0)
                if told == _DONE:
                    return
                if told == _FAILED:
                    raise RanksLostError(reason, told=True) from self._error
            watch.look()
            if watch.silent_s(0) >= watch.patience_s(0) + _APART_S * meeting.rank:
                silent_s = watch.silent_s(0)
                raise RanksLostError(
                    f"{meeting.name(0)} hangs{self._during}: silent for {silent_s:.1f} s", hung=True
                )
            backoff.pause()

    @property
    def _during(self) -> str:
        return f" during start-up, while {self._meeting.doing}"

    def _stuck(self, working: set[int], waited_s: float) -> str:
        meeting = self._meeting
        who = ", ".join(meeting.name(rank) for rank in sorted(working)) or meeting.name(0)
        return (
            f"all ranks are there, but {meeting.doing} has not ended on {who} after "
            f"{waited_s:.0f} s (faults.setup_patience); look at the network between "
            "the hosts"
        )

    def _watch(self, ranks: int) -> Watch:
        patience = self._meeting.patience_s
        settings = FaultSettings(patience="never" if patience == math.inf else self._silent_s)
        watch = Watch(settings, ranks)
        for rank in range(ranks):
            watch.asked(rank)
        return watch

    def _heard(self, rank: int, tag: int) -> list[Any]:
        found = []
        try:
            while self._comm.iprobe(source=rank, tag=tag):
                found.append(self._comm.recv(source=rank, tag=tag))
        except Exception as error:  # MPI's
            self._died(error)
        return found

    def _died(self, error: Exception) -> NoReturn:
        """Raise what an error of MPI means; on rank 0 all others are told."""
        text, dead = self._meeting.death(error)
        if self._meeting.rank == 0:
            self._tell(set(range(1, self._meeting.size)) - set(dead), _FAILED, text)
        first = min(set(range(self._meeting.size)) - set(dead))
        raise RanksLostError(text, told=self._meeting.rank != first) from None

    def _lose(self, text: str, others: set[int], cause: BaseException | None = None) -> NoReturn:
        self._tell(others, _FAILED, text)
        raise RanksLostError(text, hung=True) from cause

    def _tell(self, others: set[int], word: int, text: str) -> None:
        for rank in others:
            self._say(rank, (word, text), _TO_OTHERS)

    def _say(self, rank: int, words: Any, tag: int) -> None:
        with suppress(Exception):  # MPI's: it has died, which is noticed elsewhere
            self._sent = [request for request in self._sent if not request.Test()]
        with suppress(Exception):
            self._sent.append(self._comm.isend(words, rank, tag))

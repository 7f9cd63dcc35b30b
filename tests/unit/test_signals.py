"""Stopping on a signal: the first asks, the second does not wait."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpi_dcasgd.drivers.signals import (
    AGAIN_S,
    ASKED_VARIABLE,
    StopFlag,
    first_signal,
)
from mpi_dcasgd.stop_signals import SIGNALS


@pytest.fixture(autouse=True)
def handlers_as_they_were() -> Iterator[None]:
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("signum", ["INT", "TERM", "USR1", "USR2", "HUP", "XCPU"])
def test_a_signal_sets_the_flag_and_is_remembered(signum: str) -> None:
    number = signal.Signals[f"SIG{signum}"]
    signal.signal(number, signal.SIG_DFL)
    flag = StopFlag()
    with flag.listening():
        signal.raise_signal(number)
    assert flag
    assert flag.signum == number
    assert signal.getsignal(number) is signal.SIG_DFL


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    flag = StopFlag()
    with flag.listening():
        signal.raise_signal(signal.SIGHUP)
    assert not flag
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_an_interrupt_that_a_shell_has_ignored_is_heard() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    flag = StopFlag()
    with flag.listening():
        signal.raise_signal(signal.SIGINT)
    assert flag.signum == signal.SIGINT


def test_a_second_signal_does_what_it_did_before() -> None:
    clock, seen = Clock(), []
    flag = StopFlag(clock)
    signal.signal(signal.SIGUSR1, lambda signum, frame: seen.append(signum))
    with flag.listening():
        signal.raise_signal(signal.SIGTERM)
        clock.now += AGAIN_S / 2
        signal.raise_signal(signal.SIGUSR1)
        assert seen == [], "a launcher and a scheduler may both pass on the first one"
        clock.now += AGAIN_S
        signal.raise_signal(signal.SIGUSR1)
    assert seen == [signal.SIGUSR1]
    assert flag.signum == signal.SIGTERM


def test_a_second_interrupt_is_pythons_own() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    clock = Clock()
    flag = StopFlag(clock)
    with flag.listening():
        signal.raise_signal(signal.SIGINT)
        clock.now += 2 * AGAIN_S
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


OTHERS = """
import signal, time
from mpi_dcasgd.drivers import signals

class Flag(signals.StopFlag):
    def _on_signal(self, *args):
        "Leave everything to the thread."

signals.AGAIN_S = 0.0
flag = Flag()
flag.listen(insist=True)
signal.signal(signal.SIGUSR1, lambda *args: None)
signal.raise_signal(signal.SIGUSR1)
signal.raise_signal(signal.SIGUSR1)
signal.raise_signal(signal.SIGUSR2)  # comes after them
while not flag:
    time.sleep(0.01)
print(flag.signum)
"""


def test_signals_that_are_somebody_elses_by_now_end_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", OTHERS], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, str(int(signal.SIGUSR2))), done.stderr


STUCK = """
import ctypes, threading, time
from mpi_dcasgd.drivers import signals

signals.AGAIN_S = 0.0
flag = signals.StopFlag()
flag.listen(insist=True)

def tell():
    print("ready", flush=True)
    while not flag:
        time.sleep(0.01)
    print("asked", flush=True)

threading.Thread(target=tell, daemon=True).start()
libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
libc.pthread_mutex_lock(mutex)
libc.pthread_mutex_lock(mutex)  # for ever: Python's handlers have no turn
"""


def test_signals_reach_a_process_whose_main_thread_is_stuck_in_a_call() -> None:
    program = [sys.executable, "-c", STUCK]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == b"asked\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
        assert b"SIGTERM again: ending at once" in process.stderr.read()


def test_a_launchers_word_says_which_signal_was_passed_on_as_another(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    env = {ASKED_VARIABLE: str(asked)}
    assert first_signal(signal.SIGUSR1, env) == signal.SIGUSR1  # sent to this rank itself
    asked.write_text("15")
    assert first_signal(signal.SIGUSR1, env) == signal.SIGTERM
    assert first_signal(signal.SIGUSR2, env) == signal.SIGUSR2
    assert first_signal(signal.SIGUSR1, {}) == signal.SIGUSR1

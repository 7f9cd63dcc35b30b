"""Signals that stop a run, and how signals are told."""

from __future__ import annotations

import signal

SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGHUP,
    signal.SIGXCPU,
)
"""Signals that ask a run to stop with a checkpoint; whoever sends them means the ranks."""


def signal_name(number: int) -> str:
    """Return the name of a signal, or its number where it has none.

    Example:
        >>> signal_name(15), signal_name(63)
        ('SIGTERM', 'signal 63')
    """
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

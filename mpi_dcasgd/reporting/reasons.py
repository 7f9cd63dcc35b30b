"""Reasons for a verdict, from what was recorded: waiting, a busy server, samples lost to delay."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, geometric_mean

from mpi_dcasgd.reporting.groups import Group
from mpi_dcasgd.reporting.time_to_error import compare_rows, counterpart, is_synchronous
from mpi_dcasgd.reporting.verdict import Verdict, called
from mpi_dcasgd.reporting.workers import workers_of

_WAITING = 0.1
"""Share of its workers' time above which a synchronous row is said to wait."""
_BUSY = 0.2
"""Share of their time that asynchronous workers wait for a server that is said to be busy."""
_LOADED = 0.5
"""Share of its time from which a server that has written it down is busy."""
_UNEQUAL = 1.2
"""Slowest over fastest worker from which workers are said to be unequal."""
_SAMPLES = 0.05
"""Relative difference in samples that is worth a sentence."""
_KINDS = ("compute_s", "data_s", "wait_s", "comm_s")


def reasons(groups: Sequence[Group], verdict: Verdict) -> list[str]:
    """Say why the soonest asynchronous row is sooner, or later, than its synchronous counterpart.

    Args:
        groups: Rows whose seconds can be compared.
        verdict: By time.

    Returns:
        Sentences; none where there is no such pair, or nothing worth a sentence.
    """
    for ranked in verdict.ranked:
        group = ranked.group
        if group.sequential or is_synchronous(group):
            continue
        other = counterpart(group, groups)
        if other is not None:
            found = [_rates(group, other), _waits(other), _server(group)]
            return [sentence for sentence in found if sentence]
    return []


def _rates(group: Group, other: Group) -> str:
    compared = compare_rows(group, other)
    if compared is None:
        return ""
    samples = geometric_mean(ratio.samples for ratio in compared[1])
    speed = samples / geometric_mean(ratio.time for ratio in compared[1])
    text = (
        f"Why: {called(group)} got through {speed:.2f} times as many samples a second as"
        f" {called(other)}, and needed {samples:.2f} times as many"
    )
    if samples > 1 + _SAMPLES:
        return f"{text}: that is what staleness{_staleness(group)} cost."
    if samples < 1 - _SAMPLES:
        return f"{text}: fewer, in spite of staleness{_staleness(group)}{_more_updates(other)}."
    return f"{text}: staleness{_staleness(group)} cost next to nothing."


def _more_updates(other: Group) -> str:
    if not is_synchronous(other) or other.num_workers < 2:
        return ""
    return (
        f"; it makes an update of each minibatch, {called(other)} one of every {other.num_workers}"
    )


def _staleness(group: Group) -> str:
    stat = group.stat("staleness_mean")
    return "" if stat is None else f" ({stat.mean:.1f} updates on average)"


def _waits(group: Group) -> str:
    if group.sequential or (share := waiting_share(group)) is None or share < _WAITING:
        return ""
    text = f"The workers of {called(group)} waited {100 * share:.0f} % of their time"
    steps = [worker.step_ms for worker in workers_of(group)]
    if len(steps) > 1 and min(steps) > 0 and (times := max(steps) / min(steps)) >= _UNEQUAL:
        return f"{text} for the slowest, which takes {times:.1f} times as long as the fastest."
    return f"{text} for one another and for messages."


def _server(group: Group) -> str:
    share = waiting_share(group)
    if share is None or share < _BUSY:
        return ""
    text = f"The workers of {called(group)} waited {100 * share:.0f} % of their time for the server"
    busy = [run.server_busy for run in group.runs if run.server_busy is not None]
    if busy and fmean(busy) < _LOADED:
        return (
            f"{text}, which was busy for {100 * fmean(busy):.0f} % of it: the rest is messages, or"
            " ranks that share a processor."
        )
    return f"{text}: it is busy, and more workers would wait longer."


def waiting_share(group: Group) -> float | None:
    """Share of the workers' time that went by in waiting and messages; None if not recorded."""
    shares = []
    for run in group.runs:
        spent = [sum(float(w.get(kind) or 0.0) for w in run.workers) for kind in _KINDS]
        if sum(spent) > 0:
            shares.append((spent[2] + spent[3]) / sum(spent))
    return fmean(shares) if shares else None

"""Timeline of a run: who computed, waited, sent and applied when, from the trace and step times.

The trace has the moment at which the server had dealt with each push, on the server's clock. What
a worker did before it is known as durations; they are laid out backwards and forwards from these
moments, so that the clocks of hosts need not agree. A push cannot end after the server began to
apply it, nor can its reply arrive before the server sent it: between these two bounds the chain of
a worker's own durations decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mpi_dcasgd.record.trace import Trace
from mpi_dcasgd.server.records import Action

KINDS = ("compute", "data", "wait", "push", "reply", "apply", "step")
"""Kinds of slices. ``push`` and ``reply`` lie within a ``wait``; ``step`` is a whole cycle of a
worker of which nothing but its end is known."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Slice:
    """One thing that one rank did.

    Attributes:
        worker: Who; -1 for the server.
        kind: One of ``KINDS``.
        start_s, end_s: Seconds since training began.
        push: Place of the push in the trace.
    """

    worker: int
    kind: str
    start_s: float
    end_s: float
    push: int


@dataclass(frozen=True)
class Timeline:
    """Activities of each rank.

    Attributes:
        name: Of the run.
        trace: Every push.
        num_workers: The most that there were.
        slices: In the order of pushes.
        detailed: Whether the times within a step are known, and not only its end.
        span: Seconds from and to, as asked for.
    """

    name: str
    trace: Trace
    num_workers: int
    slices: Sequence[Slice]
    detailed: bool
    span: tuple[float, float]


SERVER = -1
_NEARBY = 16
_STEPS = 8


def timeline_of(
    name: str,
    trace: Trace,
    steps: NDArray[np.float32] | None,
    start_s: float = 0.0,
    end_s: float = float("inf"),
) -> Timeline:
    """Lay out a run's time.

    Args:
        name: Of the run.
        trace: Every push.
        steps: Where the time of each push went (``record.steps``), if that is known.
        start_s: Leave out what ends before.
        end_s: Leave out what begins after.
    """
    times = trace.time_us / 1e6
    known = steps is not None and bool(np.isfinite(steps).all(axis=1).any())
    columns = steps.astype(np.float64) if steps is not None and known else None
    slices: list[Slice] = []
    bounds = [0, *(restart.records for restart in trace.restarts), len(trace)]
    for first, last in pairwise(bounds):
        begun_s = float(times[first - 1]) if first else 0.0
        for worker, pushes in _by_worker(trace.worker[first:last]):
            near = _near(first + pushes, times, start_s, end_s)
            slices += _of_worker(worker, near, times, columns, begun_s, (start_s, end_s))
    slices = _one_by_one(slices)
    slices = [one for one in slices if one.end_s >= start_s and one.start_s <= end_s]
    slices.sort(key=lambda one: (one.push, one.worker, one.start_s, -one.end_s))
    workers = int(trace.worker.max(initial=-1)) + 1
    workers = max(workers, int(trace.meta.get("num_workers", 0)))
    latest = float(times[-1]) if len(times) else 0.0
    return Timeline(name, trace, workers, slices, known, (start_s, min(end_s, latest)))


def usual_span(trace: Trace) -> tuple[float, float]:
    """Return the seconds in which a usual worker makes eight steps, in the middle of a run."""
    latest = float(trace.time_us[-1]) / 1e6 if len(trace) else 0.0
    workers = max(1, len(np.unique(trace.worker)))
    width = min(latest, _STEPS * workers * latest / max(1, len(trace)))
    return (latest - width) / 2, (latest + width) / 2


@dataclass(frozen=True, slots=True)
class WorkerShare:
    """One worker in the span of a timeline.

    Attributes:
        worker: Who.
        pushes: Those whose gradients it computed in the span.
        staleness_mean, staleness_max: Of these, in updates.
        step_s: Mean seconds of computing and loading data; None if that is not known.
        waited: Share of its time that it waited; None likewise.
    """

    worker: int
    pushes: int
    staleness_mean: float
    staleness_max: int
    step_s: float | None
    waited: float | None


def shares(timeline: Timeline) -> list[WorkerShare]:
    """Sum each worker up: how stale its gradients were, and where its time went."""
    spent: dict[int, dict[str, float]] = {}
    pushes: dict[int, list[int]] = {}
    for one in timeline.slices:
        if one.worker == SERVER:
            continue
        kinds = spent.setdefault(one.worker, dict.fromkeys(KINDS, 0.0))
        kinds[one.kind] += one.end_s - one.start_s
        if one.kind in ("compute", "step"):
            pushes.setdefault(one.worker, []).append(one.push)
    found = []
    for worker, mine in sorted(pushes.items()):
        staleness = timeline.trace.staleness[mine]
        kinds = spent[worker]
        busy_s = kinds["compute"] + kinds["data"]
        everything = busy_s + kinds["wait"]
        known = timeline.detailed and everything > 0
        found.append(
            WorkerShare(
                worker,
                len(mine),
                float(staleness.mean()),
                int(staleness.max()),
                busy_s / len(mine) if known else None,
                kinds["wait"] / everything if known else None,
            )
        )
    return found


def _by_worker(workers: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Each worker, and the places of its pushes."""
    order = np.argsort(workers, kind="stable")
    found, begins = np.unique(workers[order], return_index=True)
    yield from zip(found.tolist(), np.split(order, begins[1:]), strict=True)


def _near(
    pushes: NDArray[np.int64], times: Floats, start_s: float, end_s: float
) -> NDArray[np.int64]:
    """The pushes of a worker that bear on a span: long runs have very many others.

    Twice as many on either side as tell where the worker's clock lies; of those that are left, the
    outer ones lie outside of the span, so that it does not matter that they are placed with less.
    """
    ends = times[pushes]
    first = int(np.searchsorted(ends, start_s)) - 2 * _NEARBY
    last = int(np.searchsorted(ends, end_s, side="right")) + 2 * _NEARBY
    return pushes[max(0, first) : last]


def _one_by_one(slices: Sequence[Slice]) -> list[Slice]:
    """Let the server apply a push when it has applied the one before, however both were rounded."""
    found = [one for one in slices if one.worker != SERVER]
    free_s = -math.inf
    for one in sorted((one for one in slices if one.worker == SERVER), key=lambda one: one.push):
        start_s = min(max(one.start_s, free_s), one.end_s)
        found.append(replace(one, start_s=start_s))
        free_s = one.end_s
    return found


def _of_worker(
    worker: int,
    pushes: NDArray[np.int64],
    times: Floats,
    steps: Floats | None,
    begun_s: float,
    span: tuple[float, float],
) -> list[Slice]:
    """The slices of one worker in a span, and of the server on its behalf."""
    ends = times[pushes]
    found: list[Slice] = []
    if steps is None:
        starts = np.concatenate(([begun_s], ends[:-1]))
        for push, start, end in zip(pushes.tolist(), starts.tolist(), ends.tolist(), strict=True):
            found.append(Slice(worker, "step", start, end, push))
        return found
    mine = np.nan_to_num(steps[pushes])
    sent = _sent(ends, mine, begun_s)
    first = int(np.searchsorted(ends, span[0]))
    last = int(np.searchsorted(sent, span[1], side="right")) + 1
    before = (float(sent[first - 1]), float(ends[first - 1])) if first else None
    shown = (each[first:last].tolist() for each in (pushes, ends, sent, mine))
    rows = zip(*shown, strict=True)
    for push, end, sent_s, (wait_s, data_s, compute_s, apply_s) in rows:
        # Nothing of a step lies before the end of the step before.
        free_s = begun_s if before is None else before[0]
        compute_from = max(free_s, sent_s - compute_s)
        data_from = max(free_s, compute_from - data_s)
        waited_from = max(free_s, data_from - wait_s) if before is None else free_s
        if waited_from < data_from:
            found.append(Slice(worker, "wait", waited_from, data_from, push))
        if before is not None and before[1] < data_from:
            found.append(Slice(worker, "reply", before[1], data_from, push))
        if data_from < compute_from:
            found.append(Slice(worker, "data", data_from, compute_from, push))
        found.append(Slice(worker, "compute", compute_from, sent_s, push))
        if sent_s < end - apply_s:
            found.append(Slice(worker, "push", sent_s, end - apply_s, push))
        found.append(Slice(SERVER, "apply", end - apply_s, end, push))
        before = (sent_s, end)
    return found


def _sent(ends: Floats, steps: Floats, begun_s: float) -> Floats:
    """The moment at which each push left the worker, on the server's clock."""
    wait_s, data_s, compute_s, apply_s = steps.T
    # Rounded to microseconds, one may begin to be applied before the last one has been.
    latest: Floats = np.minimum.accumulate((ends - apply_s)[::-1])[::-1]
    if len(ends) == 1:
        return latest
    # The reply to it arrived when the next wait was over, and not before the server sent it; and it
    # was computed with the reply before, or after training had begun.
    of_reply = np.concatenate((ends[:-1] - wait_s[1:], [-np.inf]))
    of_before = np.concatenate(([begun_s], ends[:-1])) + data_s + compute_s
    earliest = np.minimum(np.maximum(of_reply, of_before), latest)
    # The worker's clock, begun anywhere: its own durations one after the other.
    chain = np.cumsum(wait_s + data_s + compute_s)
    # Where it lies on the server's clock may drift, so only pushes nearby tell; as between hosts
    # whose messages take equally long in both directions, it is the middle of the bounds.
    offset = (_nearby(earliest - chain, np.max) + _nearby(latest - chain, np.min)) / 2
    # What tells of pushes nearby may jump from one to the next; no push leaves before the last one.
    return np.maximum.accumulate(np.clip(chain + offset, earliest, latest))


def _nearby(values: Floats, reduce: Callable[..., Floats]) -> Floats:
    """The largest or smallest of each value and those of the pushes before and after it."""
    padded = np.pad(values, _NEARBY, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * _NEARBY + 1)
    return np.asarray(reduce(windows, axis=1))


def action_name(trace: Trace, push: int) -> str:
    """Fate of a push: ``applied``, ``dropped``, ``held`` or ``nonfinite``."""
    return Action(int(trace.action[push])).name.lower()

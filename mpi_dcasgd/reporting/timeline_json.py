"""Timelines as Chrome trace events, which https://ui.perfetto.dev and chrome://tracing open."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mpi_dcasgd.record.atomic import write_atomic
from mpi_dcasgd.reporting.timeline import SERVER, Timeline, action_name

_PROCESS = 1
_SERVER = 1
"""The server's thread; the one with its process's number comes first. Number 0 is the idle task."""
_NS = 0.001  # in microseconds


def trace_events(timeline: Timeline) -> dict[str, Any]:
    """Return a timeline as a JSON object in Chrome's trace event format.

    Ranks are threads of one process, the server first. The messages of a worker have a thread of
    their own, since they are under way while it does something else: slices of one thread must
    be nested or apart. Times are microseconds since training began. An arrow leads from a
    gradient's computation to the server that applies it; a counter shows the staleness.
    """
    return {
        "traceEvents": [*_names(timeline), *_events(timeline)],
        "displayTimeUnit": "ms",
        "otherData": {"run": timeline.name},
    }


def write_json(timeline: Timeline, path: Path) -> None:
    """Write a timeline for Perfetto, compressed if the name ends in ``.gz``.

    Raises:
        RunFolderError: The file cannot be written.
    """
    text = json.dumps(trace_events(timeline), separators=(",", ":"), allow_nan=False).encode()
    write_atomic(path, gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


def _names(timeline: Timeline) -> Iterator[dict[str, Any]]:
    yield _meta("process_name", _SERVER, {"name": timeline.name})
    names = {_SERVER: "server"}
    for worker in range(timeline.num_workers):
        names[_thread(worker)] = f"worker {worker}"
        if timeline.detailed:
            names[_messages(worker)] = f"worker {worker}: messages"
    for thread, name in names.items():
        yield _meta("thread_name", thread, {"name": name})
        yield _meta("thread_sort_index", thread, {"sort_index": thread})


def _thread(worker: int) -> int:
    return _SERVER if worker == SERVER else 2 * worker + 2


def _messages(worker: int) -> int:
    return _thread(worker) + 1


def _meta(name: str, thread: int, args: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "M", "name": name, "pid": _PROCESS, "tid": thread, "ts": 0, "args": args}


def _events(timeline: Timeline) -> Iterator[dict[str, Any]]:
    trace = timeline.trace
    # An arrow must have begun when it ends: of events of equal time those of the server come last.
    for one in sorted(timeline.slices, key=lambda one: (one.push, one.worker == SERVER)):
        message = one.kind in ("push", "reply")
        thread = _messages(one.worker) if message else _thread(one.worker)
        start, end = round(1e6 * one.start_s, 3), round(1e6 * one.end_s, 3)
        event: dict[str, Any] = {
            "ph": "X",
            "name": one.kind,
            "cat": "server" if one.worker == SERVER else "worker",
            "pid": _PROCESS,
            "tid": thread,
            "ts": start,
            "dur": round(max(0.0, end - start), 3),
        }
        if message:
            event["args"] = {"push": one.push}
        if one.kind in ("compute", "apply", "step"):
            event["args"] = {
                "push": one.push,
                "worker": int(trace.worker[one.push]),
                "ticket": int(trace.ticket[one.push]),
                "version": int(trace.version[one.push]),
                "staleness": int(trace.staleness[one.push]),
                "action": action_name(trace, one.push),
            }
        yield event
        if one.kind in ("compute", "apply"):
            arrow = {"name": "push", "cat": "push", "pid": _PROCESS, "tid": thread, "id": one.push}
            if one.kind == "compute":
                # Within the slice: it belongs to whatever is open on its thread at this moment.
                yield {**arrow, "ph": "s", "ts": round(max(start, end - _NS), 3)}
            else:
                yield {**arrow, "ph": "f", "bp": "e", "ts": start}
        if one.kind in ("apply", "step"):
            staleness = {"updates": int(trace.staleness[one.push])}
            counter = {"ph": "C", "name": "staleness", "pid": _PROCESS, "tid": _SERVER}
            yield {**counter, "ts": end, "args": staleness}

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


def trace_events(timeline: Timeline) -> dict[str, Any]:
    """Return a timeline as a JSON object in Chrome's trace event format.

    Ranks are threads of one process: the server is thread 0, worker n is thread n + 1. Times are
    microseconds since training began. An arrow leads from the end of a gradient's computation to
    the server that applies it; a counter shows the staleness.
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
    yield _meta("process_name", 0, {"name": timeline.name})
    for thread in range(timeline.num_workers + 1):
        name = f"worker {thread - 1}" if thread else "server"
        yield _meta("thread_name", thread, {"name": name})
        yield _meta("thread_sort_index", thread, {"sort_index": thread})


def _meta(name: str, thread: int, args: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "M", "name": name, "pid": _PROCESS, "tid": thread, "ts": 0, "args": args}


def _events(timeline: Timeline) -> Iterator[dict[str, Any]]:
    trace = timeline.trace
    for one in timeline.slices:
        thread = one.worker + 1
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
        if one.kind in ("push", "reply"):
            # A message is under way while others compute: no part of the stack of its thread.
            yield from _message(event, one.push)
            continue
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
                yield {**arrow, "ph": "s", "ts": end}
            else:
                yield {**arrow, "ph": "f", "bp": "e", "ts": start}
        if one.kind in ("apply", "step"):
            staleness = {"updates": int(trace.staleness[one.push])}
            counter = {"ph": "C", "name": "staleness", "pid": _PROCESS, "tid": 0}
            yield {**counter, "ts": end, "args": staleness}


def _message(event: dict[str, Any], push: int) -> Iterator[dict[str, Any]]:
    """A span of its own track beside the worker's."""
    about = {key: event[key] for key in ("name", "cat", "pid", "tid")}
    about |= {"id": f"{event['name']}-{push}"}
    yield {**about, "ph": "b", "ts": event["ts"]}
    yield {**about, "ph": "e", "ts": round(event["ts"] + event["dur"], 3)}

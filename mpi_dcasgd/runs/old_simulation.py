"""Checkpoints of simulations as version 0.1 wrote them: one file, ``checkpoints/simulator.pt``.

They hold all that was told of the run in place of where its records had come to, so a run that
resumes from one has its records written once more from the start.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpi_dcasgd.drivers.observer import Evaluation, Observer
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.server.records import record_of

_NAME = "simulator.pt"


def old_checkpoint_in(folder: RunFolder) -> list[Path]:
    """The old checkpoint of a run, if it has one."""
    path = folder.checkpoints / _NAME
    return [path] if path.is_file() else []


def remove_old_checkpoint(folder: RunFolder) -> None:
    """Remove it from the folder of a run that starts from scratch."""
    for path in old_checkpoint_in(folder):
        path.unlink()


def is_old(content: Mapping[str, Any]) -> bool:
    """Return whether the content of a checkpoint is an old simulation's."""
    return "identity" in content and "history" in content


def upgraded(old: Mapping[str, Any]) -> dict[str, Any]:
    """The content as it is today, with ``history`` in place of ``recorder``."""
    return {
        "layout": old["layout"],
        "job": old["identity"]["job"],
        "kernel": None,  # as fuse=auto chose it on the same machine
        "virtual": _virtual(old["identity"]["simulation"]),
        "virtual_run": old["run"],
        "conductor": old["conductor"],
        "history": old["history"],
    }


def tell_again(history: Mapping[str, Any], observer: Observer) -> None:
    """Tell an observer, in order, all that had been told of a run."""
    evaluations = list(history["evaluations"])
    for number, row in enumerate(history["updates"].tolist(), start=1):
        *numbers, time_s = row
        observer.update(record_of(numbers), time_s)
        while evaluations and evaluations[0][0] == number:
            observer.evaluation(Evaluation.of(evaluations.pop(0)[1]))


def _virtual(text: str) -> dict[str, Any]:
    """Parse the description of a simulation, written as Python shows a dict of plain values."""
    try:
        stored = ast.literal_eval(text)
    except ValueError:  # an infinity: it fits no simulation of today
        return {"cluster": text}
    return {
        "workers": stored["workers"],
        "delay_seed": stored["delay_seed"],
        "cluster": stored["settings"],
    }

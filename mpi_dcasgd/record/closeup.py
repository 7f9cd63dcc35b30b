"""closeup.jsonl: norms and distances of pushes that were looked at, one JSON object a line.

The first line says what was looked at, the last one has a digest of all before it. The layout is
in docs/run-folder.md.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.atomic import write_atomic
from mpi_dcasgd.record.metrics import finite
from mpi_dcasgd.server.records import Action

LAYOUT = 1
_WHOLE = ("push", "worker", "version", "staleness")
_NUMBERS = ("time_s", "epoch", "lr", "grad_norm", "step_norm", "compensation_norm", "gap")


@dataclass(frozen=True)
class Closeup:
    """Pushes of a run that were looked at, column by column, each of shape (n,).

    Numbers that do not exist, or were not finite, are not a number.

    Attributes:
        meta: What was looked at: ``run``, ``algorithm``, ``num_workers``, ``parameters``,
            ``pushes`` of the trace, ``every``, and ``identical``: whether all gradients were
            those of the run bit for bit; if not, ``first_other`` is the first that was not.
        push: Number of the push in the trace, int64.
        worker: Who pushed, int64.
        version: Updates applied before, int64.
        staleness: In updates, int64.
        action: ``Action`` numbers, uint8.
        time_s: When, in seconds since training began, as all that follows float64.
        epoch: Passes over the training data, this push included.
        lr: Learning rate of the step, after the rule's step size; 0 if there was none.
        grad_norm: Euclidean norm of the gradient.
        step_norm: Euclidean norm of what the push changed the weights by; 0 if there was no step.
        compensation_norm: Euclidean norm of what delay compensation added to the gradient.
        gap: Root mean square, over the parameters, of how far the server's weights were from
            those that the gradient was computed at.

    Example:
        How the gap grows with the staleness::

            seen = Run("runs/digits-asgd").closeup()
            for tau in range(8):
                print(tau, seen.gap[seen.staleness == tau].mean())
    """

    meta: Mapping[str, Any]
    push: NDArray[np.int64]
    worker: NDArray[np.int64]
    version: NDArray[np.int64]
    staleness: NDArray[np.int64]
    action: NDArray[np.uint8]
    time_s: NDArray[np.float64]
    epoch: NDArray[np.float64]
    lr: NDArray[np.float64]
    grad_norm: NDArray[np.float64]
    step_norm: NDArray[np.float64]
    compensation_norm: NDArray[np.float64]
    gap: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.push)

    @property
    def compensation_share(self) -> NDArray[np.float64]:
        """Norm of the compensation over that of the gradient, float64."""
        return _quotient(self.compensation_norm, self.grad_norm)

    @property
    def effective_lr(self) -> NDArray[np.float64]:
        """Length of each step over the norm of its gradient, float64; nan where there was no step.

        For plain ASGD it is the learning rate; momentum, compensation and step sizes change it.
        """
        stepped = np.where(self.step_norm > 0, self.step_norm, math.nan)
        return _quotient(stepped, self.grad_norm)

    @classmethod
    def of(cls, meta: Mapping[str, Any], rows: list[Mapping[str, Any]]) -> Closeup:
        """Make columns of rows.

        Raises:
            KeyError: A row lacks a value.
            ValueError: A value is not what it should be.
        """
        columns: dict[str, NDArray[Any]] = {
            name: np.array([row[name] for row in rows], np.int64) for name in _WHOLE
        }
        for name in _NUMBERS:
            values = [math.nan if row[name] is None else row[name] for row in rows]
            columns[name] = np.array(values, np.float64)
        actions = [Action[row["action"].upper()] for row in rows]
        return cls(meta, action=np.array(actions, np.uint8), **columns)

    def is_of(self, trace: Path) -> bool:
        """Return whether a trace has the pushes that were looked at, whatever came after them."""
        with open(trace, "rb") as file:
            begin = file.read(self.meta["trace_bytes"])
        return hashlib.sha256(begin).hexdigest() == str(self.meta["trace_sha256"])

    def rows(self) -> list[dict[str, Any]]:
        """Return the pushes one by one, in plain values."""
        names = [Action(number).name.lower() for number in self.action.tolist()]
        columns = {name: getattr(self, name).tolist() for name in (*_WHOLE, *_NUMBERS)}
        return [
            {**{key: column[index] for key, column in columns.items()}, "action": action}
            for index, action in enumerate(names)
        ]


def write_closeup(path: Path, closeup: Closeup) -> None:
    """Write a file, or replace it.

    Raises:
        RunFolderError: It cannot be written.
    """
    head = {"closeup": LAYOUT, **closeup.meta}
    lines = [json.dumps(finite(line), allow_nan=False) for line in (head, *closeup.rows())]
    body = "".join(f"{line}\n" for line in lines).encode()
    end = {"end": len(closeup), "sha256": hashlib.sha256(body).hexdigest()}
    write_atomic(path, body + json.dumps(end).encode() + b"\n")


def read_closeup(path: Path) -> Closeup:
    """Read a file.

    Raises:
        RunFolderError: There is none, or it is not what was written.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be read: {error.strerror}") from error
    body, _, last = content.removesuffix(b"\n").rpartition(b"\n")
    try:
        end = json.loads(last)
        if end["sha256"] != hashlib.sha256(body + b"\n").hexdigest():
            raise ValueError("its bytes do not match their digest")
        head, *rows = map(json.loads, body.split(b"\n"))
        if head["closeup"] != LAYOUT:
            raise ValueError(f"its layout is {head['closeup']}, this version reads {LAYOUT}")
        return Closeup.of({key: head[key] for key in head if key != "closeup"}, rows)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(
            f"{path}: damaged: {error}; make it again with `mpi-dcasgd closeup {path.parent}`"
        ) from error


def _quotient(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        found: NDArray[np.float64] = np.where(below > 0, above / below, math.nan)
    return found

"""The weights of the best evaluation so far: kept in memory, and on the disk from time to time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from mpi_dcasgd.learning.flat import FlatModel
from mpi_dcasgd.learning.measures import Measures

WRITE_EVERY_S = 10.0
"""Least time between two files: early in training every evaluation is the best so far."""


class BestWeights:
    """Keeps the best weights that an evaluator sees. Called on the evaluator's thread.

    What is kept is the copy that was evaluated, so nothing is copied again.

    Args:
        measures: The metric that weights are chosen by, and its direction.
        write: Writes a model and the version of its weights.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        measures: Measures,
        write: Callable[[nn.Module, int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._measures = measures
        self._write = write
        self._clock = clock
        # Replaced as one, for a checkpoint reads it on another thread.
        self._best: tuple[float, int, Tensor | None] = (math.nan, -1, None)
        self._written = -1
        self._looked_s = clock()
        self._failure = ""
        self._told = ""

    def look(
        self, flat: FlatModel, metrics: Mapping[str, float], weights: Tensor, version: int
    ) -> None:
        """Keep weights if they are the best so far, and write the best if it is time to.

        Args:
            flat: A model to write with; its weights are changed.
            metrics: Those of the split that chooses.
            weights: Nobody changes them from now on.
            version: Theirs.
        """
        value = self._measures.choosing(metrics)
        if value is not None and self._measures.better(value, self._best[0]):
            self._best = (value, version, weights.cpu())
        if self._clock() - self._looked_s >= WRITE_EVERY_S:
            self.flush(flat)

    def flush(self, flat: FlatModel) -> None:
        """Write the best weights unless they have been; a failure is a complaint."""
        self._looked_s = self._clock()
        _, version, weights = self._best
        if weights is None or version == self._written:
            return
        try:
            flat.weights.copy_(weights)
            self._write(flat.model, version)
        except Exception as error:  # handed to the training thread, which tells it
            self._failure = f"the best weights were not written: {error}"
        else:
            self._written, self._failure = version, ""

    def complaint(self) -> str:
        """Return the last failure to write, once; else an empty string."""
        failure, told, self._told = self._failure, self._told, self._failure
        return "" if failure == told else failure

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run continues from."""
        value, version, weights = self._best
        return {"value": value, "version": version, "weights": weights}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken; the file may be of weights that came after.

        Args:
            saved: What it returned. Without weights, later ones must be better than the value.
        """
        self._best = (saved["value"], saved["version"], saved["weights"])
        self._written = -1
        self._looked_s = -math.inf

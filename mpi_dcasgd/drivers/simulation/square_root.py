"""Step times that grow with the square root of a worker's number, as Ringmaster ASGD has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.drivers.simulation.delays import DelayModel
from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.learning.settings import Seconds

if TYPE_CHECKING:
    import numpy as np

    from mpi_dcasgd.drivers.simulation.delays import Draw


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SquareRoot(DelayModel):
    """Worker i takes 1 + sqrt(i), plus the size of a normal number of deviation sqrt(i + 1).

    With many workers most are far slower than the first few, and how many of them help is what
    tells algorithms apart.

    Source: A. Maranjyan, A. Tyurin and P. Richtárik, "Ringmaster ASGD", ICML 2025, and the
    program of its experiments.
    """

    model: Literal["square-root"] = "square-root"
    mean_s: Annotated[
        Seconds, Field(description="seconds of worker 0 without its spread; all others go with it")
    ] = 1.0

    def of_worker(self, worker: int, rng: np.random.Generator) -> Draw:
        import numpy as np

        least, spread = 1 + worker**0.5, (worker + 1) ** 0.5
        return lambda rng, n: self.mean_s * (least + np.abs(rng.normal(0.0, spread, n)))

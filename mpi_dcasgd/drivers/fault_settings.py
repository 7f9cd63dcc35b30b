"""The settings of what a run does about ranks that hang or die."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT, LaunchError
from mpi_dcasgd.rules.compatibility import Mode

Patience = Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["auto", "never"]

SETUP_S = 900.0
"""Patience during start-up: one rank may list, read or compile for so long more than the others."""


def setup_patience_s(patience: float | str) -> float:
    """Return the seconds of a job's ``faults.setup_patience``.

    Example:
        >>> setup_patience_s("auto"), setup_patience_s("never"), setup_patience_s(30)
        (900.0, inf, 30.0)
    """
    if isinstance(patience, str):
        return math.inf if patience == "never" else SETUP_S
    return float(patience)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FaultSettings:
    """The ``faults:`` section of a job."""

    patience: Annotated[
        Patience,
        Field(
            description="seconds after which a worker from which nothing came is named and given "
            "up; auto follows from its own steps (docs/faults.md), never waits for ever"
        ),
    ] = "auto"
    setup_patience: Annotated[
        Patience,
        Field(
            description="seconds that one rank may be later than the others at each step of "
            "start-up (listing, reading, compiling) before it is named and the run ends; auto is "
            "900, never waits for ever"
        ),
    ] = "auto"
    respawn: Annotated[
        bool,
        Field(
            description="start a new process in place of a worker that died or was given up "
            "(asynchronous runs with --fault-tolerant; docs/faults.md)"
        ),
    ] = False


def check_respawn(faults: FaultSettings, mode: Mode, *, fault_tolerant: bool) -> None:
    """Refuse to replace workers in a world that does not outlive them.

    Args:
        faults: The job's ``faults:`` section.
        mode: Of its algorithm; others than asynchronous ones have no use for the setting, which may
            be there for the other algorithms of a study.
        fault_tolerant: Whether the world outlives the death of a rank.

    Raises:
        LaunchError: The job asks for it.
    """
    if faults.respawn and mode == "asynchronous" and not fault_tolerant:
        raise LaunchError(
            "faults.respawn: got true, but here the whole run ends with a worker that dies; start "
            "it with `mpi-dcasgd run --fault-tolerant` (Open MPI 5 built with ULFM, under its own "
            "mpirun), or set faults.respawn=false"
        )

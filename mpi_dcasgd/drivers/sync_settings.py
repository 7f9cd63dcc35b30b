"""The settings of synchronous runs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.learning.settings import Count

Backend = Literal["horovod", "ddp"]
Compression = Literal["none", "fp16", "bf16"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SyncSettings:
    """The ``sync:`` section of a job."""

    backend: Annotated[
        Backend,
        Field(
            description="ssgd: who sums the gradients; ddp is torch.distributed (NCCL or gloo), "
            "started from the MPI ranks, for sites without Horovod"
        ),
    ] = "horovod"
    compression: Annotated[
        Compression,
        Field(
            description="ssgd: what gradients are rounded to while they travel; bf16 needs "
            "backend ddp"
        ),
    ] = "none"
    overlap: Annotated[
        Literal["auto", "off"],
        Field(
            description="ssgd: auto sends gradients of more than 4 MiB in parts during the "
            "backward pass, off all at its end"
        ),
    ] = "auto"
    accumulate: Annotated[
        Count, Field(description="ssgd: minibatches of each worker that make one update")
    ] = 1
    backup: Annotated[
        int,
        Field(
            ge=0,
            description="ssgd, simulated runs only: workers beyond those that make an update; "
            "whose gradients come too late are dropped (Chen et al. 2016)",
        ),
    ] = 0
    lr_scaling: Annotated[
        Literal["none", "linear"],
        Field(
            description="ssgd: linear multiplies lr by the number of minibatches that make an "
            "update (Goyal et al. 2017)"
        ),
    ] = "none"

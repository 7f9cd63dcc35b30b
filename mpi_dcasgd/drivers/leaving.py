"""Ending a process of a world in which others may have died."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import NoReturn


def outlives_deaths(env: Mapping[str, str] = os.environ) -> bool:
    """Whether this world was started so that it survives the death of a rank.

    ``mpirun --with-ft ulfm`` says so to Open MPI's ranks in this variable; nobody else does.
    """
    return env.get("OMPI_MCA_mpi_ft_enable") == "1"


def leave(status: int) -> NoReturn:
    """Exit without finalizing MPI, which may wait for ever for a rank that is no more.

    (Seen with Open MPI 5.0.11: of a few worlds that had lost a rank, one hung in MPI_Finalize.)
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

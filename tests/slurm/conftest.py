"""One local SLURM for all tests of this folder."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from local_slurm import LocalSlurm, SlurmError


@pytest.fixture(scope="session")
def local_slurm() -> Iterator[LocalSlurm]:
    # Not pytest's folder: its long path leaves no room for the names of sockets.
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, LocalSlurm(Path(folder)) as slurm:
        yield slurm


@pytest.fixture
def slurm(local_slurm: LocalSlurm) -> Iterator[LocalSlurm]:
    """The SLURM, all nodes idle; what a test leaves in the queue is cancelled after it."""
    yield local_slurm
    local_slurm.clear()


@pytest.fixture
def pmix(local_slurm: LocalSlurm) -> None:
    """Skips (or fails where ``pmix`` is required) a test of ``srun --mpi=pmix`` if it cannot."""
    try:
        local_slurm.run("srun", "--mpi=pmix", "true")
    except SlurmError as error:
        reason = f"SLURM's PMIx plug-in does not load here; it needs libpmix.so: {error}"
        if "pmix" in os.environ.get("MPI_DCASGD_REQUIRE", "").split(","):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture
def wait_for() -> Callable[[Callable[[], bool], float], None]:
    """``wait_for(condition, timeout)``: where neither SLURM nor the kernel has an event."""

    def wait(condition: Callable[[], bool], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"not so after {timeout} s"
            time.sleep(0.1)

    return wait

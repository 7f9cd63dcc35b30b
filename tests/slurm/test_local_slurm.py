"""The SLURM that the tests start: nothing of it may outlive them."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(90)]

PROGRAM = """
import signal, sys
from pathlib import Path
from local_slurm import LocalSlurm
with LocalSlurm(Path(sys.argv[1])) as slurm:
    job = slurm.submit("#!/bin/bash\\nsetsid sleep 1000 &\\nsrun sleep 1000\\n", "--nodes=2")
    slurm.wait(job, "RUNNING")
    print("running", flush=True)
    signal.pause()
"""


def test_nothing_is_left_of_a_killed_test(processes: Any) -> None:
    here = str(Path(__file__).parent)
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        process = processes.start([sys.executable, "-c", PROGRAM, folder], env={"PYTHONPATH": here})
        processes.wait_for(process, 1, timeout=60)
        assert len(processes.alive()) > 7, "three kinds of daemons, two of them the job's"
        process.kill()
        process.wait()
        deadline = time.monotonic() + 30
        while left := processes.alive():
            assert time.monotonic() < deadline, left
            time.sleep(0.1)

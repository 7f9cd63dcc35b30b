"""Standard streams that are closed, full, or cannot print; a current folder that is no more."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mpi_dcasgd.record.shown import ShownStream
from mpi_dcasgd.tools.launch.mpirun import MpirunCommand

pytestmark = pytest.mark.slow  # each starts Python and PyTorch

JOB = """\
name: Größe
algorithm: sgd
epochs: 2
batch_size: 64
lr: 0.1
model: {name: mlp, hidden: [4]}
data: {name: digits}
device: cpu
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "job.yaml").write_text(JOB, encoding="utf-8")
    return tmp_path


def shell(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """Run a line in which ``$M`` is the program."""
    env = {**os.environ, "M": f"{sys.executable} -m mpi_dcasgd"}
    words = ["bash", "-c", line]
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    "redirection", [">&-", ">/dev/full", ">&- 2>&- <&-", ">/dev/full 2>/dev/full"]
)
def test_training_goes_on_whatever_becomes_of_its_output(folder: Path, redirection: str) -> None:
    done = shell(folder, f"$M train job.yaml --run-dir r {redirection}")
    assert (done.returncode, done.stderr) == (0, "")
    assert '"status": "completed"' in (folder / "r" / "summary.json").read_text()
    log = (folder / "r" / "logs" / "rank-0.log").read_text()
    assert ("can no longer be shown: No space left" in log) == ("full" in redirection)


def test_letters_that_cannot_be_printed_and_names_that_are_no_text_end_nothing(
    folder: Path,
) -> None:
    line = "PYTHONIOENCODING=ascii $M train job.yaml --run-dir $'r\\xff'"
    done = shell(folder, line)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Gr\\xf6\\xdfe: sgd, one process\nrun folder: r\\udcff\n")
    log = Path(os.fsdecode(bytes(folder) + b"/r\xff")) / "logs" / "rank-0.log"
    assert "run folder: r\\udcff" in log.read_text()


def test_a_result_that_cannot_be_printed_is_a_failure_and_a_reader_that_left_is_none(
    folder: Path,
) -> None:
    done = shell(folder, "$M train --dry-run job.yaml >/dev/full")
    assert done.returncode == 1
    assert done.stderr == "standard output: cannot be written: No space left on device\n"
    done = shell(folder, "$M train --dry-run job.yaml | true; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_current_folder_that_was_removed_is_told(folder: Path) -> None:
    done = shell(folder, "mkdir gone; cd gone; rmdir ../gone; $M status")
    assert done.returncode == 2
    assert done.stderr.startswith("UserError: the current folder was removed")
    assert done.stderr.count("\n") == 1


def test_a_world_outlives_the_reader_of_its_output(tmp_path: Path) -> None:
    """The program stands for Open MPI's mpirun, which ends its ranks at SIGPIPE."""
    program = tmp_path / "mpirun"
    program.write_text(
        textwrap.dedent(
            """\
            #!/bin/bash
            echo first
            read -r < released
            for ((line = 0; line < 9999; line++)); do echo "line $line" || exit 9; done
            touch ended
            """
        )
    )
    program.chmod(0o755)
    os.mkfifo(tmp_path / "released")
    code = (
        "import sys; from mpi_dcasgd.tools.launch.world import run; "
        "from mpi_dcasgd.tools.launch.mpirun import MpirunCommand; "
        "sys.exit(run(MpirunCommand(('./mpirun',))))"
    )
    words = [sys.executable, "-c", code]
    with subprocess.Popen(
        words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"first\n"
        process.stdout.close()
        (tmp_path / "released").write_text("go\n")
        assert process.wait(60) == 0
    assert (tmp_path / "ended").exists()


def test_all_that_a_world_prints_arrives(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from mpi_dcasgd.tools.launch.world import run

    reading, writing = os.pipe()
    kept = os.dup(1)
    os.dup2(writing, 1)
    os.close(writing)
    try:
        assert run(MpirunCommand(("echo", "hello"))) == 0
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    with open(reading, "rb") as output:
        assert output.read() == b"hello\n"


def test_a_stream_that_fails_once_is_silent_from_then_on() -> None:
    class Full(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            self.writes += 1
            raise OSError(28, "No space left on device")

    told: list[str] = []
    stream = Full()
    shown = ShownStream(stream, told.append)
    for _ in range(3):
        print("text", file=shown, flush=True)
    assert stream.writes == 1
    assert len(told) == 1
    assert "No space left on device; the run continues" in told[0]
    closed = io.StringIO()
    closed.close()
    print("text", file=ShownStream(closed), flush=True)
    assert not ShownStream(closed).isatty()
    assert ShownStream.of(None) is None
    assert ShownStream.of(shown) is shown

"""What a rank has printed is read before the world is ended."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from mpi_dcasgd.drivers.farewell import await_reader


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """The end that is read from, and a stream that has printed something into the other."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        print("the reason", file=stream, flush=True)
        yield reader, stream
    os.close(reader)


def test_it_waits_until_a_pipe_is_read(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    heard: list[bool] = []
    waiting = threading.Thread(target=lambda: heard.append(await_reader(stream, 60)))
    waiting.start()
    waiting.join(0.05)
    assert heard == []
    os.read(reader, 1000)
    waiting.join()
    assert heard == [True]


def test_it_does_not_wait_for_ever(pipe: tuple[int, TextIO]) -> None:
    assert await_reader(pipe[1], 0.01) is False


def test_only_pipes_are_waited_for(tmp_path: Path) -> None:
    with (tmp_path / "err").open("w") as stream:
        print("the reason", file=stream, flush=True)
        assert await_reader(stream)
    assert await_reader(stream)  # closed
    assert await_reader(None)  # as in a process without a terminal

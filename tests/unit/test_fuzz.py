"""Whatever a file, a message or SLURM says: a value or a user's error, without much memory."""

# ruff: noqa: PT017  # a value is as good as an error here

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mpi_dcasgd.config.load import load_job
from mpi_dcasgd.errors import ConfigError, DataError, ProtocolError, RunFolderError
from mpi_dcasgd.learning.data.idx import read_idx, read_shape
from mpi_dcasgd.record.checkpoints import CheckpointFiles, checkpoints_in, read_checkpoint
from mpi_dcasgd.record.trace import MAGIC, read_trace
from mpi_dcasgd.record.trace_writer import TraceWriter
from mpi_dcasgd.server.message import Message
from mpi_dcasgd.server.push import Push
from mpi_dcasgd.tools.slurm.states import parse_sacct, parse_scontrol, parse_squeue

MOST_BYTES = 32 << 20

few = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@contextmanager
def little_memory() -> Iterator[None]:
    """A length that lies must not be asked for."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


@st.composite
def changed(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file with some bytes written over, cut out, put in, or cut off."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        length = draw(st.integers(0, 9))
        with_these = draw(st.binary(max_size=9))
        if draw(st.booleans()):
            content[place : place + length] = with_these
        else:
            del content[place:]
    return bytes(content)


sizes = st.one_of(st.integers(0, 5), st.sampled_from([2**16, 2**31 - 1, 2**31, 2**32 - 1]))


@few
@example(3, [0, 2**32 - 1, 2**32 - 1], None, b"", False, 0)
@example(3, [2**32 - 1, 2**32 - 1, 2**32 - 1], None, b"few", True, 0)
@given(
    dimensions=st.sampled_from([1, 3]),
    shape=st.lists(sizes, min_size=1, max_size=3),
    magic=st.one_of(st.none(), st.binary(max_size=5)),
    content=st.binary(max_size=60),
    packed=st.booleans(),
    cut=st.integers(0, 40),
)
def test_idx_files(
    tmp_path: Path, dimensions: int, shape: list[int], magic: bytes | None, content: bytes,
    packed: bool, cut: int,
) -> None:  # fmt: skip
    begin = bytes((0, 0, 8, dimensions)) if magic is None else magic
    whole = begin + struct.pack(f">{len(shape)}I", *shape) + content
    if packed:
        whole = gzip.compress(whole)[: -cut or None]
    file = tmp_path / "images"
    file.write_bytes(whole)
    with little_memory():
        try:
            seen = read_shape(file, dimensions)
            array = read_idx(file, dimensions)
        except DataError as error:
            assert str(file) in str(error)
        else:
            assert array.shape == seen


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("trace") / "trace.bin"
    writer = TraceWriter(path, {"algorithm": "asgd"}, flush_records=3, flush_s=1e9)
    for n in range(8):
        writer.add(n % 3, n, min(n, 2), 0, n / 7, n * 997)
    writer.end("completed")
    return path.read_bytes()


@few
@given(data=st.data())
def test_traces(tmp_path: Path, trace: bytes, data: st.DataObject) -> None:
    content = data.draw(changed(trace))
    path = tmp_path / "trace.bin"
    path.write_bytes(content)
    with little_memory():
        try:
            found = read_trace(path)
        except RunFolderError as error:
            assert str(path) in str(error)
        else:
            assert found.truncated or content == trace
            assert len(found) <= 8


@few
@given(meta=st.binary(max_size=30), length=st.one_of(st.none(), sizes), rest=st.binary(max_size=40))
def test_traces_whose_checksum_is_right(
    tmp_path: Path, meta: bytes, length: int | None, rest: bytes
) -> None:
    """As another program might have written them."""
    head = MAGIC + struct.pack("<I", len(meta) if length is None else length) + meta
    path = tmp_path / "trace.bin"
    path.write_bytes(head + struct.pack("<I", zlib.crc32(head)) + rest)
    with little_memory(), pytest.raises(RunFolderError, match=r"trace\.bin: "):
        read_trace(path, strict=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("checkpoint")
    files = CheckpointFiles(folder, 1)
    files.keep_now(1, {"weights": torch.arange(40.0), "version": 1})
    files.finish()
    (path,) = checkpoints_in(folder)
    return path.read_bytes()


@few
@given(data=st.data())
def test_checkpoints(tmp_path: Path, checkpoint: bytes, data: st.DataObject) -> None:
    content = data.draw(changed(checkpoint))
    path = tmp_path / "update-1.pt"
    path.write_bytes(content)
    with little_memory():
        try:
            found = read_checkpoint(path)
        except RunFolderError as error:
            assert str(path) in str(error)
        else:
            assert torch.equal(found["weights"], torch.arange(40.0))


words = st.one_of(
    st.integers(-3, 20), st.sampled_from([2**31, 2**62, -(2**63), 2**63 - 1]), st.integers(0, 9)
)


@few
@given(header=st.lists(words, min_size=16, max_size=16))
def test_messages(header: list[int]) -> None:
    message = Message(5)
    message.raw[:32] = np.array(header, np.int64).view(np.int32)
    with little_memory():
        try:
            assert len(message.tickets) <= 13
        except ProtocolError as error:
            assert "granted at once" in str(error)
        try:
            push = Push.of(message)
        except ProtocolError as error:
            assert "push" in str(error) or "unknown kind" in str(error)
        else:
            assert header[0] == 1
            assert push[:3] == tuple(header[1:4])


cells = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["12", "12_3", "12_[4-7]", "RUNNING", "None", "N/A", "0:0", "", "9" * 5000]),
)


@few
@example([["12", "RUNNING", "None", "9" * 5000]], ["JobId", "JobState", "Reason", "Restarts", "x"])
@given(
    rows=st.lists(st.lists(cells, max_size=5), max_size=4),
    keys=st.lists(
        st.sampled_from(["JobId", "ArrayJobId", "ArrayTaskId", "JobState", "Reason", "Restarts"]),
        min_size=5, max_size=5,
    ),
)  # fmt: skip
def test_what_slurm_prints(rows: list[list[str]], keys: list[str]) -> None:
    table = "\n".join("|".join(row) for row in rows)
    fields = "\n".join(
        " ".join(f"{k}={v}" for k, v in zip(keys, row, strict=False)) for row in rows
    )
    for found in (parse_squeue(table), parse_sacct(table), parse_scontrol(fields)):
        assert all(name and isinstance(state.state, str) for name, state in found.items())


values: Any = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-3, 10), st.sampled_from([10**30, "auto", "", "7"]),
        st.floats(), st.text(max_size=5), st.sampled_from(["asgd", "digits", "mlp", "heavy-ball"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(st.sampled_from(["name", "lr", "match", "hidden", "x"]), inner, max_size=2),
    ),
    max_leaves=4,
)  # fmt: skip
keys = (
    "algorithm", "epochs", "batch_size", "lr", "rule", "model", "data", "task", "groups",
    "schedule",
    "checkpoint", "faults", "record", "inject", "sync", "compute", "seed", "threads", "name", "x",
)  # fmt: skip
JOB: dict[str, Any] = {
    "algorithm": "asgd", "epochs": 1, "batch_size": 8, "lr": 0.1,
    "model": {"name": "mlp", "hidden": [4]}, "data": {"name": "digits"},
}  # fmt: skip


@few
@given(changes=st.dictionaries(st.sampled_from(keys), values, min_size=1, max_size=3))
def test_jobs(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(JOB | changes, allow_unicode=True))
    with little_memory():
        try:
            load_job(path)
        except ConfigError as error:
            assert str(path) in str(error)


@few
@given(text=st.text(alphabet="ab:-[]{}&*!#|>'\"%@` \n\t0.e", max_size=40))
def test_yaml(tmp_path: Path, text: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with little_memory(), pytest.raises(ConfigError, match=r"job\.yaml"):
        load_job(path)

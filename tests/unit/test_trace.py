"""The trace: what is written is read back, a cut is told from a change, and both are noticed."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.trace import MAGIC, Restart, Trace, TraceRecord, decode_varints, read_trace
from mpi_dcasgd.record.trace_writer import TraceWriter
from mpi_dcasgd.server.records import Action

Push = tuple[int, int, int, int, float]  # worker, ticket, staleness, action, time_s

PUSHES: list[Push] = [
    (0, 0, 0, Action.APPLIED, 0.001),
    (1, 1, 1, Action.APPLIED, 0.0015),
    (3, 3, 2, Action.HELD, 0.0015),
    (2, 2, 2, Action.APPLIED, 0.4),
    (300, 40_000, 1_000, Action.DROPPED, 71.5),
    (0, 4, 3, Action.NONFINITE, 71.500001),
    (1, 40_001, 0, Action.APPLIED, 3_600.0),
]


def mark_of(push: Push) -> int:
    return (push[1] * 2654435761) & 0xFFFF


def write(path: Path, pushes: list[Push], *, flush_records: int = 2, end: bool = True) -> Path:
    meta = {"algorithm": "asgd", "seed": 7}
    writer = TraceWriter(path, meta, flush_records=flush_records, flush_s=1e9)
    for push in pushes:
        writer.add(*push, mark_of(push))
    if end:
        writer.end("completed")
    else:
        writer.close()
    return path


def expected(pushes: list[Push]) -> list[TraceRecord]:
    version, records = 0, []
    for worker, ticket, staleness, action, time_s in pushes:
        mark = mark_of((worker, ticket, staleness, action, time_s))
        records.append(
            TraceRecord(worker, ticket, version, staleness, Action(action), time_s, mark)
        )
        version += action == Action.APPLIED
    return records


def test_reads_back_what_was_written(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path / "trace.bin", PUSHES), strict=True)
    assert list(trace.records()) == expected(PUSHES)
    assert trace.meta == {"algorithm": "asgd", "seed": 7}
    assert (trace.truncated, trace.status, trace.updates) == (False, "completed", 4)


@settings(max_examples=60, deadline=None)
@given(
    pushes=st.lists(
        st.tuples(
            st.integers(0, 2**20),
            st.integers(0, 2**40),
            st.integers(0, 2**33),
            st.sampled_from(list(Action)),
            st.integers(0, 2**40),
        ),
        max_size=40,
    ),
    flush_records=st.integers(1, 50),
)
def test_any_pushes_survive(
    tmp_path_factory: pytest.TempPathFactory,
    pushes: list[tuple[int, int, int, Action, int]],
    flush_records: int,
) -> None:
    path = tmp_path_factory.mktemp("trace") / "trace.bin"
    times = np.maximum.accumulate(np.array([p[4] for p in pushes], np.int64))
    timed = [(*p[:4], t / 1e6) for p, t in zip(pushes, times.tolist(), strict=True)]
    trace = read_trace(write(path, timed, flush_records=flush_records), strict=True)
    assert list(trace.records()) == expected(timed)


def test_a_clock_that_steps_back_is_held(tmp_path: Path) -> None:
    pushes = [(0, 0, 0, 0, 1.0), (0, 1, 0, 0, 0.5), (0, 2, 0, 0, 1.25)]
    trace = read_trace(write(tmp_path / "t", pushes))
    assert trace.time_us.tolist() == [1_000_000, 1_000_000, 1_250_000]


def test_a_usual_push_costs_a_few_bytes(tmp_path: Path) -> None:
    pushes = [(i % 8, i, 7, 0, i * 0.0005) for i in range(10_000)]
    size = write(tmp_path / "t", pushes, flush_records=1024).stat().st_size
    assert size / len(pushes) < 8.5


def test_the_layout_is_the_documented_one(tmp_path: Path) -> None:
    content = write(tmp_path / "t", [(1, 0, 0, 0, 0.0003), (2, 2, 1, 2, 0.0004)]).read_bytes()
    meta = b'{"algorithm":"asgd","seed":7}'
    header = MAGIC + struct.pack("<I", len(meta)) + meta
    crc = zlib.crc32(header)
    wanted = header + struct.pack("<I", crc)
    mark = (2 * 2654435761) & 0xFFFF  # of ticket 2; ticket 0's is 0
    varint = [mark & 0x7F | 0x80, mark >> 7 & 0x7F | 0x80, mark >> 14]
    block = bytes([1 << 2, 0, 0, 0xAC, 0x02, 0, 2 << 2 | 2, 2, 1, 100, *varint])
    end = b'{"status":"completed","records":2}'
    for tag, payload in ((b"UPDT", block), (b"END.", end)):
        head = struct.pack("<4sII", tag, len(payload), 2)
        crc = zlib.crc32(head, crc)
        wanted += head + struct.pack("<I", crc)
        crc = zlib.crc32(payload, crc)
        wanted += payload + struct.pack("<I", crc)
    assert content == wanted


def test_a_cut_anywhere_leaves_the_whole_blocks(tmp_path: Path) -> None:
    content = write(tmp_path / "t", PUSHES).read_bytes()
    header = content.index(b"UPDT")
    cut = tmp_path / "cut"
    lengths = set()
    for size in range(header, len(content)):
        cut.write_bytes(content[:size])
        trace = read_trace(cut)
        assert trace.truncated
        assert trace.status is None
        assert list(trace.records()) == expected(PUSHES)[: len(trace)]
        lengths.add(len(trace))
        with pytest.raises(RunFolderError, match=rf"cut short at byte \d+, after {len(trace)} rec"):
            read_trace(cut, strict=True)
    assert lengths == {0, 2, 4, 6, 7}
    for size in range(header):
        cut.write_bytes(content[:size])
        with pytest.raises(RunFolderError, match=r"cut short within its header|not a trace"):
            read_trace(cut)


def test_a_change_of_any_byte_is_noticed(tmp_path: Path) -> None:
    content = write(tmp_path / "t", PUSHES).read_bytes()
    changed = tmp_path / "changed"
    for place in range(len(content)):
        for flip in (0x01, 0x80):
            damaged = bytearray(content)
            damaged[place] ^= flip
            changed.write_bytes(damaged)
            with pytest.raises(RunFolderError):
                read_trace(changed)


def test_a_damaged_block_is_named_by_its_offset(tmp_path: Path) -> None:
    path = write(tmp_path / "t", PUSHES)
    content = bytearray(path.read_bytes())
    second = content.index(b"UPDT", content.index(b"UPDT") + 1)
    content[second + 20] ^= 4
    path.write_bytes(content)
    with pytest.raises(RunFolderError, match=f"damaged at byte {second}: a block does not match"):
        read_trace(path)


def blocks(content: bytes) -> list[bytes]:
    starts = [i for i in range(len(content)) if content[i : i + 4] in (b"UPDT", b"END.")]
    return [content[a:b] for a, b in zip([0, *starts], [*starts, len(content)], strict=True)]


def test_removed_swapped_and_added_blocks_are_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "t", PUSHES)
    head, a, b, *rest = blocks(path.read_bytes())
    for arrangement in ([head, b, *rest], [head, b, a, *rest], [head, a, a, b, *rest]):
        path.write_bytes(b"".join(arrangement))
        with pytest.raises(RunFolderError, match="damaged at byte"):
            read_trace(path)
    path.write_bytes(b"".join([head, a, b, *rest, b"x"]))
    with pytest.raises(RunFolderError, match="something follows the end"):
        read_trace(path)


def test_another_layout_and_other_files_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t", PUSHES)
    path.write_bytes(MAGIC[:-1] + b"\x63" + path.read_bytes()[8:])
    with pytest.raises(RunFolderError, match=r"layout 99, but .* reads layout 1"):
        read_trace(path)
    path.write_bytes(b"PK\x03\x04 something else altogether")
    with pytest.raises(RunFolderError, match="not a trace"):
        read_trace(path)
    with pytest.raises(RunFolderError, match="cannot be read: No such file"):
        read_trace(tmp_path / "missing")


def test_what_was_flushed_is_readable_while_the_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "t"
    writer = TraceWriter(path, {}, flush_records=1000, flush_s=1.0)
    for ticket in range(5):
        writer.add(0, ticket, 0, 0, 0.3 * ticket, 7)
    # 1.2 s passed with the last record, so all five were due.
    assert len(read_trace(path)) == 5
    writer.add(0, 5, 0, 0, 1.3, 7)
    assert len(read_trace(path)) == 5
    writer.flush()
    assert len(read_trace(path)) == 6
    writer.close()
    assert read_trace(path).truncated


def test_an_empty_run_has_a_trace(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path / "t", []), strict=True)
    assert (len(trace), trace.updates, trace.truncated) == (0, 0, False)
    assert read_trace(write(tmp_path / "u", [], end=False)).truncated


def test_a_trace_goes_on_from_a_place_and_drops_what_came_after_it(tmp_path: Path) -> None:
    path = tmp_path / "t"
    writer = TraceWriter(path, {}, flush_records=2)
    for push in PUSHES[:3]:
        writer.add(*push, mark_of(push))
    place = writer.place()
    for push in PUSHES[2:6]:
        writer.add(*push, mark_of(push))
    writer.close()
    writer = TraceWriter.resume(path, place, 2)
    for push in PUSHES[3:]:
        writer.add(*push, mark_of(push))
    writer.end("completed")
    trace = read_trace(path, strict=True)
    assert list(trace.records()) == expected(PUSHES)
    assert trace.restarts == (Restart(3, 2),)


def test_a_trace_does_not_go_on_from_anothers_place(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "t", {})
    writer.add(*PUSHES[0], 1)
    place = writer.place()
    writer.close()
    other = TraceWriter(tmp_path / "u", {})
    other.add(*PUSHES[0], 2)
    other.close()
    with pytest.raises(RunFolderError, match="is not the trace that belongs to the checkpoint"):
        TraceWriter.resume(tmp_path / "u", place, 2)
    with pytest.raises(RunFolderError, match=r"has \d+ bytes, not \d+ or more"):
        TraceWriter.resume(tmp_path / "u", place | {"offset": 10**6}, 2)


def test_writer_says_when_it_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="cannot be written: No such file"):
        TraceWriter(tmp_path / "missing" / "t", {})
    with pytest.raises(RunFolderError, match=r"/dev/full: cannot be written: No space"):
        TraceWriter(Path("/dev/full"), {})


def test_decode_varints_agrees_with_the_definition() -> None:
    numbers = [0, 1, 127, 128, 300, 2**14 - 1, 2**14, 2**32, 2**63 - 1]
    payload = bytearray()
    for number in numbers:
        while number > 127:
            payload.append(number % 128 + 128)
            number //= 128
        payload.append(number)
    assert decode_varints(payload).tolist() == numbers
    assert decode_varints(b"").tolist() == []


def test_many_blocks_become_whole_columns(tmp_path: Path) -> None:
    pushes = [(i % 4, i, 3, 0, i * 1e-4) for i in range(20_000)]
    trace: Trace = read_trace(write(tmp_path / "t", pushes, flush_records=1024))
    assert np.array_equal(trace.version, np.arange(20_000))
    assert np.array_equal(trace.ticket, np.arange(20_000))
    assert np.array_equal(trace.time_us, np.arange(20_000) * 100)

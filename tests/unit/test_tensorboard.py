"""TensorBoard's event files, read by a reader of their format; and a tracker of one's own."""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mpi_dcasgd import simulate
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.settings import RecordSettings
from mpi_dcasgd.record.tensorboard import TensorBoard, _crc

DOC = Path(__file__).parents[2] / "docs" / "looking-closer.md"
JOB: dict[str, Any] = {
    "algorithm": "asgd",
    "epochs": 2,
    "batch_size": 50,
    "lr": 0.25,
    "data": {"name": "synthetic", "num_train": 200, "num_test": 20, "shape": [4]},
    "model": {"name": "mlp", "hidden": (4,)},
}


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers and values of a protocol buffer's fields."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at, value, shift = at + 1, value | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
            continue
        size = varint() if key & 7 == 2 else {1: 8, 5: 4}[key & 7]
        value, at = data[at : at + size], at + size
        yield key >> 3, value


def events(folder: Path) -> Iterator[dict[int, Any]]:
    for path in sorted(RunFolder(folder).tensorboard.iterdir()):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (size,) = struct.unpack_from("<Q", content, at)
            data = content[at + 12 : at + 12 + size]
            assert content[at + 8 : at + 12] == _crc(content[at : at + 8])
            assert content[at + 12 + size : at + 16 + size] == _crc(data)
            yield dict(fields(data))
            at += 16 + size


def values(folder: Path) -> Iterator[tuple[int, str, dict[int, Any]]]:
    """Step, tag and fields of every value."""
    for event in events(folder):
        for _, value in fields(event.get(5, b"")):
            found = dict(fields(value))
            yield event[2], found[1].decode(), found


def test_the_checksum_is_the_masked_crc_32c() -> None:
    # The check value of CRC-32C is 0xe3069283 (RFC 3720 has others of the kind).
    crc = 0xE3069283
    assert _crc(b"123456789") == struct.pack(
        "<I", ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF
    )


def test_a_run_has_its_numbers_and_settings_in_tensorboard(tmp_path: Path) -> None:
    run = simulate(JOB, workers=2, run_dir=tmp_path / "run", **{"record.tensorboard": True})
    assert next(events(run.path))[3] == b"brain.Event:2"
    found = list(values(run.path))
    errors = [
        (step, struct.unpack("<f", value[2])[0])
        for step, tag, value in found
        if tag == "evaluation/test_error"
    ]
    recorded = [e for e in run.metrics() if e["event"] == "evaluation"]
    assert errors == [(e["version"], pytest.approx(e["test_error"])) for e in recorded]
    (start,) = [value for _, tag, value in found if tag == "_hparams_/session_start_info"]
    plugin = dict(fields(dict(fields(start[9]))[1]))
    assert plugin[1] == b"hparams"
    session = dict(fields(plugin[2]))[3]
    told = [dict(fields(pair)) for number, pair in fields(session) if number == 1]
    settings = {pair[1].decode(): dict(fields(pair[2])) for pair in told}
    assert settings["algorithm"] == {3: b"asgd"}
    assert struct.unpack("<d", settings["lr"][2]) == (0.25,)
    assert not [key for key in settings if key.startswith("record")]
    assert "_hparams_/session_end_info" in {tag for _, tag, _ in found}


def test_a_resume_purges_what_is_made_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    sink = TensorBoard(folder)
    sink.write("progress", 1.0, {"version": 7, "train_loss": float("inf")})
    sink.close()
    assert sink.offset == 7
    TensorBoard(folder, 7).close()
    purging = [event for event in events(tmp_path) if 7 in event]
    assert [(event[2], event[7]) for event in purging] == [(8, b"\x08\x01")]


def test_a_new_run_removes_the_events_of_the_one_before(tmp_path: Path) -> None:
    for _ in range(2):
        run = simulate(
            JOB,
            workers=2,
            run_dir=tmp_path / "run",
            overwrite=True,
            **{"record.sinks": ["tensorboard"], "epochs": 1},
        )
    assert len(list(RunFolder(run.path).tensorboard.iterdir())) == 1


def test_two_words_for_one_sink_make_one() -> None:
    settings = RecordSettings(sinks=("csv", "tensorboard"), tensorboard=True)
    assert settings.all_sinks == ("csv", "tensorboard")
    assert RecordSettings().all_sinks == ()


def test_the_tracker_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[Any] = []
    tracked = SimpleNamespace(log=logged.append, finish=lambda: logged.append("finished"))
    wandb = SimpleNamespace(init=lambda **given: logged.append(given) or tracked)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    (source,) = re.findall(r"```python\n(import wandb.*?)```", DOC.read_text(), re.DOTALL)
    (tmp_path / "my_wandb.py").write_text(source)
    settings = {"record.sinks": ["my_wandb:Wandb"], "code": str(tmp_path)}
    run = simulate(JOB, workers=2, run_dir=tmp_path / "run", **settings)
    assert logged[0]["name"] == "run"
    assert logged[0]["config"]["lr"] == 0.25
    assert {"evaluation/test_error", "time_s"} <= {key for one in logged[1:-1] for key in one}
    assert logged[-1] == "finished"
    assert run.summary["status"] == "completed"

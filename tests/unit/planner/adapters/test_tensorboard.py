"""Event files: every record whole and checked, every scalar where TensorBoard looks for it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from planner.adapters.tensorboard import VERSION, EventFile, masked_crc


def records(file: Path) -> Iterator[bytes]:
    data, at = file.read_bytes(), 0
    while at < len(data):
        (length,), (check,) = struct.unpack_from("<Q", data, at), struct.unpack_from("<I", data, at + 8)
        assert check == masked_crc(data[at : at + 8])
        body = data[at + 12 : at + 12 + length]
        assert struct.unpack_from("<I", data, at + 12 + length) == (masked_crc(body),)
        yield body
        at += 16 + length


def test_the_checksum_is_castagnolis() -> None:
    """RFC 3720's check value, masked as TFRecords mask it."""
    crc = 0xE3069283
    assert masked_crc(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_records_are_whole_after_every_tick(tmp_path: Path) -> None:
    with EventFile(tmp_path / "log" / "planner", "wattscale") as events:
        events.add(1000.0, 3, {"observed/ttft_ms": 512.5})
        (file,) = (tmp_path / "log" / "planner").iterdir()
        version, tick = records(file)
        assert VERSION in version
        assert tick.endswith(b"observed/ttft_ms\x15" + struct.pack("<f", 512.5))


def test_tensorboard_itself_reads_them(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with EventFile(tmp_path, "wattscale") as events:
        for step in range(1, 400):
            events.add(1000.0 + step, step, {"replicas/decode granted": float(step), "watts/budget": 4000.0})
    read = accumulator.EventAccumulator(str(tmp_path))
    read.Reload()
    assert set(read.Tags()["scalars"]) == {"replicas/decode granted", "watts/budget"}
    last = read.Scalars("replicas/decode granted")[-1]
    assert (last.step, last.value, last.wall_time) == (399, 399.0, 1399.0)

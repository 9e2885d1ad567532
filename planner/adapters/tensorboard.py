"""TensorBoard's event files, written without its package: scalars that ``tensorboard --logdir FOLDER`` shows.

A file is a row of TFRecords (length, masked CRC-32C of it, data, masked CRC-32C of that), each the protobuf message
``Event`` of tensorflow/core/util/event.proto. Only the few fields that a scalar needs are written.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

_POLYNOMIAL = 0x82F63B78
"""Of CRC-32C (Castagnoli), reflected."""
_MASK_DELTA = 0xA282EAD8
VERSION = b"brain.Event:2"


def _table() -> tuple[int, ...]:
    rows = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        rows.append(value)
    return tuple(rows)


_TABLE = _table()


def masked_crc(data: bytes) -> int:
    """TFRecord's checksum of ``data``."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ value >> 8
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + _MASK_DELTA) & 0xFFFFFFFF


def record(data: bytes) -> bytes:
    """``data`` as one TFRecord."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc(length)) + data + struct.pack("<I", masked_crc(data))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def scalars_event(wall_s: float, step: int, values: Mapping[str, float]) -> bytes:
    """An ``Event``: field 1 the wall time, 2 the step, 5 the ``Summary`` with a ``Value`` (tag, simple value) each."""
    summary = b"".join(
        _field(1, _field(1, tag.encode()) + b"\x15" + struct.pack("<f", value)) for tag, value in values.items()
    )
    return b"\x09" + struct.pack("<d", wall_s) + b"\x10" + _varint(step) + _field(5, summary)


class EventFile:
    """One file in ``folder``, which is made where it is missing. Raises OSError where it cannot be written."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        now_s = time.time()
        self._file = (folder / f"events.out.tfevents.{int(now_s)}.{name}").open("wb")
        self._write(b"\x09" + struct.pack("<d", now_s) + _field(3, VERSION))

    def __enter__(self) -> EventFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def add(self, wall_s: float, step: int, values: Mapping[str, float]) -> None:
        """The values at ``step``, by tag; a reader sees them at once."""
        self._write(scalars_event(wall_s, step, values))

    def close(self) -> None:
        """End the file."""
        self._file.close()

    def _write(self, data: bytes) -> None:
        self._file.write(record(data))
        self._file.flush()

"""The part of the protobuf wire format that one answer needs: fields by number, nested messages, strings.

Decodes length-delimited and varint fields and skips all others, so that the agent needs neither a code generator nor
a runtime library for three small messages.
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
LARGEST_VARINT_SHIFT = 63


class MalformedMessageError(ValueError):
    """The bytes are not a protobuf message."""


def fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """(field number, bytes or integer) in the order of the wire. Raises MalformedMessageError."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = _varint(data, at)
            yield number, value
        elif kind == LENGTH:
            size, at = _varint(data, at)
            yield number, _take(data, at, size)
            at += size
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
            yield number, _take(data, at, size)
            at += size
        else:
            raise MalformedMessageError(f"field {number} has the unknown wire type {kind}")


def messages(data: bytes, number: int) -> Iterator[bytes]:
    """The nested messages (or byte strings) of one repeated field."""
    return (value for found, value in fields(data) if found == number and isinstance(value, bytes))


def texts(data: bytes, number: int) -> list[str]:
    """One repeated string field."""
    return [value.decode("utf-8", "replace") for value in messages(data, number)]


def text(data: bytes, number: int) -> str:
    """One string field; the last one wins, as protobuf says. Empty when absent."""
    return (texts(data, number) or [""])[-1]


def _take(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise MalformedMessageError("the message ends inside a field")
    return data[at : at + size]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > LARGEST_VARINT_SHIFT:
            raise MalformedMessageError("the message ends inside a number")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if not byte & 0x80:
            return value, at
        shift += 7

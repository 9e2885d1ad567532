"""One gRPC call over a local socket: a request, an answer, and the connection is closed again.

Owns the few HTTP/2 frames that one unary call per connection needs. The gRPC library would add 9 MB to the agent for
one request a second. Not for use across a network: there is no TLS and no retry, and a refusal is recognised only by
the missing answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS, PADDED = 0x1, 0x1, 0x4, 0x8
LARGEST_WINDOW = 2**31 - 1
DEFAULT_WINDOW = 65_535
STREAM = 1


class CallFailedError(Exception):
    """There was no answer, or an incomplete one."""


@dataclass(frozen=True, slots=True)
class _Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes


async def call(socket: Path, method: str, request: bytes, *, timeout_s: float, largest: int) -> bytes:
    """The message of the answer. ``largest``: maximum size of an answer in bytes. Raises CallFailedError."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                writer.write(_question(method, request))
                return _message(await _answer(reader, writer, largest))
            finally:
                writer.close()
                await _closed(writer)
    except TimeoutError:
        raise CallFailedError(f"no answer within {timeout_s:g} s") from None
    except (OSError, asyncio.IncompleteReadError) as error:
        raise CallFailedError(f"{type(error).__name__}: {error}") from error


async def _closed(writer: asyncio.StreamWriter) -> None:
    try:
        await writer.wait_closed()
    except OSError:
        pass  # The other side closed first.


def _question(method: str, request: bytes) -> bytes:
    settings = (2).to_bytes(2) + (0).to_bytes(4) + (4).to_bytes(2) + LARGEST_WINDOW.to_bytes(4)
    window = (LARGEST_WINDOW - DEFAULT_WINDOW).to_bytes(4)
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    block = b"".join(_literal(name, value) for name, value in headers.items())
    body = b"\0" + len(request).to_bytes(4) + request
    return (
        PREFACE
        + _frame(SETTINGS, 0, 0, settings)
        + _frame(WINDOW_UPDATE, 0, 0, window)
        + _frame(HEADERS, END_HEADERS, STREAM, block)
        + _frame(DATA, END_STREAM, STREAM, body)
    )


def _literal(name: str, value: str) -> bytes:
    """A header in HPACK's simplest form: not indexed, not compressed. Names and values here are below 127 bytes."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


async def _read(reader: asyncio.StreamReader) -> _Frame:
    head = await reader.readexactly(9)
    payload = await reader.readexactly(int.from_bytes(head[:3]))
    return _Frame(head[3], head[4], int.from_bytes(head[5:9]) & LARGEST_WINDOW, payload)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, largest: int) -> bytes:
    """All data of our stream until its end. Raises CallFailedError."""
    data = bytearray()
    while True:
        frame = await _read(reader)
        if frame.stream != STREAM:
            writer.write(_reply(frame))
        elif _collect(frame, data, largest):
            return bytes(data)


def _reply(frame: _Frame) -> bytes:
    """What a frame of the connection itself is answered with; empty for most. Raises CallFailedError on GOAWAY."""
    if frame.kind == GOAWAY:
        raise CallFailedError("the server is going away")
    if frame.kind not in (SETTINGS, PING) or frame.flags & ACK:
        return b""
    return _frame(frame.kind, ACK, 0, frame.payload if frame.kind == PING else b"")


def _collect(frame: _Frame, data: bytearray, largest: int) -> bool:
    """Append a frame of our stream to ``data``; whether it was the last one. Raises CallFailedError."""
    if frame.kind == RST_STREAM:
        raise CallFailedError(f"the server ended the call (HTTP/2 error {int.from_bytes(frame.payload)})")
    if frame.kind == DATA:
        data += _unpadded(frame)
        if len(data) > largest:
            raise CallFailedError(f"an answer of more than {largest} bytes")
    return frame.kind in (DATA, HEADERS) and bool(frame.flags & END_STREAM)


def _unpadded(frame: _Frame) -> bytes:
    if frame.flags & PADDED and frame.payload:
        return frame.payload[1 : len(frame.payload) - frame.payload[0]]
    return frame.payload


def _message(data: bytes) -> bytes:
    """The one message in gRPC's framing: a flag for compression, a length, the bytes."""
    if not data:
        raise CallFailedError("the server refused the call")
    if data[0] != 0 or len(data) < 5 or int.from_bytes(data[1:5]) != len(data) - 5:
        raise CallFailedError("an answer that is not one whole message")
    return data[5:]

"""The NATS client library with cheaper headers and with an end to three waits that never end there.

Headers: the library builds and parses them piece by piece on every message. The waits: a reconnect that dies, the
search for a token in a file without one, and a cancellation that is swallowed. Overrides private methods that the
library calls itself; `tests/contract/jetstream/test_client_library.py` checks each of them against the installed
version.
"""

from __future__ import annotations

import asyncio
import logging
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.protocol import command

from bus_schemas.jetstream.tasks.cancellation import cancellation_kept
from bus_schemas.regular_files import SECRET_BYTES, read_regular

_log = logging.getLogger(__name__)
_TOKEN_FOLLOWS = b"BEGIN NATS USER JWT"
_KEY = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_SEEN: dict[str, bool] = {}
_MOST_SEEN = 512


def _plain_key(key: str) -> bool:
    """Whether ``key`` is a valid header name. Cached: the same few names come with every message."""
    known = _SEEN.get(key)
    if known is None:
        known = _KEY.fullmatch(key) is not None
        if len(_SEEN) < _MOST_SEEN:
            _SEEN[key] = known
    return known


class FastClient(Client):
    """``nats.aio.client.Client`` that writes and reads header lines with the same result in a fifth of the time.

    A reconnect ends with a connection, or closes the client for good; never in a state in which no task tries any more.
    """

    async def _attempt_reconnect(self) -> None:
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            # An orderly close would wait until a frozen server reads what it was sent.
            writer.transport.abort()
        try:
            await super()._attempt_reconnect()
        except Exception as error:  # noqa: BLE001  # whatever the error, the library does not try again after it
            _log.warning("reconnecting failed, a new connection is needed: %s", error or type(error).__name__)
            # In a task of its own: closing cancels the current one.
            self._end = asyncio.create_task(self.close())

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        if not self.is_connected:
            # After a TLS handshake that failed no one is left to say that the connection is closed: waiting for it
            # would never end, and the client would never be replaced by one that reads renewed certificates.
            writer = getattr(self._transport, "_io_writer", None)
            if writer is not None:
                writer.transport.abort()
            self._transport = None
        await super()._close(status, do_cbs)

    async def _flush_pending(self, force_flush: bool = False) -> Any:  # the library's own return type
        # Waits while the server does not read, and swallows a cancellation that arrives meanwhile.
        with cancellation_kept():
            return await super()._flush_pending(force_flush)

    def _read_creds_user_jwt(self, creds: Any) -> bytearray:
        """The token in a credentials file. Raises NatsError without one, where the library would search forever."""
        if not isinstance(creds, (str, Path)):
            return bytearray(super()._read_creds_user_jwt(creds))
        lines = read_regular(creds, SECRET_BYTES).splitlines()
        for head, token in pairwise(lines):
            if _TOKEN_FOLLOWS in head:
                return bytearray(token)
        raise NatsError(f"no user JWT in {creds}")

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        """The headers in ``Name: value`` lines, without those that lack a colon or whose name is not an ASCII token."""
        found: dict[str, str] = {}
        for line in bytes(raw).decode("utf-8", "replace").split("\r\n"):
            name, colon, value = line.partition(":")
            if colon and (_SEEN.get(name) or _plain_key(name := name.strip())):
                found[name] = value.strip()
        return found

    async def _send_publish(
        self, subject: str, reply: str, payload: bytes, payload_size: int, headers: dict[str, Any] | None
    ) -> None:
        """Send one message. Headers that need cleaning go through the library's own code."""
        head = _head(headers) if headers and subject else None
        if head is None:
            await super()._send_publish(subject, reply, payload, payload_size, headers)
            return
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += payload_size
        await self._send_command(command.hpub_cmd(subject, reply, bytearray(head), payload))
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()


def _head(headers: dict[str, Any]) -> bytes | None:
    """The header block, or None where a key or value needs cleaning."""
    lines = ["NATS/1.0"]
    for key, value in headers.items():
        if not (_SEEN.get(key) or _plain_key(key)) or not isinstance(value, str) or value != value.strip():
            return None
        lines.append(f"{key}: {value}")
    # One check of everything: a character that is not printable could end a line early.
    if not "".join(lines).isprintable():
        return None
    lines.append("\r\n")
    return "\r\n".join(lines).encode()

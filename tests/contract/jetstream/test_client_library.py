"""What `patched_client` relies on in nats-py's private parts. After a failure: read the new nats-py, then the patch.

Each override has a test that fails where the library drops the method, changes its signature, stops calling it, or does
something else in it than the override stands in for.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client, RawCredentials
from nats.errors import Error as NatsError

from bus_schemas.jetstream.patched_client import FastClient
from deploy.nats.embedded import EmbeddedServer
from tests.contract.bus import connected, until
from tests.contract.roles.certificates import Authority

SIGNATURES = {
    "_attempt_reconnect": ["self"],
    "_close": ["self", "status", "do_cbs"],
    "_flush_pending": ["self", "force_flush"],
    "_read_creds_user_jwt": ["self", "creds"],
    "_send_publish": ["self", "subject", "reply", "payload", "payload_size", "headers"],
    "_parse_header_lines": ["raw"],
}
HEADERS: list[dict[str, str] | None] = [
    None,
    {},
    {"Nats-Msg-Id": "a-1", "ce-type": "wattscale.v1.lease", "traceparent": f"00-{'4b' * 16}-{'0f' * 8}-01"},
    {"empty": "", "spaces": "  in the middle  of it "},
    {" padded ": "value"},
    {"": "dropped"},
    {"line": "ends\r\nearly: yes"},
    {"text": "Grüße"},
]


class RecordingClient(FastClient):
    """Notes the calls that the library makes to each override."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.forced: list[bool] = []
        self.parsed: list[bytes] = []

        def parse(raw: bytes) -> dict[str, str]:
            self.parsed.append(bytes(raw))
            return FastClient._parse_header_lines(raw)

        self._parse_header_lines = parse  # type: ignore[method-assign]

    async def _attempt_reconnect(self) -> None:
        self.calls.append("_attempt_reconnect")
        await super()._attempt_reconnect()

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        self.forced.append(force_flush)
        return await super()._flush_pending(force_flush)

    def _read_creds_user_jwt(self, creds: Any) -> bytearray:
        self.calls.append("_read_creds_user_jwt")
        return super()._read_creds_user_jwt(creds)

    async def _send_publish(self, *args: Any) -> None:
        self.calls.append("_send_publish")
        await super()._send_publish(*args)


class CapturedPlain(Client):
    """The library's client with what it sends kept instead."""

    sent: bytes = b""

    async def _send_command(self, cmd: bytes, priority: bool = False) -> None:
        self.sent += cmd


class CapturedFast(FastClient):
    """Ours, likewise."""

    sent: bytes = b""

    async def _send_command(self, cmd: bytes, priority: bool = False) -> None:
        self.sent += cmd


def another_attempt(client: Client, before: object) -> bool:
    return client._reconnection_task is not before


@asynccontextmanager
async def recording(url: str, **options: Any) -> AsyncIterator[RecordingClient]:
    """A recording client, connected."""
    client = RecordingClient()
    pace: dict[str, Any] = {
        "reconnect_time_wait": 0.05,
        "max_reconnect_attempts": -1,
    }  # the type of the wait is too narrow
    await client.connect(url, **pace, **options)
    try:
        yield client
    finally:
        await client.close()


def parameters(method: Any) -> list[str]:
    """Names of a method's parameters."""
    return list(inspect.signature(method).parameters)


def test_the_installed_library_is_of_the_minor_version_that_was_read() -> None:
    assert version("nats-py").startswith("2.16.")


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_library_has_each_overridden_method_with_the_signature_of_the_override(name: str) -> None:
    theirs, ours = inspect.getattr_static(Client, name), inspect.getattr_static(FastClient, name)
    assert parameters(getattr(Client, name)) == parameters(getattr(FastClient, name)) == SIGNATURES[name]
    assert isinstance(theirs, staticmethod) == isinstance(ours, staticmethod)
    assert inspect.iscoroutinefunction(theirs) == inspect.iscoroutinefunction(ours)


def test_every_override_is_covered_here() -> None:
    overrides = {name for name in vars(FastClient) if name in vars(Client) and callable(getattr(FastClient, name))}
    assert overrides == set(SIGNATURES)


@pytest.mark.parametrize("headers", HEADERS)
async def test_a_message_with_headers_goes_out_byte_for_byte_as_from_the_library(
    headers: dict[str, str] | None,
) -> None:
    plain, fast = CapturedPlain(), CapturedFast()
    for client in (plain, fast):
        await client._send_publish("some.subject", "reply.to", b"body", 4, headers)
    assert fast.sent == plain.sent != b""
    assert fast.stats["out_msgs"] == plain.stats["out_msgs"] == 1
    assert fast.stats["out_bytes"] == plain.stats["out_bytes"] == 4


@pytest.mark.parametrize(("subject", "headers"), [("", None), ("", {"a": "b"}), ("subject", {"two words": "x"})])
async def test_what_the_library_refuses_to_send_is_refused(subject: str, headers: dict[str, str] | None) -> None:
    for client in (CapturedPlain(), CapturedFast()):
        with pytest.raises(NatsError):
            await client._send_publish(subject, "", b"", 0, headers)
        assert client.sent == b""


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\r\n",
        b"Nats-Sequence: 12\r\nNats-Subject: a.b\r\n\r\n",
        b"tight:value\r\ntab:\tvalue\r\nno colon\r\n\r\n",
        "text: Grüße\r\n".encode() + b"broken: \xff\xfe\r\n",
        "näme: x\r\ntwo words: y\r\ngood: z\r\n".encode(),
        b"colons: a:b:c\r\n",
    ],
)
def test_received_headers_are_read_as_by_the_library(raw: bytes) -> None:
    assert FastClient._parse_header_lines(raw) == Client._parse_header_lines(raw)


async def test_the_library_calls_the_overrides_to_send_and_to_receive() -> None:
    async with EmbeddedServer() as server, recording(server.url) as client:
        subscription = await client.subscribe("subject")
        client.calls.clear()
        await client.publish("subject", b"body", headers={"Nats-Msg-Id": "a-1"})
        message = await subscription.next_msg(timeout=10)
        assert client.calls == ["_send_publish"]
        assert client.parsed == [b"Nats-Msg-Id: a-1\r\n\r\n"]
        assert message.headers == {"Nats-Msg-Id": "a-1"}


async def test_the_library_flushes_through_the_override_and_by_force_when_much_is_pending() -> None:
    async with EmbeddedServer() as server, recording(server.url, pending_size=4096) as client:
        assert client._flush_queue is not None
        assert client._flush_queue.empty()
        client.forced.clear()
        await client.publish("subject", bytes(100))
        assert client.forced == [False]
        await client.publish("subject", bytes(8192))
        assert True in client.forced


async def test_a_lost_connection_is_reopened_through_the_override() -> None:
    async with EmbeddedServer() as server, recording(server.url) as client:
        writer = client._transport._io_writer  # type: ignore[union-attr]
        assert isinstance(writer, asyncio.StreamWriter)
        writer.transport.abort()
        await until(lambda: client.calls == ["_attempt_reconnect"] and client.is_connected, "the reconnect")
        assert client._transport._io_writer is not writer  # type: ignore[union-attr]


async def test_a_reconnect_that_dies_leaves_the_librarys_client_open_and_closes_ours() -> None:
    async with EmbeddedServer() as server:
        for client, closes in ((Client(), False), (FastClient(), True)):
            errors = [RuntimeError("in a callback")]

            async def failing(errors: list[RuntimeError] = errors) -> None:
                if errors:
                    raise errors.pop()

            await client.connect(server.url, disconnected_cb=failing, max_reconnect_attempts=-1)
            before = client._reconnection_task
            client._transport._io_writer.transport.abort()  # type: ignore[union-attr]
            await until(functools.partial(another_attempt, client, before), "the attempt")
            task = client._reconnection_task
            assert task is not None
            await asyncio.wait([task], timeout=10)
            assert task.done()
            if closes:
                await until(lambda c=client: c.is_closed, "the close")  # type: ignore[misc]
            else:
                assert isinstance(task.exception(), RuntimeError)
                assert not client.is_closed
                assert not client.is_connected
                await client.close()


async def test_a_credentials_file_is_read_through_the_override_with_the_same_token(tmp_path: Path) -> None:
    text = "-----BEGIN NATS USER JWT-----\nabc.def.ghi\n------END NATS USER JWT------\n"
    file = tmp_path / "user.creds"
    file.write_text(text)
    for creds in (file, str(file), RawCredentials(text)):
        assert Client()._read_creds_user_jwt(creds) == FastClient()._read_creds_user_jwt(creds) == b"abc.def.ghi"
    client = RecordingClient()
    client._user_credentials = str(file)
    client._setup_nkeys_connect()
    assert client._user_jwt_cb is not None
    assert bytes(client._user_jwt_cb()) == b"abc.def.ghi"
    assert client.calls == ["_read_creds_user_jwt"]
    file.write_text("no token")
    with pytest.raises(NatsError, match="no user JWT"):
        FastClient()._read_creds_user_jwt(str(file))


async def test_a_client_whose_handshake_failed_ends_and_the_next_reads_the_renewed_files(tmp_path: Path) -> None:
    """The library waits for the end of a connection that the failed handshake has left without anyone to end it."""
    first, second, files = Authority(tmp_path / "first"), Authority(tmp_path / "second"), tmp_path / "files"
    files.mkdir()

    def write(authority: Authority) -> None:
        pair = authority.issue("server")
        (files / "tls.crt").write_bytes(pair.cert.read_bytes())
        (files / "tls.key").write_bytes(pair.key.read_bytes())
        (files / "ca.crt").write_bytes(authority.own.cert.read_bytes())

    write(first)
    settings = {"tls": {"cert_file": str(files / "tls.crt"), "key_file": str(files / "tls.key")}}
    async with EmbeddedServer(settings=settings) as server, connected(server.url, tls_ca_file=files / "ca.crt") as bus:
        client = bus.nc
        write(second)
        await server.stop()
        await server.start()
        await until(lambda: bus.connected, "a connection to the server's new certificate")
        assert bus.nc is not client
        assert any("CERTIFICATE_VERIFY_FAILED" in text for text in bus.violations)

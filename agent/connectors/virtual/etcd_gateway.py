"""etcd v3 through its JSON gateway: reads, transactions, watches and leases, with TLS and user and password.

Only the calls that the virtual connector makes. A token that ran out is renewed; where an endpoint does not answer, the
next one is asked. Client certificates identify the connection only: etcd's gateway knows no users by certificate.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp

HTTP_UNAUTHORIZED, HTTP_ERROR = 401, 400
INVALID_TOKEN = "invalid auth token"  # noqa: S105  # a server's sentence, not a token


class EtcdAwayError(Exception):
    """etcd did not answer, or refused: the text says which."""


@dataclass(frozen=True, slots=True)
class EtcdAccess:
    """How to reach etcd. ``password`` is never printed."""

    endpoints: tuple[str, ...]
    user: str = ""
    password: str = ""
    tls: ssl.SSLContext | None = None
    timeout_s: float = 5.0

    def __repr__(self) -> str:
        return f"EtcdAccess({', '.join(self.endpoints)}, user {self.user or 'none'})"


@dataclass(frozen=True, slots=True)
class Value:
    """A stored value and the revision at which it was written."""

    text: str
    revision: int


def put(key: str, value: str, lease: str = "0") -> dict[str, Any]:
    """The operation that writes a key. ``lease`` "0": none."""
    return {"requestPut": {"key": encoded(key), "value": encoded(value), "lease": lease}}


def delete(key: str) -> dict[str, Any]:
    """The operation that removes a key, where it exists."""
    return {"requestDeleteRange": {"key": encoded(key)}}


def unchanged(key: str, value: Value | None) -> dict[str, Any]:
    """The condition that a key is as it was read; None: absent."""
    revision = str(value.revision if value is not None else 0)
    return {"key": encoded(key), "target": "MOD", "result": "EQUAL", "modRevision": revision}


def holds(key: str, value: str) -> dict[str, Any]:
    """The condition that a key has this value."""
    return {"key": encoded(key), "target": "VALUE", "result": "EQUAL", "value": encoded(value)}


def encoded(text: str) -> str:
    """Text as the gateway takes it."""
    return base64.b64encode(text.encode()).decode()


def decoded(text: str) -> str:
    """Text as the gateway gives it; bytes that are not UTF-8 are replaced."""
    return base64.b64decode(text).decode(errors="replace")


def prefix_range(prefix: str) -> dict[str, str]:
    """The keys that begin with ``prefix``, which ends in an ASCII character."""
    return {"key": encoded(prefix), "range_end": encoded(prefix[:-1] + chr(ord(prefix[-1]) + 1))}


class EtcdGateway:
    """``async with EtcdGateway(access) as etcd``. Every call raises EtcdAwayError."""

    def __init__(self, access: EtcdAccess) -> None:
        self._access = access
        self._at = 0
        self._token = ""
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def snapshot(self, prefixes: Sequence[str]) -> tuple[dict[str, Value], int]:
        """All keys below ``prefixes`` at one revision, and that revision."""
        reads = [{"requestRange": prefix_range(prefix)} for prefix in prefixes]
        answer = await self._ask("/v3/kv/txn", {"success": reads})
        found = {}
        for response in answer.get("responses", ()):
            for one in (response.get("response_range") or {}).get("kvs", ()):
                found[decoded(one["key"])] = Value(decoded(one.get("value", "")), int(one["mod_revision"]))
        return found, int(answer["header"]["revision"])

    async def transact(self, conditions: Sequence[dict[str, Any]], operations: Sequence[dict[str, Any]]) -> bool:
        """Carry out all operations if all conditions hold, else none; whether they held."""
        answer = await self._ask("/v3/kv/txn", {"compare": list(conditions), "success": list(operations)})
        return bool(answer.get("succeeded"))

    async def lease(self, ttl_s: int) -> str:
        """A new lease's id."""
        return str((await self._ask("/v3/lease/grant", {"TTL": str(ttl_s), "ID": "0"}))["ID"])

    async def renew(self, lease: str) -> None:
        """Renew a lease. Raises EtcdAwayError also where it has run out."""
        answer = await self._ask("/v3/lease/keepalive", {"ID": lease})
        if int((answer.get("result") or {}).get("TTL", "0")) <= 0:
            raise EtcdAwayError("the lease has run out")

    async def revoke(self, lease: str) -> None:
        """End a lease, and with it the keys that are attached to it."""
        await self._ask("/v3/lease/revoke", {"ID": lease})

    async def watch(self, prefix: str, start_revision: int) -> AsyncIterator[None]:
        """One item for each change below ``prefix`` from a revision on. Raises EtcdAwayError when the watch ends."""
        create = {"create_request": {**prefix_range(prefix), "start_revision": str(start_revision)}}
        limits = aiohttp.ClientTimeout(total=None, sock_connect=self._access.timeout_s)
        await self._authenticate()
        try:
            async with self._open("/v3/watch", create, limits) as response:
                waiting = b""
                async for part in response.content.iter_any():
                    *lines, waiting = (waiting + part).split(b"\n")
                    for line in filter(None, lines):
                        if _changes(json.loads(line), prefix):
                            yield
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            self._next_endpoint()
            raise EtcdAwayError(f"the watch on {prefix} broke: {str(error) or type(error).__name__}") from error
        self._next_endpoint()
        raise EtcdAwayError(f"the watch on {prefix} ended")

    def _open(self, path: str, body: dict[str, Any], limits: aiohttp.ClientTimeout) -> Any:
        if self._session is None:
            raise RuntimeError("the gateway is not open")
        headers = {"Authorization": self._token} if self._token else {}
        url = self._access.endpoints[self._at].rstrip("/") + path
        tls = self._access.tls if self._access.tls is not None else True
        return self._session.post(url, json=body, headers=headers, timeout=limits, ssl=tls)

    def _next_endpoint(self) -> None:
        self._at = (self._at + 1) % len(self._access.endpoints)

    async def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One answer; a token that etcd no longer knows (it restarted, or time ran out) is renewed once."""
        await self._authenticate()
        status, answer = await self._post(path, body)
        if self._access.user and (status == HTTP_UNAUTHORIZED or INVALID_TOKEN in str(answer.get("error", ""))):
            self._token = ""
            await self._authenticate()
            status, answer = await self._post(path, body)
        if status >= HTTP_ERROR or "error" in answer:
            raise EtcdAwayError(f"etcd refused {path}: {answer.get('message') or answer.get('error') or status}")
        return answer

    async def _authenticate(self) -> None:
        if not self._access.user or self._token:
            return
        body = {"name": self._access.user, "password": self._access.password}
        status, answer = await self._post("/v3/auth/authenticate", body)
        if status >= HTTP_ERROR or not answer.get("token"):
            why = answer.get("message") or answer.get("error") or status
            raise EtcdAwayError(f"etcd does not let user {self._access.user} in: {why}")
        self._token = str(answer["token"])

    async def _post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        limits = aiohttp.ClientTimeout(total=self._access.timeout_s)
        try:
            async with self._open(path, body, limits) as response:
                answer = json.loads(await response.read() or b"{}")
                return response.status, answer if isinstance(answer, dict) else {}
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            endpoint = self._access.endpoints[self._at]
            self._next_endpoint()
            raise EtcdAwayError(f"{endpoint} does not answer: {str(error) or type(error).__name__}") from error


def _changes(message: Any, prefix: str) -> bool:
    """Whether a watch's message holds changes. Raises EtcdAwayError where it ends the watch."""
    if "error" in message:
        raise EtcdAwayError(f"the watch on {prefix} is refused: {message['error']}")
    result = message.get("result") or {}
    if result.get("canceled"):
        why = result.get("cancel_reason") or f"compacted at {result.get('compact_revision', '?')}"
        raise EtcdAwayError(f"the watch on {prefix} was cancelled: {why}")
    return bool(result.get("events"))

"""A small Kubernetes client: requests with JSON bodies and one kind of stream.

Owns one HTTP session. Never retries: the caller knows what a failure means.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp

from agent.adapters.kubernetes.access import Access

LARGEST_LINE_BYTES = 4 * 1024 * 1024


class ApiError(Exception):
    """The server refused or did not answer. ``status`` 0: no answer at all."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}" if status else message)
        self.status = status


class SilentError(ApiError):
    """A watch stayed open and said nothing, not even a bookmark."""


class KubernetesApi:
    """One server. Use as an async context manager, or ``close`` it."""

    def __init__(self, access: Access, *, timeout_s: float = 20.0) -> None:
        self.access = access
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> KubernetesApi:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the session."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """One object or list. Raises ApiError."""
        return await self.send("GET", path, query=query)

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create. Raises ApiError."""
        return await self.send("POST", path, body=body)

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        """One request. Raises ApiError."""
        data = None if body is None else json.dumps(body).encode()
        headers = self._headers() | ({"Content-Type": content_type} if data is not None else {})
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        try:
            async with self._open().request(
                method, self.access.server + path, params=query, data=data, headers=headers, timeout=timeout
            ) as answer:
                if answer.status >= 400:
                    raise await _refusal(answer)
                found: dict[str, Any] = await answer.json(content_type=None)
                return found
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ApiError(0, f"{method} {path}: {str(error) or type(error).__name__}") from error

    async def lines(
        self, path: str, query: Mapping[str, str], *, silence_s: float, opened: Callable[[], None] | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """A watch: one JSON object per line, until the server ends it. ApiError; SilentError after ``silence_s``."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout_s, sock_read=silence_s)
        try:
            async with self._open().get(
                self.access.server + path, params=query, headers=self._headers(), timeout=timeout
            ) as answer:
                if answer.status >= 400:
                    raise await _refusal(answer)
                if opened is not None:
                    opened()
                async for line in answer.content:
                    if line.strip():
                        yield json.loads(line)
        except aiohttp.SocketTimeoutError as error:
            raise SilentError(0, f"watch {path}: {error}") from error
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ApiError(0, f"watch {path}: {str(error) or type(error).__name__}") from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self.access.tls if self.access.tls is not None else True)
            self._session = aiohttp.ClientSession(connector=connector, read_bufsize=LARGEST_LINE_BYTES)
        return self._session

    def _headers(self) -> dict[str, str]:
        try:
            return {"Accept": "application/json", **self.access.headers()}
        except OSError as error:
            raise ApiError(0, f"cannot read the token: {error}") from error


async def _refusal(answer: aiohttp.ClientResponse) -> ApiError:
    text = await answer.text(errors="replace")
    try:
        message = str(json.loads(text).get("message", text))
    except (ValueError, AttributeError):
        message = text
    return ApiError(answer.status, message[:500])

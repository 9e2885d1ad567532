"""What the connector asks its workers over HTTP: whether they serve, and to leave."""

from __future__ import annotations

from types import TracebackType

import aiohttp

ANSWER_S = 3.0


class WorkerCalls:
    """Calls to workers on loopback. Use as an async context manager."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> WorkerCalls:
        # No pool: a connection that a worker closed while it was idle would count as an answer that did not come.
        connector = aiohttp.TCPConnector(force_close=True)
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S), connector=connector)
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._session is not None:
            await self._session.close()

    async def serves(self, url: str) -> bool:
        """Whether a GET answers 200."""
        return await self._status("GET", url) == 200

    async def drains(self, url: str) -> bool:
        """Whether a POST was taken (2xx)."""
        return 200 <= await self._status("POST", url) < 300

    async def _status(self, method: str, url: str) -> int:
        """The status; 0 without an answer."""
        if self._session is None:
            raise RuntimeError("open the calls first")
        try:
            async with self._session.request(method, url) as response:
                return response.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0

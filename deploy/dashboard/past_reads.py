"""Bounds how many answers about the past are read from the bus at once: each reads thousands of messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

AT_ONCE = 4
MOST_WAITING = 32
AGAIN_S = 5


class TooManyReadsError(Exception):
    """More wait than may."""


class PastReads:
    """``at_once`` reads run, ``most_waiting`` more wait for them, and what comes then is refused."""

    def __init__(self, at_once: int = AT_ONCE, most_waiting: int = MOST_WAITING) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._most = at_once + most_waiting
        self._here = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """One read's place. Raises TooManyReadsError at once where too many wait."""
        if self._here >= self._most:
            raise TooManyReadsError
        self._here += 1
        try:
            async with self._places:
                yield
        finally:
            self._here -= 1

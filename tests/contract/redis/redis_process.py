"""A real Redis with a data folder and a port of its own, killed and started again at will."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from agent.connectors.virtual.redis_store import RedisAccess
from tests.contract.bus import until
from tests.free_ports import free_port


def redis_binary() -> str:
    """Where redis-server is. Skips with the reason where it is missing."""
    found = shutil.which("redis-server")
    if found is None:
        if os.environ.get("WATTSCALE_REQUIRE_PARTS"):
            pytest.fail("redis-server is missing: install redis-server")
        pytest.skip("redis-server is missing: install redis-server")
    return found


class RedisProcess:
    """``async with RedisProcess(folder) as server``; ``options`` are Redis' own. Every write is on the disk at once."""

    def __init__(self, folder: Path, *options: str, **access: Any) -> None:
        self._folder, self._options = folder, options
        self.port = free_port()
        self.access = RedisAccess("127.0.0.1", self.port, **access)
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()

    @property
    def url(self) -> str:
        """As settings have it."""
        return f"{'redis' if self.access.tls is None else 'rediss'}://127.0.0.1:{self.port}"

    def client(self) -> Redis:
        """A client of the test's own."""
        return self.access.client()

    async def start(self) -> None:
        """Start, also again, and wait until it answers."""
        self._folder.mkdir(exist_ok=True)
        port = ("--port", str(self.port)) if self.access.tls is None else ("--port", "0", "--tls-port", str(self.port))
        keep = ("--dir", str(self._folder), "--appendonly", "yes", "--appendfsync", "always", "--save", "")
        quiet = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(
            *(redis_binary(), "--bind", "127.0.0.1", *port, *keep, *self._options), stdout=quiet, stderr=quiet
        )
        await until(self._answers, "Redis to answer")

    async def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, "Redis ended"
        client = self.client()
        try:
            return bool(await client.ping())
        except (RedisError, OSError):
            return False
        finally:
            await client.aclose()

    def freeze(self) -> None:
        """It keeps its connections and answers nothing more."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    async def kill(self) -> None:
        """SIGKILL; nothing is lost that Redis had answered."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def lose(self) -> None:
        """Kill it and remove everything that it stored."""
        await self.kill()
        shutil.rmtree(self._folder)

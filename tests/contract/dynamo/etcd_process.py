"""A real etcd with a data folder and ports of its own, killed and started again at will."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
import pytest

from tests.contract.bus import until
from tests.free_ports import free_port


def etcd_binary() -> str:
    """Where etcd is. Skips with the reason where it is missing."""
    found = shutil.which("etcd")
    if found is None:
        if os.environ.get("WATTSCALE_REQUIRE_PARTS"):
            pytest.fail("etcd is missing: install etcd-server")
        pytest.skip("etcd is missing: install etcd-server")
    return found


class EtcdProcess:
    """``async with EtcdProcess(folder) as etcd``; ``options`` are etcd's own."""

    def __init__(self, folder: Path, *options: str, scheme: str = "http") -> None:
        self._folder = folder
        self._options = options
        self._port, self._peer_port = free_port(), free_port()
        self.url = f"{scheme}://127.0.0.1:{self._port}"
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()

    async def start(self) -> None:
        """Start, also again, and wait until it answers."""
        peer = f"http://127.0.0.1:{self._peer_port}"
        command = [etcd_binary(), "--data-dir", str(self._folder), "--listen-client-urls", self.url]
        command += ["--advertise-client-urls", self.url, "--listen-peer-urls", peer, "--log-level", "error"]
        command += ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}", *self._options]
        quiet = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet)
        await until(self._answers, "etcd to answer")

    async def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, "etcd ended"
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{self.url}/health", ssl=False) as answer:
                return answer.status == 200 and "true" in await answer.text()
        except (aiohttp.ClientError, OSError):
            return False

    async def kill(self) -> None:
        """SIGKILL; nothing is lost that etcd had answered."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def lose(self) -> None:
        """Kill it and remove everything that it stored."""
        await self.kill()
        shutil.rmtree(self._folder)

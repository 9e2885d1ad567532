"""At the limit of open files a daemon stays up, answers again afterwards, and does not flood its log."""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from tests.contract.bus import until
from tests.free_ports import free_port
from tests.integration.planner.test_commands import settings

ROOT = Path(__file__).resolve().parents[2]
FILES = 48
"""Fewer than the connections that a daemon would take."""
HELD_S = 4.0
MOST_LINES = 40


@asynccontextmanager
async def daemon(*words: str, log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command that may open few files."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))

    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.cli.main", *words), cwd=ROOT, stdout=out, stderr=out, preexec_fn=limit
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def live(port: int) -> bool:
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0)) as session,
            session.get(f"http://127.0.0.1:{port}/livez") as answer,
        ):
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


async def hold(port: int, stack: AsyncExitStack) -> None:
    """A connection with half a request."""
    with suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        stack.callback(writer.close)
        writer.write(b"GET /livez HTTP/1.1\r\nHost:")


@pytest.mark.parametrize("who", ["planner", "agent"])
async def test_a_daemon_at_its_file_limit_does_not_flood_its_log(who: str, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    bus = f"nats://127.0.0.1:{free_port()}"
    if who == "planner":
        file = settings(tmp_path, bus={"servers": [bus]}, health={"host": "127.0.0.1", "port": port})
        words = ["planner", "run", "-c", str(file)]
    else:
        words = ["agent", "power", "--node", "n", "--driver", "simulated", "--nats-url", bus, "--kubernetes", "off"]
        words += ["--host", "127.0.0.1", "--port", str(port)]
    async with daemon(*words, log=log) as process:
        await until(lambda: live(port), "the pages", 60)
        before = len(log.read_bytes().splitlines())
        async with AsyncExitStack() as stack:
            for _ in range(4):
                for _ in range(2 * FILES):
                    await hold(port, stack)
                await asyncio.sleep(HELD_S / 4)
            assert process.returncode is None
        await until(lambda: live(port), "the pages again", 60)
        assert len(log.read_bytes().splitlines()) - before < MOST_LINES, log.read_text()[-2000:]

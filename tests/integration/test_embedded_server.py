"""The embedded server's end: with the process that started it, however that ends; and never two on one folder."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from deploy.nats.embedded import PID_FILE, EmbeddedServer, ServerDownError
from tests.running_processes import gone

OWNER = """
import asyncio, sys
from deploy.nats.embedded import EmbeddedServer
async def main():
    async with EmbeddedServer(sys.argv[1]) as server:
        print(server.pid, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""
WAIT_S = 60.0


async def test_it_ends_with_an_owner_that_was_killed(tmp_path: Path) -> None:
    owner = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", OWNER, str(tmp_path / "data")), stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    pid = int(await asyncio.wait_for(owner.stdout.readline(), WAIT_S))
    assert not gone(pid)
    owner.kill()
    await owner.wait()
    until = time.monotonic() + WAIT_S
    while not gone(pid):
        assert time.monotonic() < until, "the server outlived its owner"
        await asyncio.sleep(0.02)
    async with EmbeddedServer(tmp_path / "data") as server:
        assert server.pid not in (0, pid)


async def test_a_folder_in_use_is_refused_by_name_and_free_again_afterwards(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path) as server:
        with pytest.raises(ServerDownError, match=rf"another nats-server \(process {server.pid}\) still uses"):
            await EmbeddedServer(tmp_path).start()
    async with EmbeddedServer(tmp_path) as server:
        await server.kill()
        await server.start()


async def test_a_number_that_went_to_another_process_counts_as_gone(tmp_path: Path) -> None:
    (tmp_path / PID_FILE).write_text(str(os.getpid()))
    async with EmbeddedServer(tmp_path) as server:
        assert server.pid

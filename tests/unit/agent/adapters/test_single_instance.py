"""One agent on one node: the second waits, and a killed one leaves nothing behind."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from agent.adapters.single_instance import single_instance

HOLDER = """
import asyncio, sys
from pathlib import Path
from agent.adapters.single_instance import single_instance
async def main():
    async with single_instance(Path(sys.argv[1])):
        print("held", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_the_second_waits_until_the_first_has_ended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, order, held, free = tmp_path / "deep" / "agent.lock", [], asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with single_instance(path, retry_s=0.01):
            order.append("first")
            held.set()
            await free.wait()
            order.append("first ends")

    async def second() -> None:
        await held.wait()
        asyncio.get_running_loop().call_later(0.05, free.set)
        async with single_instance(path, retry_s=0.01):
            order.append("second")

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(first())
        tasks.create_task(second())
    assert order == ["first", "first ends", "second"]
    assert caplog.text.count("another agent holds") == 1
    assert "process " in caplog.text


async def test_a_killed_one_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "agent.lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert await asyncio.to_thread(other.stdout.readline) == "held\n"
        waiting = asyncio.create_task(_taken(path))
        await asyncio.sleep(0)
        assert not waiting.done()
        other.kill()
        async with asyncio.timeout(60):
            await waiting


async def _taken(path: Path) -> None:
    async with single_instance(path, retry_s=0.01):
        pass


async def test_without_a_file_two_run_at_once(caplog: pytest.LogCaptureFixture) -> None:
    inside = []
    async with asyncio.timeout(60):
        async with single_instance(None):
            inside.append("first")
            async with single_instance(None):
                inside.append("second")
    assert inside == ["first", "second"]
    assert "another agent holds" not in caplog.text


async def test_a_file_that_cannot_be_opened_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        async with single_instance(tmp_path / "file" / "agent.lock"):
            pass

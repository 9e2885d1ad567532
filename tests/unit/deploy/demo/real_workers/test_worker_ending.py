"""Every process that carries the run's folder in its environment is ended, and no other."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from deploy.demo.real_workers.worker_ending import RUN_FOLDER, end_workers, guarded, signal_workers
from tests.contract.bus import until

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"


async def worker(folder: Path, code: str = "print('ready', flush=True); import time; time.sleep(600)"):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        env={**os.environ, RUN_FOLDER: str(folder)},
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 60) == b"ready\n"
    return process


async def test_workers_end_even_where_they_ignore_sigterm_and_others_stay(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "mine-not"
    workers = [await worker(mine), await worker(mine, DEAF)]
    stays = await worker(other)
    try:
        await asyncio.wait_for(end_workers(mine), 60)
        assert signal_workers(mine, signal.SIGCONT) == []
        assert signal_workers(other, signal.SIGCONT) == [stays.pid]
    finally:
        for each in (*workers, stays):
            if each.returncode is None:
                signal_workers(other, signal.SIGKILL)
            await asyncio.wait_for(each.wait(), 60)


RUN = """
import asyncio, sys
from pathlib import Path
from deploy.demo.real_workers.worker_ending import guarded
async def main():
    async with guarded(Path(sys.argv[1])):
        print("ready", flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


async def test_the_guard_ends_workers_of_a_run_that_was_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    run = await asyncio.create_subprocess_exec(sys.executable, "-c", RUN, str(folder), stdout=asyncio.subprocess.PIPE)
    assert run.stdout is not None
    assert await asyncio.wait_for(run.stdout.readline(), 60) == b"ready\n"
    mine = await worker(folder)
    run.kill()
    await run.wait()
    assert await asyncio.wait_for(mine.wait(), 60) == -signal.SIGKILL
    await until(lambda: not folder.exists(), "the folder is removed")


async def test_a_guard_whose_run_ends_in_order_ends_nothing(tmp_path: Path) -> None:
    mine = await worker(tmp_path)
    async with guarded(tmp_path):
        pass
    assert signal_workers(tmp_path, signal.SIGKILL) == [mine.pid]
    await mine.wait()
    assert tmp_path.exists()

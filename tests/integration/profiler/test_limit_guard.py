"""The guard process of power limits, judged on the library with NVML's ABI: whatever ends the profiler, every limit is
what it was before."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from planner.profiler.online.guarded_caps import CapError, GuardedCaps
from tests.contract.bus import until
from tests.doubles.nvml.loaded import library_environment
from tests.doubles.nvml.state import FakeNvml

ROOT = Path(__file__).parents[3]
HOLDER = """
import asyncio, pathlib, sys
from planner.profiler.online.guarded_caps import GuardedCaps

async def main(words, gpus, folder, how):
    async with GuardedCaps(words, lambda tp: gpus, folder / "guard.log", settle_s=0.0) as caps:
        await caps.hold(1, 400.0)
        print("held", flush=True)
        if how == "exception":
            raise RuntimeError("as asked")
        await asyncio.sleep(600)

words, gpus, folder, how = sys.argv[1:]
asyncio.run(main(words.split(" "), tuple(gpus.split(" ")), pathlib.Path(folder), how))
"""


def words(folder: Path, fake: FakeNvml) -> list[str]:
    return [*(sys.executable, "-m", "deploy.profiling.limit_guard", "--lock-file", f"{folder}/agent.lock"), *fake.uuids]


def guarded(folder: Path, fake: FakeNvml) -> GuardedCaps:
    gpus = tuple(fake.uuids)
    environment = library_environment(fake)
    return GuardedCaps(words(folder, fake), lambda tp: gpus[:tp], folder / "log", environment=environment, settle_s=0.0)


@pytest.fixture
def fake(tmp_path: Path) -> FakeNvml:
    """Two GPUs, one of which somebody has limited before."""
    fake = FakeNvml(tmp_path / "nvml-state", 2)
    fake.gpus[1].foreign_write(600_000)
    return fake


@contextlib.asynccontextmanager
async def holder(folder: Path, fake: FakeNvml, how: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that holds both GPUs at 400 W."""
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLDER, " ".join(words(folder, fake)), " ".join(fake.uuids), str(folder), how),
        cwd=ROOT,
        env=library_environment(fake),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert started.stdout is not None
        assert await asyncio.wait_for(started.stdout.readline(), 60) == b"held\n"
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL", "exception"])
async def test_every_limit_is_what_it_was_however_the_profiler_ends(tmp_path, fake, how):
    async with holder(tmp_path, fake, how) as started:
        if how != "exception":
            assert fake.enforced == [400_000, 400_000]
            started.send_signal(getattr(signal, how))
        await asyncio.wait_for(started.wait(), 60)
    assert started.returncode != 0
    await until(lambda: fake.enforced == [700_000, 600_000], "every limit is back")
    assert all(mw in (400_000, 600_000, 700_000) for _, mw, _ in fake.writes)
    await until(lambda: not (tmp_path / "profile-limits.json").exists(), "nothing is left to be put back")


async def test_a_guard_that_is_asked_to_end_puts_back_first(tmp_path, fake):
    async with holder(tmp_path, fake, "wait"):
        os.kill(int((tmp_path / "agent.lock").read_text().split()[1]), signal.SIGTERM)
        await until(lambda: fake.enforced == [700_000, 600_000], "every limit is back")


async def test_the_run_after_a_killed_guard_puts_back_what_that_one_had_found(tmp_path, fake):
    async with holder(tmp_path, fake, "wait") as started:
        os.kill(int((tmp_path / "agent.lock").read_text().split()[1]), signal.SIGKILL)
        started.kill()
        await started.wait()
    assert fake.enforced == [400_000, 400_000]
    unknown = (*words(tmp_path, fake), "GPU-unknown")
    with pytest.raises(CapError, match="no GPU GPU-unknown answers"):
        async with GuardedCaps(unknown, lambda tp: (), tmp_path / "log", environment=library_environment(fake)):
            pass
    async with guarded(tmp_path, fake) as caps:
        assert [each.found_mw for each in caps.found.values()] == [700_000, 600_000]
    assert caps.left == ()
    assert fake.enforced == [700_000, 600_000]


async def test_gpus_of_an_agent_are_refused_before_anything_is_written(tmp_path, fake):
    with (tmp_path / "agent.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("process 7 of node-a")
        lock.flush()
        line = r"agent\.lock is held by process 7 of node-a: this node's GPUs have a power agent"
        with pytest.raises(CapError, match=line):
            async with guarded(tmp_path, fake):
                pass
    assert fake.writes == []


async def test_a_second_writer_ends_the_run_and_a_lower_limit_of_its_own_is_left(tmp_path, fake):
    async with guarded(tmp_path, fake) as caps:
        await caps.hold(2, 500.0)
        fake.gpus[0].foreign_write(300_000)
        with pytest.raises(CapError, match="has a limit of 300 W where 500 W was set: another program sets limits"):
            await caps.check(2, 500.0)
    assert caps.left == ("GPU 0 (NVIDIA H200): another program set 300 W meanwhile; it is left so (found: 700 W)",)
    assert fake.enforced == [300_000, 600_000]


async def test_a_driver_that_refuses_is_named_and_what_was_set_is_put_back(tmp_path, fake):
    fake.gpus[1].fail("set_limit", 4)
    async with guarded(tmp_path, fake) as caps:
        with pytest.raises(CapError, match=r"GPU 1 \(NVIDIA H200\): 400 W cannot be set"):
            await caps.hold(2, 400.0)
        assert fake.enforced == [400_000, 600_000]
    assert caps.left == ()
    assert fake.enforced == [700_000, 600_000]

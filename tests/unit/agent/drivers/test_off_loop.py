"""Driver calls off the loop: time-outs, hangs, order, and threads without a waiter."""

from __future__ import annotations

import asyncio
import threading

import pytest

from agent.drivers.off_loop import OffLoopDriver
from agent.drivers.simulated import SimulatedDriver
from agent.ports import DriverError, DriverErrorKind, GpuReading


class Sticky(SimulatedDriver):
    """Calls on GPUs in ``stuck`` wait for ``release``."""

    def prepare(self) -> None:
        self.stuck: set[str] = set()
        self.release = threading.Event()
        self.order: list[int] = []

    def read(self, gpu: str) -> GpuReading:
        if gpu in self.stuck:
            self.release.wait(60)
        return super().read(gpu)

    def set_limit(self, gpu: str, mw: int) -> None:
        if gpu in self.stuck:
            self.release.wait(60)
        super().set_limit(gpu, mw)
        self.order.append(mw)


def sticky(count: int = 3) -> Sticky:
    driver = Sticky.of("n", count)
    assert isinstance(driver, Sticky)
    driver.prepare()
    return driver


async def test_a_hung_gpu_is_reported_once_waited_for_and_then_refused_at_once() -> None:
    driver = sticky()
    came_back: list[str] = []
    off_loop = OffLoopDriver(driver, timeout_s=1.0, on_return=came_back.append)
    driver.stuck = {"GPU-n-00"}
    with pytest.raises(DriverError, match="no answer within") as caught:
        await off_loop.read("GPU-n-00")
    assert caught.value.kind is DriverErrorKind.TIMEOUT
    # "Still hangs" and not "no answer within": refused without waiting for the time-out once more.
    with pytest.raises(DriverError, match="still hangs"):
        await off_loop.set_limit("GPU-n-00", 300_000)
    assert off_loop.hung == {"GPU-n-00"}
    assert (await off_loop.read("GPU-n-01")).enforced_mw == 700_000
    driver.stuck = set()
    driver.release.set()
    async with asyncio.timeout(60):
        while off_loop.hung:
            await asyncio.sleep(0.01)
    assert came_back == ["GPU-n-00"]
    assert (await off_loop.read("GPU-n-00")).enforced_mw == 700_000
    await off_loop.close()


async def test_more_hung_gpus_than_threads_hold_up_no_other() -> None:
    driver = sticky(8)
    off_loop = OffLoopDriver(driver, timeout_s=1.0, threads=2)
    driver.stuck = {f"GPU-n-0{index}" for index in range(6)}
    results = await asyncio.gather(*(off_loop.read(gpu) for gpu in sorted(driver.stuck)), return_exceptions=True)
    assert all(isinstance(result, DriverError) for result in results)
    assert (await off_loop.read("GPU-n-07")).enforced_mw == 700_000
    driver.release.set()
    await off_loop.close()


async def test_writes_to_one_gpu_never_overtake_each_other() -> None:
    driver = sticky()
    off_loop = OffLoopDriver(driver, timeout_s=5.0, threads=4)
    wanted = [200_000 + step * 1000 for step in range(50)]
    await asyncio.gather(*(off_loop.set_limit("GPU-n-00", mw) for mw in wanted))
    assert driver.order == wanted
    await off_loop.close()


async def test_a_caller_that_gives_up_does_not_mark_the_gpu_as_hung() -> None:
    driver = sticky()
    off_loop = OffLoopDriver(driver, timeout_s=5.0)
    driver.stuck = {"GPU-n-00"}
    task = asyncio.create_task(off_loop.read("GPU-n-00"))
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert off_loop.hung == frozenset()
    driver.stuck = set()
    driver.release.set()
    await off_loop.set_limit("GPU-n-00", 250_000)
    assert driver.order == [250_000]
    await off_loop.close()


async def test_who_waits_in_vain_behind_a_call_that_was_not_begun_leaves_it_to_its_owner() -> None:
    driver = sticky()
    off_loop = OffLoopDriver(driver, timeout_s=10.0, threads=1)
    driver.stuck = {"GPU-n-00"}
    holding = asyncio.create_task(off_loop.read("GPU-n-00"))
    await asyncio.sleep(0.05)
    first = asyncio.create_task(off_loop.read("GPU-n-01"))
    await asyncio.sleep(0)
    # As after a halt of the whole process, when all that was due comes in one instant and in any order.
    off_loop._timeout_s = 0.05
    with pytest.raises(DriverError, match="no answer within"):
        await off_loop.set_limit("GPU-n-01", 300_000)
    assert not first.done()
    assert off_loop.hung == set()
    driver.release.set()
    assert (await first).enforced_mw == 700_000
    await holding
    await off_loop.close()


async def test_errors_cross_over_as_they_are() -> None:
    driver = sticky()
    off_loop = OffLoopDriver(driver)
    with pytest.raises(DriverError, match="no simulated GPU nope") as caught:
        await off_loop.read("nope")
    assert caught.value.kind is DriverErrorKind.NO_SUCH_GPU
    await off_loop.close()

"""The agent's service ends on request, whatever the driver does, and never goes on without one of its loops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence

import pytest

from agent.drivers.simulated import SimulatedDriver
from agent.ports import GpuInfo, GpuOwner, GpuReading, NoOwners
from agent.runtime.service import PowerAgentService
from agent.runtime.settings import OnExit, PowerAgentSettings
from bus_schemas.jetstream.tasks.task_group import PartEndedError

NODE = "node-7"
CALL_TIMEOUT_S = 0.3
ENDED_S = 5.0


class HangingDriver:
    """A driver of which one call does not come back once ``call`` is set; ``free`` lets it."""

    def __init__(self) -> None:
        self._driver = SimulatedDriver.of(NODE, 2)
        self.call = ""
        self.begun = threading.Event()
        self.free = threading.Event()

    def _pass(self, call: str) -> None:
        if call == self.call:
            self.begun.set()
            self.free.wait(60)

    def enumerate(self) -> Sequence[GpuInfo]:
        self._pass("enumerate")
        return self._driver.enumerate()

    def failed(self) -> Mapping[str, object]:
        return {}

    def read(self, gpu: str) -> GpuReading:
        self._pass("read")
        return self._driver.read(gpu)

    def set_limit(self, gpu: str, mw: int) -> None:
        self._pass("set_limit")
        self._driver.set_limit(gpu, mw)

    def close(self) -> None:
        self._pass("close")


@pytest.mark.parametrize("on_exit", list(OnExit))
@pytest.mark.parametrize("call", ["enumerate", "read", "set_limit", "close"])
@pytest.mark.parametrize("early", [True, False], ids=["while starting", "while serving"])
async def test_a_call_that_hangs_does_not_hold_up_the_end(call: str, on_exit: OnExit, *, early: bool) -> None:
    driver = HangingDriver()
    settings = PowerAgentSettings(
        node=NODE,
        telemetry_interval_s=0.02,
        reconcile_interval_s=0.05,
        call_timeout_s=CALL_TIMEOUT_S,
        on_exit=on_exit,
    )
    service = PowerAgentService(settings, None, driver, NoOwners())  # type: ignore[arg-type]
    if early:
        driver.call = call
    running = asyncio.create_task(service.run())
    try:
        async with asyncio.timeout(ENDED_S):
            while not (driver.begun.is_set() or service.last_good_s is not None):
                await asyncio.sleep(0.01)
            driver.call = call
            while call in {"enumerate", "read"} and not driver.begun.is_set():
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running], timeout=ENDED_S)
        assert running.cancelled()
    finally:
        driver.free.set()


class Dropped:
    """Owners whose source is cancelled from within, as a client library may do."""

    async def owners(self) -> Mapping[str, GpuOwner]:
        future: asyncio.Future[Mapping[str, GpuOwner]] = asyncio.get_running_loop().create_future()
        future.cancel()
        return await future


async def test_an_agent_does_not_go_on_without_one_of_its_loops() -> None:
    driver = SimulatedDriver.of(NODE, 2)
    service = PowerAgentService(PowerAgentSettings(node=NODE), None, driver, Dropped())
    with pytest.raises(PartEndedError, match="owners"):
        await asyncio.wait_for(service.run(), ENDED_S)

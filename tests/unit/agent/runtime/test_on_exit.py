"""What an agent leaves behind at an orderly end, with ``on_exit: keep`` and ``restore``."""

from __future__ import annotations

import asyncio

import pytest

from agent.core.caps import CapDecision, GpuTarget
from agent.drivers.simulated import SimulatedDriver
from agent.ports import NoOwners
from agent.runtime.service import PowerAgentService
from agent.runtime.settings import OnExit, PowerAgentSettings
from bus_schemas.units import GpuSetpoint, Milliwatts

NODE = "node-7"
FOUND_MW, FOREIGN_MW, CAP_MW = 500_000, 450_000, 400_000


@pytest.mark.parametrize(
    ("on_exit", "decided", "left_mw"),
    [
        (OnExit.KEEP, False, FOREIGN_MW),
        (OnExit.KEEP, True, CAP_MW),
        (OnExit.RESTORE, False, FOUND_MW),
        (OnExit.RESTORE, True, CAP_MW),
    ],
    ids=["keep", "keep a cap", "restore what was found", "restore nothing under a planner"],
)
async def test_limits_at_an_orderly_end(on_exit: OnExit, decided: bool, left_mw: int) -> None:
    driver = SimulatedDriver.of(NODE, 1)
    (gpu,) = [info.gpu for info in driver.enumerate()]
    driver.set_limit(gpu, FOUND_MW)
    settings = PowerAgentSettings(node=NODE, telemetry_interval_s=0.02, on_exit=on_exit)
    service = PowerAgentService(settings, None, driver, NoOwners())
    service.hardware.read_patience_s = service.hardware.write_patience_s = 30.0
    running = asyncio.create_task(service.run())
    async with asyncio.timeout(60):
        while not service.ready:
            await asyncio.sleep(0.01)
    if decided:
        target = GpuTarget(gpu, GpuSetpoint(Milliwatts(CAP_MW)), CAP_MW)
        await service.reconciler.decide(CapDecision(1, 0, "i", 30.0, (target,)))
    else:
        driver.set_limit(gpu, FOREIGN_MW)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert driver.read(gpu).requested_mw == left_mw

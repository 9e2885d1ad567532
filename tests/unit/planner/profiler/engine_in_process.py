"""The small HTTP engine in this process, on the test's own clock, with times that vary from step to step."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from aiohttp import web

from deploy.engine.continuous_batch import ContinuousBatch
from deploy.engine.engine_app import EngineApp, EngineModel
from deploy.engine.engine_gpus import EngineGpus, OwnGpu
from deploy.engine.engine_loop import EngineLoop
from deploy.engine.engine_run import LinearTimes
from deploy.engine.kv_blocks import KvBlocks
from deploy.engine.shared_gpu import SharedGpu
from planner.adapters.power_priors import curve, gpu, phase_of
from planner.domain.pool import Role
from planner.domain.power import PowerCurve
from planner.sim.cluster.sim_gpu import H200

MODEL = "demo"
DECODE_POWER = curve(gpu("h200"), phase_of(Role.DECODE))


class UnsteadyGpus(EngineGpus):
    """GPUs whose speed varies by a share from step to step."""

    def __init__(self, noise: float, seed: int, one: OwnGpu | SharedGpu, power: PowerCurve) -> None:
        super().__init__([one], power)
        self._noise, self._rng = noise, random.Random(seed)

    def speed(self, share: float) -> float:
        return super().speed(share) * max(0.5, self._rng.gauss(1.0, self._noise))


@asynccontextmanager
async def engine(
    times: LinearTimes,
    *,
    max_kv_tokens: int = 20_000,
    max_model_len: int = 4096,
    max_seqs: int = 512,
    noise: float = 0.0,
    seed: int = 0,
    cap_watts: float = 700.0,
    shared: SharedGpu | None = None,
    power: PowerCurve = DECODE_POWER,
) -> AsyncIterator[str]:
    """The engine's address. It waits on the running loop's clock, which may be virtual.

    ``shared``: its GPU, in place of one of its own under ``cap_watts``.
    """
    clock = asyncio.get_running_loop().time
    law = times.law(max_kv_tokens)
    assert law.decode is not None
    law = replace(law, decode=replace(law.decode, max_seqs=max_seqs))
    card = shared or OwnGpu("0", H200, round(cap_watts * 1000), clock)
    gpus = UnsteadyGpus(noise, seed, card, power)
    loop = EngineLoop(MODEL, ContinuousBatch(law, KvBlocks(max_kv_tokens)), gpus, clock)
    app = EngineApp(EngineModel(MODEL, max_model_len, 7, 20.0), loop, "engine-1")
    runner = web.AppRunner(app.application(), handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    tasks = [asyncio.create_task(loop.run()), asyncio.create_task(loop.load(0.0))]
    try:
        while loop.stage != "serving":
            await asyncio.sleep(0)
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await runner.cleanup()

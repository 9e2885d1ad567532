"""Runs a continuous batch against the clock and delivers each token when it is due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum

from deploy.engine.continuous_batch import ContinuousBatch, Generation
from deploy.engine.engine_gpus import EngineGpus
from deploy.engine.engine_telemetry import EngineTelemetry


class EngineStage(StrEnum):
    """What the engine does with new requests: only while it serves are they taken."""

    LOADING = "loading"
    SERVING = "serving"
    DRAINING = "draining"


class TokenFeed:
    """The tokens of one request as they are made."""

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self._more = asyncio.Event()
        self._complete = False

    def made(self, *, last: bool) -> None:
        """Another token is there."""
        self._complete = last
        self._more.set()

    async def wait(self) -> bool:
        """Wait until there are more tokens than at the last call. True with the last of them."""
        await self._more.wait()
        self._more.clear()
        return self._complete


class EngineLoop:
    """The loop of one engine. ``clock``: monotonic seconds.

    A step's end is counted from the end of the step before it, so a process that is scheduled late makes no time
    longer: it is ``behind_s`` for a while and catches up.
    """

    def __init__(self, model: str, batch: ContinuousBatch, gpus: EngineGpus, clock: Callable[[], float]) -> None:
        self.batch = batch
        self.stage = EngineStage.LOADING
        self.telemetry = EngineTelemetry(model, batch, gpus, lambda: self.behind_s)
        self.behind_s = 0.0
        self._gpus = gpus
        self._clock = clock
        self._feeds: dict[int, TokenFeed] = {}
        self._work = asyncio.Event()

    async def load(self, startup_s: float) -> None:
        """Load the weights: nothing is served meanwhile."""
        self._gpus.speed(0.0)
        await asyncio.sleep(startup_s)
        if self.stage is EngineStage.LOADING:
            self.stage = EngineStage.SERVING

    def submit(self, generation: Generation) -> TokenFeed:
        """Take a request. Raises ValueError for one that never fits."""
        generation.arrived_s = self._clock()
        self.batch.submit(generation)
        feed = self._feeds[id(generation)] = TokenFeed(generation)
        self._work.set()
        return feed

    def abort(self, generation: Generation) -> None:
        """Forget a request whose client has gone; nothing happens where it had ended already."""
        if self._feeds.pop(id(generation), None) is None:
            return
        self.batch.abort(generation)
        self.telemetry.ended(generation, "abort", self._clock())

    async def run(self) -> None:
        """Compute until cancelled."""
        at_s = self._clock()
        while True:
            now_s = self._clock()
            step = self.batch.begin(now_s)
            if step is None:
                self._gpus.speed(0.0)
                self.behind_s = 0.0
                self._work.clear()
                await self._work.wait()
                at_s = self._clock()
                continue
            at_s += step.duration_s / self._gpus.speed(step.share)
            await asyncio.sleep(max(0.0, at_s - self._clock()))
            self.behind_s = max(0.0, self._clock() - at_s)
            befores = {id(one): one.last_s for one in (*step.decoding, *(chunk for chunk, _ in step.chunks))}
            for generation in self.batch.finish(step, at_s):
                self._deliver(generation, befores[id(generation)], at_s)

    def _deliver(self, generation: Generation, before_s: float, now_s: float) -> None:
        self.telemetry.gained(generation, before_s, now_s)
        feed = self._feeds[id(generation)]
        last = generation.done >= generation.answer_tokens
        if last:
            del self._feeds[id(generation)]
            self.telemetry.ended(generation, generation.finish_reason, now_s)
        feed.made(last=last)

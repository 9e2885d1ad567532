"""The plant run against the wall clock: a cluster to plan for on a machine that has none.

Owns the pace (virtual seconds per real second) and a real ``/metrics`` endpoint on loopback. Must never block the event
loop: the plant advances in short slices. A lock guards the plant, because GPU drivers call from threads.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from aiohttp import web

from planner.domain.request import Request
from planner.sim.cluster.metrics_page import CONTENT_TYPE, render
from planner.sim.cluster.plant import NoFreeGpuError, Plant
from planner.sim.cluster.sim_gpu import SimGpuReading
from planner.sim.cluster.worker_pool import WorkerCounts

TICK_S = 0.02
SLICE_S = 0.01
"""Real seconds of computing before the event loop runs again."""
LONGEST_STEP_S = 1.0
"""Load seconds that are computed at once, at any speed."""


class LiveCluster:
    """A running plant. ``speed`` load seconds pass in one second of ``clock``. Use as an async context manager,
    or ``open``, ``run`` (until cancelled) and ``close``. All other methods may be called from any thread."""

    def __init__(
        self,
        plant: Plant,
        requests: Iterable[Request],
        *,
        speed: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        model: str = "demo",
        namespace: str = "default-demo",
        port: int = 0,
    ) -> None:
        if not speed > 0:
            raise ValueError(f"speed must be above 0, not {speed}")
        self.speed = speed
        self.finished = asyncio.Event()
        """Set when the last request of a finite workload is done."""
        self._plant = plant
        self._requests = requests
        self._clock = clock
        self._model = model
        self._namespace = namespace
        self._port = port
        self._lock = threading.RLock()
        self._runner: web.AppRunner | None = None
        self._pace: asyncio.Task[None] | None = None
        self._zero_s = 0.0

    # -- life

    async def open(self) -> None:
        """Bind the port, start the clock and the load. Raises OSError for a port in use."""
        app = web.Application()
        app.router.add_get("/metrics", self._serve_metrics)
        app.router.add_get("/healthz", self._serve_health)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self._port).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        self._port = runner.addresses[0][1]
        self._zero_s = self._clock() - self._plant.now_s / self.speed
        with self._lock:
            self._plant.submit(self._requests)

    async def run(self) -> None:
        """Advance the plant with the clock, until cancelled."""
        while True:
            await self._catch_up()
            with self._lock:
                if self._plant.exhausted and not self._plant.in_flight:
                    self.finished.set()
            await asyncio.sleep(TICK_S)

    async def close(self) -> None:
        """Stop and free the port. The plant stays readable."""
        if self._pace is not None:
            self._pace.cancel()
            await asyncio.gather(self._pace, return_exceptions=True)
            self._pace = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> LiveCluster:
        await self.open()
        self._pace = asyncio.create_task(self.run(), name="plant")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _catch_up(self) -> None:
        """Advance to the clock's present instant in slices, letting the event loop run in between."""
        while (behind_s := self.load_s() - self._plant.now_s) > 0:
            began_s = time.perf_counter()
            step_s = behind_s
            while behind_s > 0 and time.perf_counter() - began_s < SLICE_S:
                step_s = min(behind_s, max(0.05, min(TICK_S * self.speed, LONGEST_STEP_S)))
                with self._lock:
                    self._plant.advance(self._plant.now_s + step_s)
                behind_s -= step_s
            await asyncio.sleep(0)
            if behind_s <= 0:
                return

    # -- reading

    @property
    def url(self) -> str:
        """The address of the metrics page."""
        return f"http://127.0.0.1:{self._port}/metrics"

    def load_s(self) -> float:
        """The present instant of the load, in load seconds."""
        return (self._clock() - self._zero_s) * self.speed

    def behind_s(self) -> float:
        """Load seconds by which the plant is behind its clock: this machine computes slower than they pass."""
        return max(0.0, self.load_s() - self._plant.now_s)

    def submit(self, requests: Iterable[Request]) -> None:
        """Let these requests arrive, by rising load seconds, in place of all that have not arrived yet."""
        with self._lock:
            self._plant.submit(requests)

    def worker_counts(self) -> Mapping[str, WorkerCounts]:
        """Workers by pool and state."""
        with self._lock:
            return self._plant.worker_counts()

    def reading(self, gpu: str) -> SimGpuReading:
        """The present reading of one GPU. Raises KeyError for an unknown one."""
        with self._lock:
            return self._plant.gpu(gpu)

    def readings(self) -> list[SimGpuReading]:
        """The present readings of all GPUs."""
        with self._lock:
            return self._plant.readings()

    def metrics(self) -> str:
        """The page that ``/metrics`` serves."""
        with self._lock:
            return render(self._plant, self._model, self._namespace)

    def summary(self, ttft_ms: float, itl_ms: float) -> dict[str, Any]:
        """Totals so far, as ``Plant.summary``."""
        with self._lock:
            return self._plant.summary(ttft_ms, itl_ms)

    # -- acting

    def start_worker(self, pool: str, gpus: Sequence[str] | None = None) -> str | None:
        """Start a worker, on ``gpus`` if they are free. Returns its name; None if no node has room."""
        with self._lock:
            try:
                return self._plant.start_worker(pool, gpus)
            except NoFreeGpuError:
                return None

    def drain_worker(self, worker: str) -> None:
        """Drain one worker."""
        with self._lock:
            self._plant.drain_worker(worker)

    def drain_one(self, pool: str) -> str | None:
        """Drain the worker of ``pool`` with the least work. Returns its name; None when none is left."""
        with self._lock:
            return self._plant.drain_one(pool)

    def reclaim_one(self, pool: str) -> str | None:
        """Let a draining worker of ``pool`` serve again. Returns its name; None where none drains."""
        with self._lock:
            return self._plant.reclaim_one(pool)

    def fail_worker(self, worker: str) -> None:
        """Kill a worker."""
        with self._lock:
            self._plant.fail_worker(worker)

    def held(self) -> AbstractContextManager[object]:
        """A lock under which the plant does not change, for callers whose own totals must agree with it."""
        return self._lock

    def set_cap(self, gpu: str, mw: int) -> int:
        """Set a GPU's limit. Returns the enforced one in milliwatts. Raises KeyError for an unknown GPU."""
        with self._lock:
            return self._plant.set_cap(gpu, mw)

    async def _serve_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self.metrics().encode(), headers={"Content-Type": CONTENT_TYPE})

    async def _serve_health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

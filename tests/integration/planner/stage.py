"""A stage for the planner's service: a real nats-server, real metrics over HTTP, a fleet that acknowledges."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.connect import Bus, connect
from bus_schemas.jetstream.consumers import maintain
from bus_schemas.jetstream.settings import BusSettings
from deploy.nats.embedded import EmbeddedServer
from planner.adapters.metrics.scrape import EngineScraper
from planner.adapters.metrics.series_selector import PoolSelector, SeriesSelector
from planner.domain.config import DeploymentConfig, PlannerConfig, PoolConfig, ScalingRules, SiteConfig
from planner.domain.ids import DeploymentId, PoolId, SiteId
from planner.domain.pool import Role
from planner.domain.power import PowerCurve
from planner.domain.profile import DecodeProfile, PrefillProfile, Profile
from planner.domain.units import Milliwatts
from planner.ports import Clock
from planner.runtime.decision_event import DecisionEvent
from planner.runtime.service import PlannerService, ServiceSettings
from tests.doubles.engine_metrics import EngineMetrics, MetricsServer
from tests.doubles.fleet import Fleet

MODEL = "llama-8b"
NAME = DeploymentId("prod-chat")
SITE = SiteId("row-1")
PREFILL, DECODE = PoolId("prefill"), PoolId("decode")
WAIT_S = 60.0

CURVE = PowerCurve(140_000, 600_000, 0.6, 90_000, 200_000, 700_000, 350_000)
PROFILE = Profile(
    "made-up",
    PrefillProfile((100.0, 1000.0, 4000.0), (20.0, 60.0, 200.0), (5000.0, 16667.0, 20000.0)),
    DecodeProfile(
        (0.01, 0.2, 0.5, 0.9, 0.01, 0.2, 0.5, 0.9),
        (1000.0,) * 4 + (4000.0,) * 4,
        (6.0, 12.0, 22.0, 35.0, 6.0, 12.0, 22.0, 35.0),
        (833.0, 8333.0, 11364.0, 12857.0, 208.0, 2083.0, 2841.0, 3214.0),
        500_000,
    ),
)


def config(interval_s: float = 0.5, scale: float = 30.0, budget_watts: int = 4000) -> PlannerConfig:
    """Two pools on one site; half a second of the clock is fifteen seconds of load."""
    pools = {
        pool: PoolConfig(
            pool,
            role,
            gpus_per_replica=1,
            curve=CURVE,
            max_replicas=4,
            startup_s=30.0,
            scale_down=ScalingRules(stabilization_window_s=60.0),
        )
        for pool, role in ((PREFILL, Role.PREFILL), (DECODE, Role.DECODE))
    }
    deployment = DeploymentConfig(NAME, SITE, pools, PROFILE, ttft_ms=500.0, itl_ms=30.0)
    site = SiteConfig(SITE, Milliwatts(budget_watts * 1000), lease_s=3.0, settle_s=0.2, flight_s=0.2)
    return PlannerConfig({NAME: deployment}, {SITE: site}, interval_s=interval_s, load_time_scale=scale)


@dataclass(slots=True)
class Stage:
    """Everything around a planner, and what was seen of its decisions."""

    server: EmbeddedServer
    bus: Bus
    fleet: Fleet
    metrics: MetricsServer
    config: PlannerConfig
    decided: list[DecisionEvent] = field(default_factory=list)
    load_rps: float = 0.0
    """Requests per second of LOAD time."""

    def service(
        self,
        bus: Bus,
        holder: str,
        trace: Callable[[DecisionEvent], str | None] = lambda decided: None,
        clock: Clock | None = None,
        **settings: Any,
    ) -> PlannerService:
        target = SeriesSelector(
            NAME, model=MODEL, pools={PREFILL: PoolSelector(Role.PREFILL), DECODE: PoolSelector(Role.DECODE)}
        )
        scraper = EngineScraper(self.metrics.url, target, load_time_scale=self.config.load_time_scale)
        how = replace(ServiceSettings(holder=holder, lease_ttl_s=1.5, idle_s=0.1), **settings)
        return PlannerService(self.config, bus, [scraper], how, clock, watchers=[self.decided.append], trace=trace)

    async def another_bus(self) -> Bus:
        return await connect(BusSettings(servers=(self.server.url,), request_timeout_s=1.0))

    async def drive(self) -> None:
        """Requests at ``load_rps``, forever."""
        owed = 0.0
        while True:
            await asyncio.sleep(0.05)
            owed += self.load_rps * 0.05 * self.config.load_time_scale
            count, owed = int(owed), owed % 1.0
            self.metrics.engine.serve(MODEL, count, isl=1000, osl=200, ttft_s=0.2, itl_s=0.02)

    def show_workers(self, workers: dict[str, list[str]]) -> None:
        engine = self.metrics.engine
        for gauge in (engine.running, engine.waiting, engine.kv_usage):
            gauge.clear()
        for pool, names in workers.items():
            for name in names:
                engine.worker(MODEL, pool, name, running=1, waiting=0, kv=0.2)


@asynccontextmanager
async def staged(
    folder: Path, planner: PlannerConfig | None = None, fleet_type: type[Fleet] = Fleet
) -> AsyncIterator[Stage]:
    """A stage with one prefill and one decode worker running and no load yet."""
    planner = planner or config()
    async with EmbeddedServer(folder / "nats") as server, MetricsServer(EngineMetrics()) as metrics:
        # Streams are made once, however busy the machine is; afterwards short time-outs, because tests lose servers.
        making = await connect(BusSettings(servers=(server.url,), request_timeout_s=40.0))
        await stream_admin.apply(making)
        await making.close()
        bus = await connect(BusSettings(servers=(server.url,), request_timeout_s=1.0))
        try:
            fleet = fleet_type(bus, NAME)
            stage = Stage(server, bus, fleet, metrics, planner)
            fleet.on_workers = stage.show_workers
            fleet.place(PREFILL, 1)
            fleet.place(DECODE, 1)
            tasks = [asyncio.create_task(each) for each in (fleet.run(), stage.drive(), maintain(bus))]
            try:
                yield stage
            finally:
                for task in tasks:
                    task.cancel()
                for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                    if isinstance(outcome, Exception):
                        raise outcome
        finally:
            await bus.close()


@asynccontextmanager
async def running(stage: Stage, holder: str = "one", **settings: Any) -> AsyncIterator[PlannerService]:
    """A planner on a connection of its own, killed (not stopped) at the end when ``kill`` is set on it."""
    bus = await stage.another_bus()
    service = stage.service(bus, holder, **settings)
    task = asyncio.create_task(service.run())
    try:
        yield service
        assert not task.done(), task
    finally:
        await ended(task)
        await bus.close()


async def ended(*tasks: asyncio.Task[None]) -> None:
    """Cancel and wait; a task that does not heed its cancellation fails the test by its name."""
    for task in tasks:
        task.cancel()
    _, hung = await asyncio.wait(tasks, timeout=WAIT_S)
    assert not hung, [(task, task.get_stack()) for task in hung]

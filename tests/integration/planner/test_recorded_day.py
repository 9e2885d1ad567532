"""A recorded day through the service in accelerated time: real Prometheus, real nats-server, every tick explained."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from bus_schemas import v1
from bus_schemas.jetstream.watch import follow
from deploy.views.explain import explain
from planner.adapters.metrics.prometheus_client import PrometheusClient, PrometheusSettings
from planner.adapters.metrics.prometheus_observer import PrometheusObserver
from planner.adapters.metrics.series_selector import PoolSelector, SeriesSelector
from planner.adapters.traces import read_trace
from planner.domain.config import PlannerConfig
from planner.domain.pool import Role
from planner.domain.profile import DecodeProfile, PrefillProfile, Profile
from planner.domain.request import Request
from planner.runtime.service import PlannerService, ServiceSettings
from tests.integration.planner.stage import DECODE, MODEL, NAME, PREFILL, Stage, config, ended, staged
from tests.integration.prometheus_process import prometheus
from tests.shared_data import shared

SCALE = 600.0
TICK_S = 0.5
HOUR_S = 3600.0
FLAT_MB = 25.0
SLOW = Profile(
    "slow",
    PrefillProfile((100.0, 1000.0, 4000.0), (100.0, 400.0, 1600.0), (1000.0, 2500.0, 2500.0)),
    DecodeProfile(
        (0.01, 0.3, 0.9, 0.01, 0.3, 0.9),
        (400.0,) * 3 + (1600.0,) * 3,
        (20.0, 35.0, 60.0, 20.0, 35.0, 60.0),
        (75.0, 1286.0, 2250.0, 19.0, 321.0, 562.0),
        60_000,
    ),
)


def day_config() -> PlannerConfig:
    settings = config(interval_s=TICK_S, scale=SCALE, budget_watts=9000)
    deployment = settings.deployments[NAME]
    pools = {name: replace(pool, max_replicas=8, startup_s=120.0) for name, pool in deployment.pools.items()}
    slow = replace(deployment, pools=pools, profile=SLOW, ttft_ms=2000.0, itl_ms=60.0)
    return replace(settings, deployments={NAME: slow})


@dataclass
class Kept:
    """The messages on the bus, and how much memory this process held."""

    records: list[v1.PlanRecord] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)

    async def listen(self, stage: Stage) -> None:
        async for stored in follow(stage.bus, stage.bus.subjects.all_of("telemetry", "plan"), 0):
            if isinstance(stored.message, v1.PlanRecord):
                # Only what the checks need: the listener itself must not be what grows.
                self.records.append(stored.message.model_copy(update={"journal": None}))

    async def weigh(self) -> None:
        while True:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.megabytes.append(pages * 4096 / 1e6)
            await asyncio.sleep(1.0)


async def play(stage: Stage, requests: Sequence[Request], hours: float, enough: Callable[[], bool]) -> None:
    """Arrivals at ``SCALE`` times their pace, answered as the profile says; longer until ``enough`` was seen."""
    began, position = time.monotonic(), 0
    while True:
        now_s = (time.monotonic() - began) * SCALE
        if now_s > hours * HOUR_S and enough():
            return
        while position < len(requests) and requests[position].t_s <= now_s:
            one = requests[position]
            stage.metrics.engine.serve(MODEL, 1, isl=one.isl, osl=one.osl, ttft_s=0.05 + 0.0004 * one.isl, itl_s=0.03)
            position += 1
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "hours",
    [
        pytest.param(5.0, marks=[pytest.mark.long]),
        pytest.param(36.0, marks=[pytest.mark.nightly, pytest.mark.timeout(400)]),
    ],
)
async def test_a_recorded_day_is_decided_and_explained(tmp_path: Path, hours: float) -> None:
    requests = read_trace(shared("traces/servegen_m_large_36h_x0.02.csv.gz"))
    target = SeriesSelector(
        NAME,
        model=MODEL,
        namespace=NAME,
        pools={PREFILL: PoolSelector(Role.PREFILL), DECODE: PoolSelector(Role.DECODE)},
    )
    kept, ticks = Kept(), hours * HOUR_S / SCALE / TICK_S
    async with staged(tmp_path, day_config()) as stage:
        stage.fleet.spread(nodes=4, gpus_per_node=4)
        address = stage.metrics.url.split("/")[2]
        async with prometheus(tmp_path, {"frontend": address}, every="100ms") as url:
            client = PrometheusClient(PrometheusSettings(url, timeout_s=2.0, retries=1))
            observer = PrometheusObserver(client, target, window_s=2 * TICK_S, load_time_scale=SCALE)
            bus = await stage.another_bus()
            how = ServiceSettings(holder="day", lease_ttl_s=30.0, idle_s=0.1)
            service = PlannerService(stage.config, bus, [observer], how)
            tasks = [asyncio.create_task(work) for work in (service.run(), kept.listen(stage), kept.weigh())]
            try:
                # A slow machine skips ticks and scrapes: then the day is longer.
                await play(stage, requests, hours, lambda: len(kept.records) >= 0.9 * ticks and _mostly(kept.records))
                assert not any(task.done() for task in tasks), tasks
            finally:
                await ended(*tasks)
                await client.close()
                await bus.close()
    assert service.vitals.terms == 1
    assert service.vitals.ticks >= 0.9 * ticks
    assert len(kept.records) >= 0.9 * ticks
    _everything_is_explained(kept.records, stage)
    settled = kept.megabytes[len(kept.megabytes) // 3]
    assert kept.megabytes[-1] - settled < FLAT_MB, kept.megabytes
    assert stage.fleet.enforced_watts <= 9000


def _begun(records: Sequence[v1.PlanRecord]) -> list[bool]:
    """Whether requests were observed, by tick from the first one at which they were."""
    sized = ["requests" in record.observed for record in records]
    return sized[sized.index(True) :] if any(sized) else []


def _mostly(records: Sequence[v1.PlanRecord]) -> bool:
    begun = _begun(records)
    return sum(begun) >= 0.9 * len(begun) > 0


def _everything_is_explained(records: Sequence[v1.PlanRecord], stage: Stage) -> None:
    begun = _begun(records)
    assert len(begun) > len(records) - 15, "a window's worth of scrapes after the start"
    assert sum(begun) >= 0.9 * len(begun), [record.missing for record in records]
    for record in records:
        assert set(record.pools) == {PREFILL, DECODE}
        assert all(pool.chain for pool in record.pools.values())
        assert explain(record, None, None)
    decisions = stage.fleet.scaling
    assert len(decisions) > 2
    recorded = {record.decision_id for record in records}
    for decision in decisions:
        assert decision.reasons, decision
        assert all(reason.text for reason in decision.reasons)
        assert decision.decision_id in recorded

"""Mode ``load`` decides by means: queues and KV use read every second, not once an interval."""

from __future__ import annotations

import asyncio

import pytest

from planner.adapters.metrics.snapshot import GaugeMeans, GaugeSample
from planner.core.sizing.thresholds import signal
from planner.domain.ids import PoolId
from planner.domain.observation import PoolObservation
from planner.domain.pool import Replicas, Role
from planner.domain.reading import Missing, Sample
from tests.doubles.engine_metrics import EngineMetrics, MetricsServer
from tests.unit.planner.adapters.metrics.test_scrape import MODEL, scraping, value

PREFILL, DECODE = PoolId("prefill"), PoolId("decode")


def test_a_series_that_is_absent_from_a_reading_is_not_zero_there() -> None:
    means = GaugeMeans()
    means.add({"q": (GaugeSample({"worker": "a"}, 4.0), GaugeSample({"worker": "b"}, 1.0))})
    means.add({"q": (GaugeSample({"worker": "a"}, 8.0), GaugeSample({"worker": "c"}, float("nan")))})
    means.add({})
    assert {s.labels["worker"]: s.value for s in means.take()["q"]} == {"a": 6.0, "b": 1.0}
    assert means.take() == {}


def test_the_mean_is_compared_with_the_thresholds_where_there_is_one() -> None:
    """A queue of 9 at the instant of the tick, 0 for the rest of the interval, does not count as a queue."""
    seen = PoolObservation(
        Replicas(1),
        queued_requests=Sample(9.0),
        kv_usage=Sample(0.1),
        mean_queued_requests=Sample(0.3),
        mean_kv_usage=Sample(0.95),
    )
    assert signal(Role.PREFILL, seen) == 0.3
    assert signal(Role.DECODE, seen) == 0.95
    alone = PoolObservation(Replicas(1), queued_requests=Sample(9.0), kv_usage=Sample(0.1))
    assert (signal(Role.PREFILL, alone), signal(Role.DECODE, alone)) == (9.0, 0.1)


async def test_queues_are_read_between_two_observations() -> None:
    engine = EngineMetrics()
    engine.worker(MODEL, "prefill", "p0", running=0, waiting=10, kv=0.2)
    engine.worker(MODEL, "backend", "d0", running=0, waiting=0, kv=0.9)
    async with MetricsServer(engine) as server, scraping(server, pull_s=0.02) as scraper:
        first = await scraper.observe(100.0)
        assert value(first.pools[PREFILL].mean_queued_requests) == 10
        before = server.requests
        async with asyncio.timeout(60):
            while server.requests < before + 12:
                await asyncio.sleep(0.005)
        engine.worker(MODEL, "prefill", "p0", running=0, waiting=0, kv=0.2)
        engine.worker(MODEL, "backend", "d0", running=0, waiting=0, kv=0.1)
        seen = (await scraper.observe(110.0)).pools
        assert value(seen[PREFILL].queued_requests) == 0
        assert value(seen[PREFILL].mean_queued_requests) > 5
        assert value(seen[DECODE].kv_usage) == pytest.approx(0.1)
        assert 0.5 < value(seen[DECODE].mean_kv_usage) < 0.9


async def test_a_worker_that_ended_within_the_interval_has_no_queue_any_more() -> None:
    engine = EngineMetrics()
    engine.worker(MODEL, "prefill", "p0", running=0, waiting=2, kv=0.2)
    engine.worker(MODEL, "prefill", "p1", running=0, waiting=50, kv=0.2)
    async with MetricsServer(engine) as server, scraping(server, pull_s=0.02) as scraper:
        await scraper.observe(100.0)
        before = server.requests
        async with asyncio.timeout(60):
            while server.requests < before + 3:
                await asyncio.sleep(0.005)
        server.engine = EngineMetrics()
        server.engine.worker(MODEL, "prefill", "p0", running=0, waiting=2, kv=0.2)
        seen = (await scraper.observe(110.0)).pools
        assert value(seen[PREFILL].mean_queued_requests) == 2


async def test_without_a_pull_interval_there_are_no_means() -> None:
    engine = EngineMetrics()
    engine.worker(MODEL, "prefill", "p0", running=0, waiting=10, kv=0.2)
    async with MetricsServer(engine) as server, scraping(server) as scraper:
        seen = (await scraper.observe(100.0)).pools
        assert isinstance(seen[PREFILL].mean_queued_requests, Missing)

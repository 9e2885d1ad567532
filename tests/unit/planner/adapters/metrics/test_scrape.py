"""Readings by scraping: real pages over real HTTP, and everything that can be wrong with them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from planner.adapters.metrics.scrape import EngineScraper
from planner.adapters.metrics.series_selector import PoolSelector, SeriesSelector
from planner.domain.ids import DeploymentId, PoolId
from planner.domain.pool import Role
from planner.domain.reading import Missing, MissingReason, Sample
from tests.doubles.engine_metrics import EngineMetrics, MetricsServer

MODEL = "llama-8b"
TARGET = SeriesSelector(
    DeploymentId("prod-chat"),
    model=MODEL,
    namespace="prod-chat",
    pools={PoolId("prefill"): PoolSelector(Role.PREFILL), PoolId("decode"): PoolSelector(Role.DECODE)},
    ttft_ms=500.0,
    itl_ms=50.0,
)


@asynccontextmanager
async def scraping(*servers: MetricsServer, **settings: Any) -> AsyncIterator[EngineScraper]:
    scraper = EngineScraper([server.url for server in servers], TARGET, **settings)
    try:
        yield scraper
    finally:
        await scraper.close()


def value(reading: Sample | Missing) -> float:
    assert isinstance(reading, Sample), reading
    return reading.value


async def test_differences_between_scrapes_become_an_observation() -> None:
    async with MetricsServer(EngineMetrics()) as server, scraping(server) as scraper:
        server.engine.serve(MODEL, 5, isl=1000, osl=100, ttft_s=0.4, itl_s=0.02)
        first = await scraper.observe(100.0)
        assert first.requests == Missing(MissingReason.FIRST_SCRAPE)
        server.engine.serve(MODEL, 30, isl=800, osl=150, ttft_s=0.3, itl_s=0.015)
        server.engine.serve(MODEL, 10, isl=1600, osl=150, ttft_s=0.7, itl_s=0.015)
        second = await scraper.observe(110.0)
        assert second.interval_s == 10.0
        assert value(second.requests) == 40
        assert value(second.isl_tokens) == pytest.approx(1000)
        assert value(second.osl_tokens) == pytest.approx(150)
        assert value(second.ttft_ms) == pytest.approx(400)
        assert value(second.itl_ms) == pytest.approx(15)
        assert 500 < value(second.ttft_p95_ms) <= 1000
        assert value(second.isl_cv2) > 0
        assert value(second.ttft_within) == pytest.approx(0.75), "30 of 40 first tokens within 500 ms"
        assert value(second.itl_within) == pytest.approx(1.0)


async def test_an_interval_of_a_replay_is_in_load_seconds() -> None:
    async with MetricsServer(EngineMetrics()) as server, scraping(server, load_time_scale=60.0) as scraper:
        await scraper.observe(0.0)
        assert (await scraper.observe(2.0)).interval_s == 120.0


async def test_nothing_started_is_zero_but_its_latency_is_unknown() -> None:
    async with MetricsServer(EngineMetrics()) as server, scraping(server) as scraper:
        server.engine.serve(MODEL, 1, isl=10, osl=10, ttft_s=0.1, itl_s=0.01)
        await scraper.observe(0.0)
        idle = await scraper.observe(10.0)
        assert value(idle.requests) == 0
        assert idle.ttft_ms == Missing(MissingReason.NO_DATA)


async def test_the_first_requests_of_a_model_count_from_zero() -> None:
    async with MetricsServer(EngineMetrics()) as server, scraping(server) as scraper:
        server.engine.serve("another", 1, isl=10, osl=10, ttft_s=0.1, itl_s=0.01)
        before = await scraper.observe(0.0)
        assert isinstance(before.requests, Missing)
        server.engine.serve(MODEL, 7, isl=10, osl=10, ttft_s=0.1, itl_s=0.01)
        assert value((await scraper.observe(10.0)).requests) == 7


async def test_other_models_and_namespaces_do_not_mix() -> None:
    engine = EngineMetrics()
    async with MetricsServer(engine) as server, scraping(server) as scraper:
        engine.serve(MODEL, 1, isl=10, osl=10, ttft_s=0.1, itl_s=0.01)
        await scraper.observe(0.0)
        engine.serve(MODEL, 3, isl=10, osl=10, ttft_s=0.1, itl_s=0.01)
        engine.serve("another", 50, isl=9000, osl=10, ttft_s=4.0, itl_s=0.01)
        engine.namespace = "prod-other"
        engine.serve(MODEL, 70, isl=9000, osl=10, ttft_s=4.0, itl_s=0.01)
        seen = await scraper.observe(10.0)
        assert value(seen.requests) == 3
        assert value(seen.ttft_ms) == pytest.approx(100)


@pytest.mark.parametrize("boot_s", [1000.0, 2000.0])
async def test_a_restart_is_missing_not_less_load(boot_s: float) -> None:
    """Also where the new process has already counted further than the old one: its start time shows it."""
    async with MetricsServer(EngineMetrics()) as server, scraping(server) as scraper:
        server.engine.serve(MODEL, 20, isl=10, osl=10, ttft_s=0.1, itl_s=0.01)
        await scraper.observe(0.0)
        server.engine = EngineMetrics(boot_s=boot_s)
        server.engine.serve(MODEL, 5 if boot_s == 1000.0 else 50, isl=10, osl=10, ttft_s=0.1, itl_s=0.01)
        assert (await scraper.observe(10.0)).requests == Missing(MissingReason.COUNTER_RESET)
        server.engine.serve(MODEL, 4, isl=10, osl=10, ttft_s=0.1, itl_s=0.01)
        assert value((await scraper.observe(20.0)).requests) == 4


async def test_one_unreachable_page_of_two_makes_the_sum_missing_and_ages() -> None:
    one, two = MetricsServer(EngineMetrics()), MetricsServer(EngineMetrics())
    async with one, two, scraping(one, two) as scraper:
        for server in (one, two):
            server.engine.serve(MODEL, 1, isl=10, osl=10, ttft_s=0.1, itl_s=0.01)
        await scraper.observe(0.0)
        one.engine.serve(MODEL, 2, isl=10, osl=10, ttft_s=0.1, itl_s=0.01)
        two.engine.serve(MODEL, 3, isl=10, osl=10, ttft_s=0.1, itl_s=0.01)
        assert value((await scraper.observe(10.0)).requests) == 5
        two.broken = True
        assert (await scraper.observe(20.0)).requests == Missing(MissingReason.UNREACHABLE, 10.0)
        assert "500" in scraper.last_error
        two.broken = False
        two.engine.serve(MODEL, 8, isl=10, osl=10, ttft_s=0.1, itl_s=0.01)
        back = await scraper.observe(30.0)
        assert value(back.requests) == 8
        assert back.interval_s == 20.0


async def test_pages_too_old_to_compare_are_stale() -> None:
    async with MetricsServer(EngineMetrics()) as server, scraping(server, max_gap_s=60.0) as scraper:
        server.engine.serve(MODEL, 1, isl=10, osl=10, ttft_s=0.1, itl_s=0.01)
        await scraper.observe(0.0)
        assert (await scraper.observe(61.0)).requests == Missing(MissingReason.STALE)


async def test_workers_are_counted_by_pool() -> None:
    engine = EngineMetrics()
    engine.worker(MODEL, "prefill", "p0", running=1, waiting=4, kv=0.1)
    engine.worker(MODEL, "backend", "d0", running=10, waiting=0, kv=0.5)
    engine.worker(MODEL, "backend", "d1", running=20, waiting=1, kv=0.7)
    engine.worker("another", "backend", "x0", running=99, waiting=9, kv=0.9)
    async with MetricsServer(engine) as server, scraping(server) as scraper:
        pools = (await scraper.observe(0.0)).pools
        prefill, decode = pools[PoolId("prefill")], pools[PoolId("decode")]
        assert prefill.replicas.ready == 1
        assert value(prefill.queued_requests) == 4
        assert decode.replicas.ready == 2
        assert value(decode.running_requests) == 30
        assert value(decode.kv_usage) == pytest.approx(0.6)


async def test_a_page_that_says_nothing_of_workers_leaves_the_pools_unknown() -> None:
    async with MetricsServer(EngineMetrics()) as server, scraping(server) as scraper:
        assert (await scraper.observe(0.0)).pools == {}

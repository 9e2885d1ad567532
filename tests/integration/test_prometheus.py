"""Readings through a REAL Prometheus that scrapes engine doubles: right numbers, and missing where it must be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from planner.adapters.observe.prometheus import PrometheusObserver
from planner.adapters.observe.prometheus_client import PrometheusClient, PrometheusSettings
from planner.adapters.observe.target import PoolSelector, Target
from planner.domain.ids import DeploymentId, PoolId
from planner.domain.observation import DeploymentObservation
from planner.domain.pool import Role
from planner.domain.reading import Missing, MissingReason, Sample
from tests.doubles.engine_metrics import EngineMetrics, MetricsServer
from tests.integration.prometheus_process import prometheus

MODEL = "Llama-8B"
POOLS = {PoolId("prefill"): PoolSelector(Role.PREFILL), PoolId("decode"): PoolSelector(Role.DECODE)}
WAIT_S = 20.0
WINDOW_S = 4.0


def target(namespace: str = "prod-chat") -> Target:
    return Target(DeploymentId(namespace), model=MODEL.lower(), namespace=namespace, pools=POOLS)


@asynccontextmanager
async def observing(url: str, aim: Target, *, stale_s: float = 60.0) -> AsyncIterator[PrometheusObserver]:
    client = PrometheusClient(PrometheusSettings(url, timeout_s=5.0, retries=0))
    observer = PrometheusObserver(client, aim, window_s=WINDOW_S, stale_s=stale_s, owns_client=True)
    try:
        yield observer
    finally:
        await observer.close()


async def until(
    observer: PrometheusObserver,
    holds: Callable[[DeploymentObservation], bool],
    act: Callable[[], None] = lambda: None,
) -> DeploymentObservation:
    async with asyncio.timeout(WAIT_S):
        while True:
            act()
            seen = await observer.observe(asyncio.get_running_loop().time())
            if holds(seen):
                return seen
            await asyncio.sleep(0.2)


async def test_readings_of_one_deployment_among_others(tmp_path: Path) -> None:
    """Two models and two namespaces on one Prometheus; the load is steady, so rates are known."""
    mine, other = EngineMetrics("prod-chat"), EngineMetrics("prod-other")
    mine.worker(MODEL, "prefill", "p0", running=1, waiting=4, kv=0.1)
    mine.worker(MODEL, "backend", "d0", running=10, waiting=0, kv=0.5)
    mine.worker(MODEL, "backend", "d1", running=20, waiting=1, kv=0.7)
    other.worker(MODEL, "backend", "x0", running=99, waiting=9, kv=0.9)

    def load() -> None:
        mine.serve(MODEL, 6, isl=800, osl=150, ttft_s=0.3, itl_s=0.015)
        mine.serve(MODEL, 2, isl=1600, osl=150, ttft_s=0.7, itl_s=0.015)
        mine.serve("another", 50, isl=9000, osl=10, ttft_s=4.0, itl_s=0.09)
        other.serve(MODEL, 50, isl=9000, osl=10, ttft_s=4.0, itl_s=0.09)

    load()
    async with MetricsServer(mine) as one, MetricsServer(other) as two:
        addresses = {"mine": one.url.split("/")[2], "other": two.url.split("/")[2]}
        async with prometheus(tmp_path, addresses) as url, observing(url, target()) as observer:
            started = asyncio.get_running_loop().time()
            pushed = 0

            def push() -> None:
                nonlocal pushed
                due = int((asyncio.get_running_loop().time() - started) / 0.2)
                for _ in range(due - pushed):
                    load()
                pushed = due

            seen = await until(observer, lambda s: isinstance(s.num_req, Sample) and s.num_req.value > 120, push)
            assert seen.interval_s == WINDOW_S
            assert isinstance(seen.num_req, Sample)
            assert seen.num_req.value == pytest.approx(8 / 0.2 * WINDOW_S, rel=0.3)
            assert isinstance(seen.isl_tokens, Sample)
            assert seen.isl_tokens.value == pytest.approx(1000, rel=0.01)
            assert isinstance(seen.ttft_ms, Sample)
            assert seen.ttft_ms.value == pytest.approx(400, rel=0.01)
            assert isinstance(seen.itl_ms, Sample)
            assert seen.itl_ms.value == pytest.approx(15, rel=0.01)
            assert isinstance(seen.ttft_p95_ms, Sample)
            assert 500 < seen.ttft_p95_ms.value <= 1000
            decode = seen.pools[PoolId("decode")]
            assert decode.replicas.ready == 2
            assert decode.kv_usage == Sample(pytest.approx(0.6))
            assert seen.pools[PoolId("prefill")].queued_requests == Sample(4.0)


async def test_a_reset_and_a_silent_frontend_are_missing_not_less_load(tmp_path: Path) -> None:
    engine = EngineMetrics()

    def load() -> None:
        server.engine.serve(MODEL, 3, isl=800, osl=150, ttft_s=0.3, itl_s=0.015)

    async with MetricsServer(engine) as server:
        load()
        async with (
            prometheus(tmp_path, {"mine": server.url.split("/")[2]}) as url,
            observing(url, target()) as observer,
        ):
            await until(observer, lambda s: isinstance(s.num_req, Sample) and s.num_req.value > 20, load)
            server.engine = EngineMetrics(boot_s=2000.0)
            load()
            reset = await until(observer, lambda s: isinstance(s.num_req, Missing))
            assert isinstance(reset.num_req, Missing)
            assert reset.num_req.reason is MissingReason.COUNTER_RESET
            await until(observer, lambda s: isinstance(s.num_req, Sample), load)
            server.broken = True
            gone = await until(observer, lambda s: isinstance(s.num_req, Missing))
            assert isinstance(gone.num_req, Missing)
            assert gone.num_req.reason in {MissingReason.NO_DATA, MissingReason.NOT_EXPORTED}
            assert gone.pools == {}


async def test_no_prometheus_is_missing_with_an_age(tmp_path: Path) -> None:
    engine = EngineMetrics()
    async with MetricsServer(engine) as server:
        engine.serve(MODEL, 3, isl=800, osl=150, ttft_s=0.3, itl_s=0.015)
        async with observing("http://127.0.0.1:1", target()) as observer:
            seen = await observer.observe(0.0)
            assert seen.num_req == Missing(MissingReason.UNREACHABLE)
            assert "127.0.0.1:1" in observer.last_error
        async with (
            prometheus(tmp_path, {"mine": server.url.split("/")[2]}) as url,
            observing(url, target("nobody")) as observer,
        ):
            seen = await observer.observe(0.0)
            assert isinstance(seen.num_req, Missing)
            assert seen.num_req.reason is MissingReason.NOT_EXPORTED

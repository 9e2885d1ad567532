"""The plant against the clock, its real /metrics page, and the planner's own reader of it."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time

import aiohttp
import pytest

from planner.adapters.metrics.exposition import parse_page
from planner.adapters.metrics.series_selector import PoolSelector, SeriesSelector
from planner.adapters.metrics.simulated_cluster import SIMULATED
from planner.domain.ids import DeploymentId, PoolId
from planner.domain.pool import Role
from planner.domain.request import Request
from planner.sim.live_cluster import LiveCluster
from planner.sim.workload.generated import generated
from tests.unit.planner.sim.small_plants import disaggregated

TARGET = SeriesSelector(
    DeploymentId("d"),
    model="demo",
    namespace="default-demo",
    pools={PoolId("prefill"): PoolSelector(Role.PREFILL), PoolId("decode"): PoolSelector(Role.DECODE)},
)


async def page_of(cluster: LiveCluster) -> str:
    async with aiohttp.ClientSession() as session, session.get(cluster.url) as answer:
        assert answer.status == 200
        return await answer.text()


async def test_it_keeps_pace_serves_metrics_and_obeys() -> None:
    plant = disaggregated(2, 1, startup_s=5.0)
    async with LiveCluster(plant, generated(0, requests_per_s=5.0), speed=50.0) as cluster:
        began, load_s = time.monotonic(), cluster.load_s()
        async with asyncio.timeout(60.0):
            while cluster.load_s() < 30.0:
                await asyncio.sleep(0.02)
        # Never faster than it says; how much slower is the machine's affair.
        assert cluster.load_s() - load_s <= 50.0 * (time.monotonic() - began) + 50.0 * 0.1
        page = parse_page(await page_of(cluster), TARGET, SIMULATED)
        started = sum(page.cumulative["dynamo_frontend_requests_started_total"].values())
        assert started > 30
        assert page.load_s is not None
        assert cluster.start_worker("decode") is not None
        assert cluster.worker_counts()["decode"].starting == 1
        gpu = cluster.readings()[0].gpu
        assert cluster.set_cap(gpu, 300_000) == 300_000
        assert cluster.reading(gpu).enforced_mw == 300_000
        async with asyncio.timeout(60.0):
            while cluster.worker_counts()["decode"].ready < 2:
                await asyncio.sleep(0.02)
        assert cluster.drain_one("decode") is not None
        summary = cluster.summary(1000.0, 50.0)
        assert summary["requests"] >= summary["good_requests"] > 0
        assert summary["joules_per_output_token"] > 0


async def test_the_end_of_a_finite_load_is_signalled_and_the_port_is_free_again() -> None:
    cluster = LiveCluster(disaggregated(), [Request(0.1 * i, 100, 20) for i in range(20)], speed=100.0)
    async with cluster:
        await asyncio.wait_for(cluster.finished.wait(), 60.0)
        url = cluster.url
    assert cluster.summary(1e9, 1e9)["good_requests"] == 20
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(url)


async def test_a_port_in_use_is_an_os_error_and_leaves_nothing_behind() -> None:
    async with LiveCluster(disaggregated(), [], speed=1.0) as first:
        port = int(first.url.split(":")[2].split("/")[0])
        with pytest.raises(OSError, match="address already in use"):
            await LiveCluster(disaggregated(), [], port=port).open()


async def test_drivers_may_call_from_threads_while_it_runs() -> None:
    plant = disaggregated(2, 2)
    errors: list[BaseException] = []
    async with LiveCluster(plant, generated(0, requests_per_s=20.0), speed=100.0) as cluster:
        gpus = [reading.gpu for reading in cluster.readings()]

        def hammer() -> None:
            try:
                for place, gpu in itertools.product(range(60), gpus):
                    cluster.set_cap(gpu, 250_000 + 5000 * place)
                    cluster.reading(gpu)
            except BaseException as error:  # noqa: BLE001 - carried to the test
                errors.append(error)

        threads = [threading.Thread(target=hammer) for _ in range(3)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            await asyncio.sleep(0.02)
    assert not errors
    assert cluster.reading(gpus[0]).enforced_mw == 250_000 + 5000 * 59

"""The front of real workers: routing by the connector's file, whole answers, and what the planner reads of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from deploy.demo.real_workers.front import Front
from deploy.demo.real_workers.measured_load import MeasuredLoad
from deploy.demo.real_workers.ready_workers import ReadyWorkers
from deploy.load.load_client import LoadClient, LoadTarget
from planner.adapters.metrics.scrape import EngineScraper
from planner.adapters.metrics.series_selector import PoolSelector, SeriesSelector
from planner.domain.ids import DeploymentId, PoolId
from planner.domain.pool import Role
from planner.domain.reading import Sample
from planner.domain.request import Request
from tests.contract.bus import until
from tests.unit.deploy.engine.test_engine_app import SLOW, RunningEngine, engine

POOL = PoolId("aggregated")


def serve(file: Path, **urls: str) -> None:
    """Name the workers as the connector does."""
    file.write_text(json.dumps({"workers": [{"worker": name, "pool": POOL, "url": url} for name, url in urls.items()]}))


@asynccontextmanager
async def front(file: Path) -> AsyncIterator[RunningEngine]:
    """A front, with the client of an engine."""
    async with Front(file, "demo") as made, aiohttp.ClientSession() as session:
        yield RunningEngine(None, None, made.url, session)  # type: ignore[arg-type]


def scraper(url: str) -> EngineScraper:
    pools = {POOL: PoolSelector(Role.AGGREGATED, "aggregated")}
    return EngineScraper(f"{url}/metrics", SeriesSelector(DeploymentId("d"), "demo", "d", pools))


async def test_answers_pass_unchanged_and_the_planner_reads_requests_and_workers(tmp_path: Path) -> None:
    file = tmp_path / "endpoints.json"
    async with engine() as one, engine() as other, front(file) as made:
        serve(file, one=one.url, other=other.url)
        observer = scraper(made.url)
        try:
            await observer.observe(0.0)
            body = {"prompt": "tell me more", "max_tokens": 12, "ignore_eos": True}
            status, whole = await made.post("/v1/completions", body)
            assert status == 200
            events = await made.events("/v1/completions", body)
            assert "".join(event["choices"][0]["text"] for event in events) == whole["choices"][0]["text"]
            asked = await made.events("/v1/completions", {**body, "stream_options": {"include_usage": True}})
            assert asked[-1]["usage"]["completion_tokens"] == 12
            status, _ = await made.post("/v1/completions", {**body, "n": 2})
            assert status == 400
            seen = await observer.observe(10.0)
        finally:
            await observer.close()
    assert seen.requests == Sample(4.0)
    assert (seen.isl_tokens, seen.osl_tokens) == (Sample(3.0), Sample(12.0))
    assert isinstance(seen.ttft_ms, Sample)
    assert isinstance(seen.itl_ms, Sample)
    assert seen.pools[POOL].replicas.ready == 2
    assert seen.pools[POOL].running_requests == Sample(0.0)


async def test_a_request_waits_for_a_worker_and_leaves_one_that_drains(tmp_path: Path) -> None:
    file = tmp_path / "endpoints.json"
    async with engine() as draining, engine() as ready, front(file) as made:
        draining.app.drain()
        asked = asyncio.create_task(made.post("/v1/completions", {"prompt": "a", "max_tokens": 2}))

        async def queued() -> bool:
            return 'dynamo_frontend_queued_requests{model="demo"} 1.0' in await made.metrics()

        await until(queued, "the request waits")
        # Of two without requests the first by name is asked first.
        serve(file, draining=draining.url, ready=ready.url)
        status, _ = await asyncio.wait_for(asked, 40)
        assert status == 200


async def test_a_stream_whose_worker_ends_is_cut_off_and_counts_as_failed(tmp_path: Path) -> None:
    file = tmp_path / "endpoints.json"
    async with front(file) as made:
        client = LoadClient(LoadTarget(made.url, "demo", chat=False, key="", timeout_s=60, max_in_flight=10))
        async with engine(SLOW) as worker:
            serve(file, worker=worker.url)
            sending = asyncio.create_task(client.run([Request(0.0, 3, 500)]))
            await until(lambda: worker.loop.batch.running, "the request runs")
            await until(lambda: next(iter(worker.loop.batch.running)).done >= 1, "a token")
        await asyncio.wait_for(sending, 40)
    [outcome] = client.outcomes
    assert outcome.failure


def test_the_worker_with_the_fewest_requests_gets_the_next_one(tmp_path: Path) -> None:
    file = tmp_path / "endpoints.json"
    workers = ReadyWorkers(file)
    assert workers.least_loaded(()) is None
    serve(file, one="http://one", two="http://two")
    first = workers.least_loaded(())
    assert first is not None
    with workers.counted(first):
        second = workers.least_loaded(())
        assert second is not None
        assert {first.worker, second.worker} == {"one", "two"}
        assert workers.least_loaded({second.worker}) == first
    assert workers.least_loaded(()) == first


async def test_a_request_in_flight_while_figures_are_read_counts_when_it_ends(tmp_path: Path) -> None:
    file = tmp_path / "endpoints.json"
    async with engine(SLOW) as worker, front(file) as made:
        serve(file, worker=worker.url)
        load = MeasuredLoad(made.url, "demo", 60_000, 60_000)
        sending = asyncio.create_task(load.run([Request(0.0, 3, 4)]))
        await until(lambda: worker.loop.batch.running, "the request runs")
        assert (load.totals()["good_requests"], load.totals()["in_flight_requests"]) == (0, 1)
        await asyncio.wait_for(sending, 40)
        total = load.totals()
    assert (total["requests"], total["good_requests"], total["output_tokens"]) == (1, 1, 4)
    assert (total["in_flight_requests"], total["failed_requests"]) == (0, {})

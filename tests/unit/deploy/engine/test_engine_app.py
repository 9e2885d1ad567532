"""The engine over HTTP: both calls, streamed and whole, disconnects, draining, metrics."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from deploy.engine.continuous_batch import ContinuousBatch
from deploy.engine.engine_app import EngineApp, EngineModel
from deploy.engine.engine_gpus import EngineGpus, OwnGpu
from deploy.engine.engine_loop import EngineLoop
from deploy.engine.engine_run import LinearTimes
from deploy.engine.kv_blocks import KvBlocks
from planner.adapters.metrics.scrape import EngineScraper
from planner.adapters.metrics.series_selector import PoolSelector, SeriesSelector
from planner.adapters.power_priors import curve, gpu, phase_of
from planner.domain.ids import DeploymentId, PoolId
from planner.domain.pool import Role
from planner.domain.reading import Sample
from planner.sim.cluster.sim_gpu import H200
from tests.contract.bus import until

FAST = LinearTimes(1, 0.01, 1, 0, 0)
SLOW = LinearTimes(1, 0.01, 200, 0, 0)
"""A token in 200 ms: an answer that is still running when a test acts."""


class RunningEngine:
    """One engine in this process, and a client."""

    def __init__(self, loop: EngineLoop, app: EngineApp, url: str, session: aiohttp.ClientSession) -> None:
        self.loop, self.app, self.url, self.session = loop, app, url, session

    async def post(self, path: str, body: object) -> tuple[int, dict]:
        async with self.session.post(self.url + path, json=body) as response:
            return response.status, await response.json()

    async def events(self, path: str, body: dict) -> list[dict]:
        """The events of a stream that ended well."""
        async with self.session.post(self.url + path, json={**body, "stream": True}) as response:
            assert response.status == 200
            lines = [line for line in (await response.text()).split("\n\n") if line]
        assert lines[-1] == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]

    async def metrics(self) -> str:
        async with self.session.get(self.url + "/metrics") as response:
            return await response.text()


@asynccontextmanager
async def engine(times: LinearTimes = FAST, *, startup_s: float = 0.0) -> AsyncIterator[RunningEngine]:
    law = times.law(100_000)
    own = OwnGpu("0", H200, H200.max_mw, time.monotonic)
    gpus = EngineGpus([own], curve(gpu("h200"), phase_of(Role.DECODE)))
    loop = EngineLoop("demo", ContinuousBatch(law, KvBlocks(100_000)), gpus, time.monotonic)
    app = EngineApp(EngineModel("demo", 4096, 7, 20.0), loop, "engine-1")
    runner = web.AppRunner(app.application(), handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    tasks = [asyncio.create_task(loop.run()), asyncio.create_task(loop.load(startup_s))]
    try:
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            running = RunningEngine(loop, app, url, session)
            if not startup_s:
                await until(lambda: loop.stage == "serving", "the engine serves")
            yield running
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await runner.cleanup()


async def test_a_streamed_answer_is_the_whole_one_in_pieces():
    async with engine() as running:
        body = {"prompt": "tell me more", "max_tokens": 12, "ignore_eos": True}
        status, whole = await running.post("/v1/completions", body)
        events = await running.events("/v1/completions", {**body, "stream_options": {"include_usage": True}})
        assert status == 200
        pieces = [event["choices"][0]["text"] for event in events[:-1]]
        assert len(pieces) == 12
        assert "".join(pieces) == whole["choices"][0]["text"]
        assert [event["choices"][0]["finish_reason"] for event in events[:-1]] == [None] * 11 + ["length"]
        assert events[-1]["choices"] == []
        assert events[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"] == 12


async def test_a_chat_has_messages_and_deltas():
    async with engine() as running:
        body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4, "ignore_eos": True}
        _, whole = await running.post("/v1/chat/completions", body)
        events = await running.events("/v1/chat/completions", body)
        assert events[0]["object"] == "chat.completion.chunk"
        assert events[0]["choices"][0]["delta"]["role"] == "assistant"
        text = "".join(event["choices"][0]["delta"]["content"] for event in events)
        assert whole["choices"][0]["message"] == {"role": "assistant", "content": text}


async def test_a_prefill_worker_hands_its_prompt_over_and_a_decode_worker_takes_it():
    async with engine() as running:
        first = {"prompt": "a b c", "max_tokens": 1, "kv_transfer_params": {"do_remote_decode": True}}
        _, prefilled = await running.post("/v1/completions", first)
        handed_over = prefilled["kv_transfer_params"]
        assert handed_over["remote_engine_id"] == "engine-1"
        status, _ = await running.post("/v1/completions", {"prompt": "a b c", "kv_transfer_params": handed_over})
        assert status == 200


async def test_mistakes_are_openai_errors_and_the_engine_goes_on():
    async with engine() as running:
        for body, status, kind in (
            ({"prompt": "a", "n": 3}, 400, "BadRequestError"),
            ({"prompt": "a", "max_tokens": 4096}, 400, "BadRequestError"),
            ({"prompt": "a", "model": "other"}, 404, "NotFoundError"),
        ):
            found, answer = await running.post("/v1/completions", body)
            assert (found, answer["error"]["type"]) == (status, kind)
        async with running.session.post(running.url + "/v1/completions", data=b"{no json") as response:
            assert response.status == 400
        assert (await running.post("/v1/completions", {"prompt": "a"}))[0] == 200


async def test_a_client_that_leaves_aborts_its_request():
    async with engine(SLOW) as running:
        body = {"prompt": "a", "max_tokens": 1000, "ignore_eos": True, "stream": True}
        async with running.session.post(running.url + "/v1/completions", json=body) as response:
            await response.content.readany()
            assert running.loop.batch.running
        await until(lambda: not running.loop.batch.busy, "the streamed request was aborted")
        waiting = asyncio.create_task(running.post("/v1/completions", {**body, "stream": False}))
        await until(lambda: running.loop.batch.running, "the second request runs")
        waiting.cancel()
        await until(lambda: not running.loop.batch.busy, "the second request was aborted")
        assert running.loop.batch.kv.used == 0
        aborted = 'vllm:request_success_total{engine="0",finished_reason="abort",model_name="demo"} 2.0'
        assert aborted in await running.metrics()


async def test_a_draining_engine_refuses_what_is_new_and_completes_what_it_has():
    async with engine(SLOW) as running:
        body = {"prompt": "a", "max_tokens": 5, "ignore_eos": True}
        answer = asyncio.create_task(running.events("/v1/completions", body))
        await until(lambda: running.loop.batch.running, "the request runs")
        status, state = await running.post("/drain", {})
        assert (status, state) == (200, {"stage": "draining", "in_flight": 1})
        assert (await running.post("/v1/completions", body))[0] == 503
        async with running.session.get(running.url + "/health") as health:
            assert health.status == 503
        assert not running.app.emptied.is_set()
        assert len(await answer) == 5
        await until(running.app.emptied.is_set, "the engine is empty")


async def test_an_engine_that_loads_is_not_ready():
    async with engine(startup_s=600) as running:
        async with running.session.get(running.url + "/health") as health:
            assert (health.status, await health.text()) == (503, "loading\n")
        assert (await running.post("/v1/completions", {"prompt": "a"}))[0] == 503


async def test_the_planner_reads_the_engines_page():
    pools = {PoolId("only"): PoolSelector(Role.AGGREGATED)}
    async with engine() as running:
        scraper = EngineScraper(running.url + "/metrics", SeriesSelector(DeploymentId("d"), model="demo", pools=pools))
        try:
            await scraper.observe(0.0)
            for _ in range(2):
                await running.post("/v1/completions", {"prompt": "a b " * 20, "max_tokens": 3, "ignore_eos": True})
            seen = await scraper.observe(10.0)
        finally:
            await scraper.close()
        assert seen.requests == Sample(2.0)
        assert seen.isl_tokens == Sample(40.0)
        assert seen.osl_tokens == Sample(3.0)
        assert seen.kv_hit_rate == Sample(32 / 80)
        for reading in (seen.ttft_ms, seen.itl_ms, seen.request_duration_s):
            assert isinstance(reading, Sample)
        assert seen.pools[PoolId("only")].replicas.ready == 1
        assert "wattscale_engine_gpu_draw_watts" in await running.metrics()

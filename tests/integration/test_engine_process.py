"""`wattscale engine` as a process: it serves, shares its GPU with an agent, and ends when its answers are complete."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from deploy.engine.shared_gpu import SharedGpu, make_shared_gpu
from planner.sim.cluster.sim_gpu import H200
from tests.command_line import process, run
from tests.contract.bus import until

ROOT = Path(__file__).parents[2]
LINES = (
    *("--prefill-base-ms", "1", "--prefill-ms-per-token", "0", "--itl-base-ms", "50"),
    *("--itl-ms-per-request", "0", "--itl-ms-per-kv-token", "0"),
)


@asynccontextmanager
async def started(*words: str, **environment: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The process and its address."""
    engine = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.cli.main", "engine", *words),
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
    )
    assert engine.stdout is not None
    try:
        line = (await asyncio.wait_for(engine.stdout.readline(), 60)).decode()
        assert line.startswith("engine on http://127.0.0.1:"), line
        yield engine, line.split()[-1]
    finally:
        if engine.returncode is None:
            engine.kill()
        await engine.wait()


async def test_sigterm_lets_the_answers_in_hand_complete():
    async with started(*LINES) as (engine, url), aiohttp.ClientSession() as session:
        body = {"prompt": "a", "max_tokens": 20, "ignore_eos": True, "stream": True}
        async with session.post(url + "/v1/completions", json=body) as response:
            text = (await response.content.readany()).decode()
            engine.send_signal(signal.SIGTERM)
            text += (await response.content.read()).decode()
        assert text.count("data: {") == 20
        assert text.endswith("data: [DONE]\n\n")
        assert await asyncio.wait_for(engine.wait(), 60) == 0


async def test_its_gpu_is_shared_with_an_agent(tmp_path):
    file = make_shared_gpu(tmp_path, "GPU-0", H200, H200.max_mw, time.monotonic())
    agent = SharedGpu(file, time.monotonic)
    words = (*LINES, "--gpu-folder", str(tmp_path), "--role", "prefill")
    async with started(*words, CUDA_VISIBLE_DEVICES="GPU-0") as (engine, url), aiohttp.ClientSession() as session:
        body = {"prompt": "a", "max_tokens": 1000, "ignore_eos": True, "stream": True}
        async with session.post(url + "/v1/completions", json=body) as response:
            await response.content.readany()
            await until(lambda: agent.read().load_mw > H200.idle_mw, "the engine's work draws")
            agent.set_limit(300_000)
            async with session.get(url + "/metrics") as metrics:
                assert 'wattscale_engine_gpu_cap_watts{gpu="GPU-0"} 300.0' in await metrics.text()
        await until(lambda: agent.read().load_mw == H200.idle_mw, "the aborted work draws nothing")
        engine.kill()
    assert agent.read().load_mw == H200.idle_mw


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--itl-base-ms", "3"), "straight lines need all five times: --prefill-base-ms"),
        ((*LINES, "--truth", "2"), "--profile and --truth do not go with"),
        (("--profile", "/no/such/folder"), "/no/such/folder"),
        (("--gpu-folder", "/no/such/folder"), "names no GPU"),
        (("--cap-watts", "3"), "--cap-watts 3: a h200 takes 200 to 700 W"),
        (("--max-kv-tokens", "3"), "must be a whole number from 16"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(words, part, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    done = run("engine", *words)
    assert done.code == 2
    assert part in done.one_line()


async def test_a_port_in_use_is_refused():
    async with started(*LINES) as (_, url):
        done = await process("engine", *LINES, "--port", url.rpartition(":")[2])
        assert done.code == 2
        assert "Address already in use" in done.one_line() or "address already in use" in done.one_line()

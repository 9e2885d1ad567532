"""`wattscale connector local` with real engines: no answer is lost by scaling, nor by a connector that is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import aiohttp
import pytest

from bus_schemas.v1 import AckPhase, AckStatus
from tests.contract.bus import until
from tests.integration.connectors.local_site import DEPLOYMENT, ITL_S, LocalSite, clients, local_site

pytestmark = pytest.mark.long
IN_FLIGHT = 300
LONGEST_TOKENS = round(20 / ITL_S)
"""Answers take 0.2 to 20 s."""


async def applied(site: LocalSite, number: int, ready: int):
    return await site.acked(
        f"decision {number} is applied",
        lambda ack: ack.scaled_decision_id == number and ack.replicas == {site.pool: ready},
    )


async def drained(site: LocalSite, number: int):
    return await site.acked(
        f"decision {number} is drained",
        lambda ack: ack.scaled_decision_id == number and ack.phase is AckPhase.DRAINED,
    )


def pids(site: LocalSite) -> set[int]:
    return {one["pid"] for one in site.workers().values()}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("pool", ["decode", "prefill"])
async def test_scaling_under_load_loses_no_answer(tmp_path, pool):
    # Decode workers leave by their drain call, prefill workers by SIGTERM.
    async with local_site(tmp_path, pool, drain_path="/drain", drain_s=30) as site:
        await site.start()
        await applied(site, await site.decide(1), 1)
        async with clients(site, IN_FLIGHT if pool == "decode" else 30, LONGEST_TOKENS) as running:
            most = IN_FLIGHT if pool == "decode" else IN_FLIGHT / 10
            # All clients have a request in flight; of how many the answer has begun depends on the machine.
            await until(lambda: len(running.streaming) >= most / 2, "the load", 150)
            await applied(site, await site.decide(5), 5)
            five = pids(site)
            assert len(five) == 5
            await site.stop(signal.SIGKILL)
            await site.start()
            await until(lambda: site.log.read_text().count("adopted") == 5, "the new connector adopts all five")
            number = await site.decide(2)
            await until(lambda: len(site.endpoints()) == 2, "three workers have left discovery")
            serving = site.endpoints()
            staying = {one["pid"] for one in site.workers().values() if f"http://127.0.0.1:{one['port']}" in serving}
            await site.stop(signal.SIGKILL)
            await site.start()
            await drained(site, number)
            assert pids(site) == staying
            assert len(staying) == 2
            assert staying < five
            await until(lambda: running.streaming, "the load goes on")
        assert running.answers >= IN_FLIGHT / (1 if pool == "decode" else 10)
        assert not site.logged("SIGKILL")
        assert await site.stop(signal.SIGTERM) == 0
        assert all(Path(f"/proc/{pid}").exists() for pid in pids(site))


async def test_workers_that_fail_are_replaced_and_what_cannot_be_done_is_acknowledged(tmp_path):
    async with local_site(tmp_path, "decode", drain_path="/drain", drain_s=30) as site:
        await site.start("--on-exit", "drain")
        await applied(site, await site.decide(2), 2)
        (victim, *_), before = sorted(pids(site)), pids(site)
        os.kill(victim, signal.SIGKILL)
        await until(lambda: len(pids(site) - before) == 1 and len(site.endpoints()) == 2, "a new worker serves", 120)
        assert victim not in pids(site)
        assert site.logged("by signal 9")
        number = await site.decide(9)
        ack = await site.acked("too few GPUs", lambda ack: ack.decision_id == number and ack.reason != "")
        assert "too few free GPUs" in ack.reason
        assert ack.scaled_decision_id == 0
        number = await site.decide(1, vision=3)
        ack = await site.acked("the refusal", lambda ack: ack.decision_id == number and not ack.retryable)
        assert ack.status in (AckStatus.FAILED, AckStatus.REJECTED)
        assert "no such pool here: vision; there are: decode" in ack.reason
        assert await site.stop(signal.SIGTERM) == 0
        assert site.workers() == {}
        assert not site.logged("SIGKILL")


async def test_a_second_connector_of_one_state_folder_is_refused(tmp_path):
    async with local_site(tmp_path, "decode") as site:
        await site.start()
        await applied(site, await site.decide(0), 0)
        first = site._process
        await site.start()
        second, site._process = site._process, first
        assert second is not None
        assert await second.wait() == 2
        assert site.logged("is in use by another connector")


async def test_its_pages_are_those_of_the_other_connectors(tmp_path):
    async with local_site(tmp_path, "decode") as site, aiohttp.ClientSession() as session:

        async def page(path: str) -> tuple[int, str]:
            try:
                async with session.get(f"http://127.0.0.1:{site.pages}{path}") as answer:
                    return answer.status, await answer.text()
            except aiohttp.ClientError:
                return 0, ""

        async def ready() -> bool:
            return (await page("/readyz"))[0] == 200

        await site.start()
        number = await site.decide(0)
        await until(ready, "the connector to be ready")
        await site.acked("it is applied", lambda ack: ack.scaled_decision_id == number)
        status, text = await page("/metrics")
        assert status == 200
        assert f'wattscale_connector_scaled_decision_id{{deployment="{DEPLOYMENT}"}} {float(number)}' in text
        assert (await page("/livez"))[0] == 200

"""Kills and stops of real processes, judged by the state of the (simulated) hardware, not by what processes report."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.bus import until
from tests.doubles.nvml.state import FakeNvml
from tests.integration.agent.processes import RunningAgent
from tests.integration.agent.server import NatsServer
from tests.integration.agent.wire import PlannerSide, connected

NODE = "node-1"
BUDGET_MW = 900_000


class Site:
    """One node with two GPUs, its agent, its server, its planner's side."""

    def __init__(self, server: NatsServer, planner: PlannerSide, fake: FakeNvml, agent: RunningAgent) -> None:
        self.server, self.planner, self.fake, self.agent = server, planner, fake, agent
        self.a, self.b = fake.uuids

    async def decide(self, a: float, b: float, **more: Any) -> int:
        """Caps for both GPUs, based on the agent's newest report, as a planner's are."""
        heard = await self.planner.telemetry_where(lambda telemetry: bool(telemetry.gpus))
        return await self.planner.decide({self.a: a, self.b: b}, heard=heard, **more)

    def never_above_budget(self) -> None:
        """Replay every write that the library saw: after the first state within budget, the sum never leaves it."""
        limits = [700_000, 700_000]
        within = False
        for slot, _, enforced in self.fake.writes:
            limits[slot] = enforced
            assert not within or sum(limits) <= BUDGET_MW, f"{limits} after {self.fake.writes}"
            within = within or sum(limits) <= BUDGET_MW


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    fake = FakeNvml(tmp_path / "nvml", 2)
    async with NatsServer(tmp_path / "nats") as server, connected(server.url, "planner") as bus:
        planner = PlannerSide(bus, NODE)
        await planner.prepare()
        async with RunningAgent(NODE, server.url, fake, tmp_path) as agent:
            yield Site(server, planner, fake, agent)


async def boot_after(site: Site, boot: str) -> str:
    seen = await site.planner.telemetry_where(lambda telemetry: telemetry.boot not in ("", boot))
    return seen.boot


async def test_killed_between_the_write_and_the_answer_the_restarted_agent_adopts_and_answers(site: Site) -> None:
    await site.decide(450.0, 450.0)
    first = await site.planner.answered(lambda ack: ack.applied_decision_id == 0)
    site.fake.gpus[0].hang_after_write_ms = 60_000
    await site.decide(300.0, 450.0)
    await until(lambda: site.fake.enforced[0] == 300_000, "the write, whose call now does not return")
    await site.agent.kill()
    unanswered = await site.planner.answer()
    assert unanswered is not None
    assert unanswered.decision_id == 0
    site.fake.gpus[0].hang_after_write_ms = 0
    await site.agent.start()
    await boot_after(site, first.boot)
    assert site.fake.enforced == [300_000, 450_000]
    ack = await site.planner.answered(lambda ack: ack.boot != first.boot, timeout_s=60.0)
    assert {gpu.gpu: gpu.enforced_watts for gpu in ack.gpus} == {site.a: 300.0, site.b: 450.0}
    site.never_above_budget()


async def test_a_restart_raises_nothing_by_a_decision_made_for_the_process_before(site: Site) -> None:
    await site.decide(200.0, 600.0)
    first = await site.planner.answered(lambda ack: ack.applied_decision_id == 0)
    await site.agent.kill()
    # Published while no agent runs, based on a report of the dead process: it may lower, it may not raise.
    await site.planner.decide({site.a: 600.0, site.b: 300.0}, heard=first)
    await site.agent.start()
    await site.planner.answered(lambda ack: ack.decision_id == 1 and ack.boot != first.boot)
    await until(lambda: site.fake.enforced[1] == 300_000, "the lower")
    assert site.fake.enforced == [200_000, 300_000]
    number = await site.decide(550.0, 300.0)
    await site.planner.answered(lambda ack: ack.applied_decision_id == number)
    assert site.fake.enforced == [550_000, 300_000]
    site.never_above_budget()


async def test_a_server_killed_while_the_answer_is_under_way_gets_it_later_and_the_cap_stands(site: Site) -> None:
    await site.decide(450.0, 450.0)
    await site.planner.answered(lambda ack: ack.applied_decision_id == 0)
    site.fake.gpus[0].hang_after_write_ms = 400
    number = await site.decide(350.0, 450.0)
    await until(lambda: site.fake.enforced[0] == 350_000, "the write")
    await site.server.kill()
    site.fake.gpus[0].hang_after_write_ms = 0
    await asyncio.sleep(1.0)
    assert site.fake.enforced == [350_000, 450_000]
    await site.server.start()
    await until(lambda: site.planner.bus.connected, "the planner to be connected again")
    await site.planner.prepare()
    ack = await site.planner.answered(lambda ack: ack.applied_decision_id == number, timeout_s=60.0)
    assert {gpu.gpu: gpu.enforced_watts for gpu in ack.gpus} == {site.a: 350.0, site.b: 450.0}
    site.never_above_budget()


async def test_stopped_for_longer_than_the_lease_the_first_thing_done_is_to_step_down(site: Site) -> None:
    await site.decide(600.0, 250.0, valid_for_s=8.0, fallback_watts=200.0)
    await site.planner.answered(lambda ack: ack.applied_decision_id == 0)
    site.agent.stop()
    stale = await site.planner.telemetry()
    await asyncio.sleep(8.5)
    assert site.fake.enforced == [600_000, 250_000]
    # Sent while the agent stood still, on the word of a report from before: already old when it is read.
    await site.planner.decide({site.a: 700.0, site.b: 200.0}, heard=stale, valid_for_s=8.0)
    site.agent.go_on()
    await until(lambda: site.fake.enforced == [200_000, 200_000], "the fallbacks")
    await asyncio.sleep(0.5)
    assert site.fake.enforced == [200_000, 200_000]
    assert 700_000 not in [asked for _, asked, _ in site.fake.writes]


async def test_a_server_that_is_away_for_longer_than_the_lease_means_the_fallback(site: Site) -> None:
    await site.decide(600.0, 250.0, valid_for_s=6.0, fallback_watts=220.0)
    await site.planner.answered(lambda ack: ack.applied_decision_id == 0)
    await site.server.kill()
    await until(lambda: site.fake.enforced == [220_000, 220_000], "the fallbacks")
    await site.server.start()


async def test_an_agent_that_starts_without_a_server_still_lets_what_it_found_lapse(site: Site) -> None:
    await site.decide(600.0, 250.0, fallback_watts=220.0)
    await site.planner.answered(lambda ack: ack.applied_decision_id == 0)
    await site.agent.kill()
    await site.server.kill()
    await site.agent.start({"WATTSCALE_AGENT_GRACE_S": "1"})
    # No decision has named a fallback to this process: the hardware's minimum serves.
    await until(lambda: site.fake.enforced == [200_000, 200_000], "what was found to lapse")
    await site.server.start()
    await until(lambda: site.planner.bus.connected, "the planner to be connected again")
    await site.planner.prepare()
    number = await site.decide(500.0, 300.0)
    await site.planner.answered(lambda ack: ack.applied_decision_id == number, timeout_s=60.0)
    site.never_above_budget()


async def test_an_orderly_stop_leaves_the_caps_and_ends_with_0(site: Site) -> None:
    await site.decide(400.0, 400.0)
    await site.planner.answered(lambda ack: ack.applied_decision_id == 0)
    assert await site.agent.end() == 0
    assert site.fake.enforced == [400_000, 400_000]

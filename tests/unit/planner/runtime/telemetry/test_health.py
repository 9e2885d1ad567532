"""The planner's HTTP server cannot be held up by its clients, and shows nothing old as now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from planner.core.state import PlannerState
from planner.domain.observation import Observation
from planner.domain.plan import DeploymentPlan, Plan, SitePlan
from planner.domain.units import Milliwatts
from planner.ports import Standing
from planner.runtime.decision_event import DecisionEvent
from planner.runtime.telemetry.bus_watch import BusWatch
from planner.runtime.telemetry.health import HealthServer
from planner.runtime.telemetry.liveness import Liveness
from tests.raw_http import ask
from tests.unit.planner.core.small_site import SITE
from tests.unit.planner.core.small_site import D as NAME

REQUEST_S = 0.5
MAX_CONNECTIONS = 4


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    health = HealthServer(
        Liveness(),
        lambda: True,
        lambda: b"wattscale 1\n",
        host="127.0.0.1",
        port=0,
        interval_s=1.0,
        live_within_s=60.0,
        clock=time.monotonic,
        request_s=REQUEST_S,
        max_connections=MAX_CONNECTIONS,
    )
    task = asyncio.create_task(health.run())
    try:
        async with asyncio.timeout(60):
            await health.serving.wait()
        yield int(health.url.rpartition(":")[2])
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


WHOLE = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def test_a_half_sent_request_is_cut_off() -> None:
    async with serving() as port:
        before_s = time.monotonic()
        assert await ask(port, b"GET /livez HTTP/1.1\r\nHost:") == b""
        assert time.monotonic() - before_s < 20
        assert (await ask(port, WHOLE)).endswith(b"ok\n")


async def test_connections_above_the_limit_are_closed_and_the_page_is_there_again_after_them() -> None:
    async with serving() as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CONNECTIONS)]
        await asyncio.sleep(0.05)
        assert await ask(port, WHOLE) == b""
        async with asyncio.timeout(60):
            while not (await ask(port, WHOLE)).endswith(b"ok\n"):
                await asyncio.sleep(0.05)
        for _, writer in held:
            writer.close()


class Now:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


def event(now_s: float) -> DecisionEvent:
    plan = Plan(
        deployments={NAME: DeploymentPlan(NAME, {})},
        sites={SITE: SitePlan(SITE, Milliwatts(4_000_000), Milliwatts(1), Milliwatts(1), None, Milliwatts(1))},
    )
    return DecisionEvent(Observation(), plan, PlannerState(1, 0.0), now_s, tick=True, epoch=7)


def test_what_is_older_than_its_term_is_not_shown_as_now() -> None:
    now = Now()
    vitals = Liveness(standing=lambda: Standing(leader="two"))
    watch = BusWatch(vitals, Standing, {}, now)
    health = HealthServer(
        vitals,
        lambda: True,
        bytes,
        host="",
        port=0,
        interval_s=10.0,
        live_within_s=30.0,
        clock=now,
        bus_watch=watch,
        node_term_s=15.0,
    )
    vitals.leading(7, now())
    watch.reported("node-1", "a")
    health.watch(event(now()))
    vitals.decided(now(), tick=True)
    now.s += 20.0
    watch.reported("node-2", "b")
    shown = health.status()
    assert (shown["leading"], shown["leader"], shown["last_tick_age_s"]) == (True, None, 20.0)
    assert shown["deployments"][NAME]["age_s"] == shown["sites"][SITE]["age_s"] == 20.0
    assert (shown["silent_nodes"], shown["nodes"]["node-2"]) == (["node-1"], {"age_s": 0.0, "silent": False})
    now.s += 30.0
    shown = health.status()
    assert (shown["deployments"], shown["sites"]) == ({}, {})
    assert shown["older_than_term_s"] == {NAME: 50.0}
    assert shown["problems"] == ["leading without a tick for 50.0 s"]
    health.watch(event(now()))
    assert health.status()["deployments"]
    vitals.leading(None, now())
    shown = health.status()
    assert (shown["deployments"], shown["leader"]) == ({}, "two")
    vitals.leading(9, now() + 1.0)
    assert health.status()["deployments"] == {}, "a plan of an earlier term"

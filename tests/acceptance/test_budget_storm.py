"""The promise, end to end: budgets cut and raised at random, an agent and a planner killed, the sum read from hardware.

The parts are those of `wattscale up`; the sum of limits is taken at every write to the simulated hardware, never from a
message. Outside the compliance window after a cut it must not exceed the budget of the moment.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from bus_schemas import v1
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.publish import publish
from deploy.local.options import UpOptions
from deploy.local.parts import bus_server, furnish, make_agent, make_cluster, make_connector, make_planner, reach
from deploy.local.prepare import prepare

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("up"), pytest.mark.timeout(240)]

NODES = 8
FIRST_WATTS = 16_000.0
"""64 parked GPUs hold 12,800 W; the load wants two or three thousand more, so that most cuts bind."""
END = (float("inf"), 0.0)
CHANGES = 10
COMPLIANCE_LIMIT_S = 5.0


@dataclass
class Ledger:
    """What the hardware summed to and what it was allowed, with the instants of both."""

    sums: list[tuple[float, float]] = field(default_factory=list)
    budgets: list[tuple[float, float]] = field(default_factory=list)

    def wrote(self, sum_mw: int) -> None:
        self.sums.append((time.monotonic(), sum_mw / 1000))

    def complied_after_s(self) -> list[float]:
        """For each cut, how long the sum stood above the new budget."""
        found = []
        for before, now, after in zip(self.budgets, self.budgets[1:], [*self.budgets[2:], END], strict=False):
            if now[1] >= before[1]:
                continue
            inside = [(at, watts) for at, watts in self.sums if now[0] <= at < after[0]]
            standing = [watts for at, watts in self.sums if at < now[0]][-1]
            if standing <= now[1]:
                found.append(0.0)
                continue
            found.append(next((at - now[0] for at, watts in inside if watts <= now[1]), float("inf")))
        return found

    def violations(self, grace_s: float) -> list[str]:
        """Instants at which a write left the sum above the budget, outside ``grace_s`` after a cut."""
        found = []
        for at, watts in self.sums:
            since, budget = [entry for entry in self.budgets if entry[0] <= at][-1]
            if watts > budget + 1e-6 and at - since > grace_s:
                found.append(f"{watts:.0f} W > {budget:.0f} W, {at - since:.2f} s after the budget changed")
        return found

    def rises_while_over(self) -> list[str]:
        """Writes that raised a sum which was above the budget: a cut allows lowers only."""
        found = []
        for (_, before), (at, after) in pairwise(self.sums):
            budget = [entry for entry in self.budgets if entry[0] <= at][-1][1]
            if after > before and after > budget + 1e-6:
                found.append(f"raised {before:.0f} to {after:.0f} W under {budget:.0f} W")
        return found


@dataclass
class Part:
    """A task that can be ended as a crash ends a process: its connection goes first, so that it says no goodbye."""

    task: asyncio.Task[None]
    bus: Bus

    async def kill(self) -> None:
        await self.bus.nc.close()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class Storm:
    """The running parts."""

    def __init__(self, stack: AsyncExitStack, connected: Callable[[str], Coroutine[Any, Any, Bus]]) -> None:
        self._stack = stack
        self._connected = connected

    async def start(self, name: str, make: Callable[[Bus], Coroutine[Any, Any, None]]) -> Part:
        bus = await self._connected(name)
        part = Part(asyncio.create_task(make(bus), name=name), bus)
        self._stack.push_async_callback(part.kill)
        return part


@asynccontextmanager
async def running(ledger: Ledger) -> AsyncIterator[tuple[Bus, Callable[[int], Any], Callable[[int], Any]]]:
    """All parts of an `up` with eight nodes: (bus, start an agent, start a planner)."""
    options = UpOptions(nodes=NODES, speed=20, budget_watts=FIRST_WATTS)
    run = prepare(options)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(bus_server(run))
        assert server is not None

        async def connected(name: str) -> Bus:
            bus = await reach(run, server.url, name)
            stack.push_async_callback(bus.close)
            return bus

        bus = await connected("storm")
        await furnish(bus, run)
        cluster, meter = make_cluster(run)
        meter.on_write = ledger.wrote
        ledger.wrote(meter.sum_mw)
        await stack.enter_async_context(cluster)
        storm = Storm(stack, connected)
        await storm.start("connector", lambda bus: make_connector(run, bus, cluster).run())

        async def agent(index: int) -> Part:
            node = run.nodes[index]
            return await storm.start(f"agent-{index}", lambda bus: make_agent(run, bus, cluster, meter, node).run())

        async def planner(index: int) -> Part:
            name = f"planner-{index}"
            return await storm.start(name, lambda bus: make_planner(run, bus, cluster, name).run())

        yield bus, agent, planner


async def set_budget(bus: Bus, ledger: Ledger, watts: float) -> None:
    """Tell the planners; a raise counts from now, a cut from the moment before it was sent."""
    change = v1.BudgetChange(time=datetime.now(UTC), site="local", budget_watts=watts)
    ledger.budgets.append((time.monotonic(), watts))
    await publish(bus, bus.subjects.control_budget("local"), change, str(uuid.uuid4()))


async def test_the_budget_holds_through_a_storm_of_changes_and_deaths(capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(20)
    ledger = Ledger(budgets=[(0.0, FIRST_WATTS)])
    async with running(ledger) as (bus, agent, planner):
        agents = [await agent(index) for index in range(NODES)]
        planners = [await planner(index) for index in range(2)]
        await asyncio.sleep(4)
        for change in range(CHANGES):
            await set_budget(bus, ledger, float(rng.randrange(13_200, 16_000, 100)))
            await asyncio.sleep(rng.uniform(1.0, 4.0))
            if change == 3:
                await agents[2].kill()
            if change == 5:
                await planners[0].kill()
            if change == 7:
                await agent(2)
        await asyncio.sleep(3)
        killed = [agents[2], planners[0]]
        assert all(part.task.done() for part in killed)
        alive = [part for part in (*agents, *planners) if part not in killed]
        assert not any(part.task.done() for part in alive)
    waited = sorted(ledger.complied_after_s())
    with capsys.disabled():
        p99 = waited[min(len(waited) - 1, int(0.99 * len(waited)))]
        print(f"\n{len(waited)} cuts, {len(ledger.sums)} writes; compliance p99 {p99:.3f} s, worst {waited[-1]:.3f} s")
    assert waited
    assert waited[-1] <= COMPLIANCE_LIMIT_S
    assert not ledger.rises_while_over()
    assert not ledger.violations(grace_s=COMPLIANCE_LIMIT_S)
    assert len(ledger.sums) > NODES * 8

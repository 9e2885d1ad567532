"""What a profiler's hold is on a real bus, from its first command to its release; agent and planner are played here."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from bus_schemas import v1
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import all_messages
from planner.profiler.online.guarded_caps import CapError, CapLostError
from planner.profiler.online.leased_caps import LeasedCaps
from tests.contract.bus import bench, connected, power, until

NODE, GPU = "node-7.example", "GPU-0"
numbers = itertools.count()


@dataclass
class PlayedNode:
    """One GPU whose agent reports ``watts``, ten times a second while ``reports``; what the profiler wrote."""

    bus: Bus
    watts: float = 200.0
    hardware_watts: float | None = None
    """The limit that the hardware has; None: what is reported."""
    reports: bool = True
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def report(self) -> None:
        limits = {"default_watts": 700.0, "min_watts": 200.0, "max_watts": 700.0}
        gpu = v1.GpuTelemetry(gpu=GPU, requested_watts=self.watts, enforced_watts=self.watts, **limits)
        report = v1.NodeTelemetry(time=datetime.now(UTC), node=NODE, boot="a", clock_s=next(numbers), gpus=(gpu,))
        await publish(self.bus, self.bus.subjects.telemetry_node(NODE), report, f"t{next(numbers)}")

    async def go_on(self) -> None:
        while True:
            if self.reports:
                await self.report()
            await asyncio.sleep(0.1)

    async def commands(self) -> list[v1.GpuHold]:
        stored = await all_messages(self.bus, self.bus.subjects.control_node(NODE))
        messages = [each.message for each in stored if isinstance(each.message, v1.NodeControl)]
        assert all(each.action == "restore" for each in messages)
        return [each.hold for each in messages if each.hold is not None]

    async def states(self, code: str, why: str) -> None:
        """The planner's decision, with what became of the newest hold."""
        hold = (await self.commands())[-1]
        reasons = (v1.Reason(code="renewal"), v1.Reason(code=code, text=f"hold {hold.hold_id} by x: 400 W: {why}"))
        decision = power(NODE, next(numbers)).model_copy(update={"reasons": reasons})
        await publish(self.bus, self.bus.subjects.decision_power(NODE), decision, f"d{next(numbers)}")

    async def obey(self) -> None:
        """Wait for a hold, and carry it out."""
        await until(self.commands, "a hold")
        self.watts = (await self.commands())[-1].cap_watts

    def caps(self, **changes: Any) -> LeasedCaps:
        def limit_mw(gpu: str) -> int:
            return round(1000 * (self.watts if self.hardware_watts is None else self.hardware_watts))

        url = self.bus.settings.servers[0]
        gpus = changes.pop("gpus", {GPU: "H100"})
        settings: dict[str, Any] = {"settle_s": 0.0, "within_s": 60.0, "issued_by": "ops", **changes}
        return LeasedCaps(lambda: connected(url, "profiler"), gpus, lambda tp: (GPU,), limit_mw, **settings)


@pytest.fixture
async def node() -> AsyncIterator[PlayedNode]:
    async with bench() as (_, bus):
        played = PlayedNode(bus)
        await played.report()
        task = asyncio.create_task(played.go_on())
        try:
            yield played
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_hold_is_renewed_until_it_is_released_at_the_end(node):
    async with node.caps(hold_s=0.6) as caps:
        assert caps.found[GPU].min_mw == 200_000
        _, _ = await asyncio.gather(caps.hold(1, 400.0), node.obey())
        await caps.check(1, 400.0)

        async def renewed() -> bool:
            return len(await node.commands()) >= 4

        await until(renewed, "renewals")
    holds = await node.commands()
    assert len({hold.hold_id for hold in holds}) == 1
    assert holds[-1].release
    assert all(hold.cap_watts == 400.0 and hold.gpus == (GPU,) and not hold.release for hold in holds[:-1])
    assert caps.left == ()


async def test_an_exception_releases_at_once(node):
    async def fail() -> None:
        async with node.caps() as caps:
            await asyncio.gather(caps.hold(1, 400.0), node.obey())
            raise RuntimeError("as asked")

    with pytest.raises(RuntimeError, match="as asked"):
        await fail()
    assert (await node.commands())[-1].release


async def foreign_report(node: PlayedNode) -> None:
    node.watts = 300.0


async def foreign_hardware(node: PlayedNode) -> None:
    node.hardware_watts = 350.0


@pytest.mark.parametrize(
    ("another", "words"),
    [(foreign_report, "300 W"), (foreign_hardware, "350 W in force instead of the 400 W that are held")],
)
async def test_another_limit_is_noticed_and_the_cap_may_be_asked_for_again(
    node: PlayedNode, another: Callable[[PlayedNode], Any], words: str
) -> None:
    async with node.caps() as caps:
        await asyncio.gather(caps.hold(1, 400.0), node.obey())
        await another(node)

        async def lost() -> str:
            try:
                await caps.check(1, 400.0)
            except CapLostError as error:
                return str(error)
            return ""

        assert words in await until(lost, "the loss")
        node.watts, node.hardware_watts = 400.0, None
        await caps.hold(1, 400.0)
        await caps.check(1, 400.0)


async def test_a_limit_that_was_back_before_the_check_is_noticed_too(node: PlayedNode) -> None:
    async with node.caps() as caps:
        await asyncio.gather(caps.hold(1, 400.0), node.obey())
        node.reports = False
        for watts in (300.0, 400.0):
            node.watts = watts
            await node.report()

        async def lost() -> bool:
            try:
                await caps.check(1, 400.0)
            except CapLostError as error:
                return "300 W were in force" in str(error)
            return False

        await until(lost, "the loss of before")


async def test_a_refusal_ends_the_wait_with_the_planners_words(node):
    async def refuse() -> None:
        await until(node.commands, "a hold")
        await node.states("hold_refused", "a pod of prod-chat holds it")

    async with node.caps() as caps:
        results = await asyncio.gather(caps.hold(1, 400.0), refuse(), return_exceptions=True)
    assert isinstance(results[0], CapError)
    assert str(results[0]).endswith("400 W: a pod of prod-chat holds it")


async def test_a_cap_that_does_not_come_in_time_is_named_with_what_the_planner_says(node):
    async def wait_for_watts() -> None:
        await until(node.commands, "a hold")
        await node.states("hold_waits", "50 W are missing")

    async with node.caps(within_s=2.0) as caps:
        results = await asyncio.gather(caps.hold(1, 400.0), wait_for_watts(), return_exceptions=True)
        assert "--caps 400: not in force within 2 s (GPU-0: 200 W); hold profile-" in str(results[0])
        assert str(results[0]).endswith("50 W are missing")
        assert not isinstance(results[0], CapLostError)


async def test_an_end_in_the_moment_of_news_is_not_lost(node):
    node.reports = False
    async with node.caps() as caps:
        caps._fresh.set()
        task = asyncio.create_task(caps.hold(1, 400.0))
        await until(lambda: not caps._fresh.is_set(), "that it waits for news")
        caps._fresh.set()
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=5.0)
        assert done, "it waits on"
        assert task.cancelled()


async def test_gpus_that_no_agent_on_this_bus_reports_are_named(node):
    with pytest.raises(CapError, match="no power agent reports GPU GPU-9"):
        async with node.caps(gpus={GPU: "H100", "GPU-9": "H100"}):
            pass

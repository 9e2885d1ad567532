"""When a leader ticks: on the clock's own grid, at the first tick that it can read, and never twice."""

from __future__ import annotations

import asyncio
import gc
import warnings
from dataclasses import dataclass, field

import pytest

from planner.domain.ids import DeploymentId
from planner.domain.observation import DeploymentObservation
from planner.runtime.metrics_ticker import MetricsTicker

# Time that no busy machine can stretch: the loop's clock jumps to what is due next.
pytestmark = pytest.mark.looptime
INTERVAL_S = 0.4
A, B = DeploymentId("a"), DeploymentId("b")


@dataclass
class Page:
    """A source that keeps no past, as a scraped page; ``at`` is when it was asked."""

    deployment: DeploymentId = A
    at: list[float] = field(default_factory=list)
    takes_s: float = 0.0

    async def observe(self, now_s: float) -> DeploymentObservation:
        self.at.append(now_s)
        await asyncio.sleep(self.takes_s)
        return DeploymentObservation(INTERVAL_S)

    async def close(self) -> None:
        pass


@dataclass
class Archive(Page):
    """A source that keeps the past."""

    async def reread(self, then_s: float, now_s: float) -> DeploymentObservation:
        assert then_s < now_s
        return DeploymentObservation(then_s)


async def ticks(source: Page, before_tick_s: float, count: int) -> tuple[MetricsTicker, list[float]]:
    """The reader begun so long before a tick of its grid (0), and the instants of its first ``count`` ticks."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    ready: list[float] = []

    def clock() -> float:
        return loop.time() - began_s - before_tick_s

    reader = MetricsTicker([source], INTERVAL_S, 5.0, clock, lambda: ready.append(clock()))
    task = asyncio.create_task(reader.run())
    try:
        async with asyncio.timeout(60):
            while len(ready) < count:
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return reader, source.at


@pytest.mark.parametrize(("source", "first"), [(Page(), 1), (Archive(), 0)], ids=["page", "archive"])
async def test_only_a_source_without_a_past_lets_a_tick_that_is_near_go_by(source: Page, first: int) -> None:
    reader, at = await ticks(source, before_tick_s=0.03, count=2)
    assert reader.first_s == pytest.approx(first * INTERVAL_S)
    # The page's first reading is only what later ones are compared to.
    asked = at if isinstance(source, Archive) else at[1:]
    assert [round(instant / INTERVAL_S) for instant in asked[:2]] == [first, first + 1]


async def test_a_reading_that_overruns_ticks_costs_those_and_the_grid_holds() -> None:
    _, at = await ticks(Archive(takes_s=1.5 * INTERVAL_S), before_tick_s=0.1, count=2)
    assert [round(instant / INTERVAL_S) for instant in at[:2]] == [0, 2]


async def test_what_has_passed_is_read_only_where_it_is_kept() -> None:
    reader = MetricsTicker([Archive(), Page(B)], INTERVAL_S, 1.0, lambda: 9.0, lambda: None)
    seen = await reader.reread(A, 8.0)
    assert seen == DeploymentObservation(8.0)
    assert await reader.reread(B, 8.0) is None


async def test_one_that_is_cancelled_before_it_reads_leaves_no_reading_behind() -> None:
    source = Page()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        task = asyncio.create_task(MetricsTicker([source], INTERVAL_S, 5.0, lambda: 0.0, lambda: None).run())
        await asyncio.sleep(0)  # The reading is due, and its task has not begun.
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        del task
        gc.collect()
    assert source.at == []
    assert [str(one.message) for one in warned] == []

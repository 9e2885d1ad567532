"""The decision loop under a bus that forgets to answer, a core that fails, a watcher that throws, a lead that goes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from bus_schemas import v1
from planner.adapters import wire_out
from planner.domain.ids import NodeId
from planner.domain.plan import CapOrder, Limited, Plan, PowerOrder
from planner.domain.reasons import Reason
from planner.ports import BusAwayError, LostLead, Past
from planner.runtime import decider as decider_module
from planner.runtime import pen
from planner.runtime.decided import Decided
from planner.runtime.decider import Decider, Surroundings
from planner.runtime.inbox import Inbox
from planner.runtime.readings import Reader
from planner.runtime.wake import Wake
from tests.integration.planner.stage import NAME, config, until


@dataclass
class Bus:
    """A term and a link that do as they are told. ``answers``: what each publish does in turn; then it stores."""

    answers: list[Exception] = field(default_factory=list)
    published: list[tuple[v1.Message, ...]] = field(default_factory=list)
    heard: tuple[tuple[v1.Message, int], ...] = ()
    epoch: int = 7

    async def publish(self, decisions: Sequence[v1.Message], traceparent: str | None = None) -> None:
        self.published.append(tuple(decisions))
        if self.answers:
            raise self.answers.pop(0)

    async def past(self) -> Past:
        return Past(heard=self.heard)

    async def records(self, since: datetime) -> Sequence[v1.PlanRecord]:
        raise BusAwayError("no records today")

    async def record(self, record: v1.PlanRecord) -> None:
        pass

    async def listen(self, listener: object) -> None:
        await asyncio.Event().wait()

    def lead(self):  # type: ignore[no-untyped-def]
        raise NotImplementedError


ORDER = PowerOrder(
    NodeId("node-1"),
    0,
    (CapOrder("GPU-1", 300_000, 200_000, 300_000),),  # type: ignore[arg-type]
    30.0,
    raises=False,
    reasons=(Limited(300_000, Reason.BUDGET_CUT, "less"),),
)


class Core:
    """Stands for ``step`` and ``react``: fails so often, then orders once."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.observations = []  # type: ignore[var-annotated]

    def __call__(self, state, observation, settings, now_s):  # type: ignore[no-untyped-def]
        self.observations.append(observation)
        if len(self.observations) <= self.failures:
            raise ZeroDivisionError("on purpose")
        orders = (ORDER,) if len(self.observations) == self.failures + 1 else ()
        return state, Plan(power=orders)


def around(bus: Bus) -> Surroundings:
    wake = Wake(0.01)
    clock = asyncio.get_running_loop().time
    inbox = Inbox(wake.now, wake.soon, clock, 0.0)
    return Surroundings(config(), bus, inbox, wake, Reader([], 1.0, 1.0, clock, wake.now), clock, idle_s=0.02)


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Core:
    made = Core()
    monkeypatch.setattr(decider_module, "react", made)
    monkeypatch.setattr(decider_module, "step", made)
    return made


async def test_a_batch_without_an_answer_goes_out_again_unchanged(core: Core) -> None:
    bus = Bus(answers=[BusAwayError("silence"), BusAwayError("silence")])
    task = asyncio.create_task(Decider(around(bus), bus).run())
    try:
        await until(lambda: len(bus.published) >= 3, "the third attempt")
        await until(lambda: len(core.observations) > 3, "life after it was stored")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert len(bus.published) == 3
    assert bus.published[0] == bus.published[1] == bus.published[2]


async def test_a_refused_fence_ends_the_term_at_once(core: Core) -> None:
    bus = Bus(answers=[LostLead("not the newest")])
    with pytest.raises(LostLead, match="not the newest"):
        await asyncio.wait_for(Decider(around(bus), bus).run(), 30.0)
    assert len(bus.published) == 1


async def test_a_bus_that_never_stores_ends_the_term_so_that_the_next_reads_the_truth(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pen, "PATIENCE", 3)
    bus = Bus(answers=[BusAwayError("silence")] * 3)
    with pytest.raises(LostLead, match="were not stored in 3 attempts"):
        await asyncio.wait_for(Decider(around(bus), bus).run(), 30.0)


async def test_a_failing_core_loses_no_event_and_publishes_nothing(
    core: Core, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    core.failures = 2
    budget = v1.BudgetChange(time=datetime(2026, 1, 1, tzinfo=UTC), site="row-1", budget_watts=1000)
    bus = Bus(heard=((budget, 5),))
    task = asyncio.create_task(Decider(around(bus), bus).run())
    try:
        await until(lambda: bool(bus.published), "a decision after the failures")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert [len(seen.budget_orders) for seen in core.observations[:4]] == [1, 1, 1, 0]


async def test_a_watcher_that_throws_does_not_stop_decisions(core: Core, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    bus, seen = Bus(), list[Decided]()

    def broken(_: Decided) -> None:
        raise RuntimeError("on purpose")

    surroundings = around(bus)
    surroundings.watchers += [broken, seen.append]
    task = asyncio.create_task(Decider(surroundings, bus).run())
    try:
        await until(lambda: len(seen) >= 3, "more decisions")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert seen[0].published == 1
    assert seen[0].stored_s > 0


def test_orders_say_the_same_on_the_wire() -> None:
    wire = wire_out.power_decision(ORDER, None, epoch=7, incarnation="i", at=datetime(2026, 1, 1, tzinfo=UTC))
    assert wire.caps[0].cap_watts == 300.0
    assert wire.caps[0].fallback_watts == 200.0
    assert wire.reasons == (v1.Reason(code="budget_cut", text="less"),)
    assert wire.epoch == 7
    assert replace(ORDER, decision_id=1).decision_id == 1
    assert NAME in config().deployments

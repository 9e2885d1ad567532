"""The decision loop under a bus that forgets to answer, a core that fails, a watcher that throws, a lead that goes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from bus_schemas import v1
from planner.adapters import to_wire
from planner.domain.ids import NodeId
from planner.domain.plan import GpuCapTarget, Limited, Plan, PowerDecision
from planner.domain.reasons import ReasonCode
from planner.domain.units import GpuSetpoint, Milliwatts
from planner.ports import LinkAwayError, Standing, StoredHistory, TermEndedError
from planner.runtime import decision_publisher
from planner.runtime import leader_term as decider_module
from planner.runtime.decision_event import DecisionEvent
from planner.runtime.inbox import Inbox
from planner.runtime.leader_term import LeaderTerm, Surroundings
from planner.runtime.metrics_ticker import MetricsTicker
from planner.runtime.wakeup import Wakeup
from tests.contract.bus import until
from tests.integration.planner.stage import NAME, config


@dataclass
class ScriptedLink:
    """A term and a link with prescribed behaviour. ``answers``: what each publish does in turn; then it stores."""

    answers: list[Exception] = field(default_factory=list)
    published: list[tuple[v1.Message, ...]] = field(default_factory=list)
    last_messages: tuple[tuple[v1.Message, int], ...] = ()
    epoch: int = 7
    standing: Standing = field(default_factory=Standing)

    async def publish(self, decisions: Sequence[v1.Message], traceparent: str | None = None) -> Sequence[int]:
        self.published.append(tuple(decisions))
        if self.answers:
            raise self.answers.pop(0)
        return ()

    async def past(self) -> StoredHistory:
        return StoredHistory(last_messages=self.last_messages)

    async def records(self, since: datetime) -> Sequence[v1.PlanRecord]:
        raise LinkAwayError("no records today")

    async def record(self, record: v1.PlanRecord) -> None:
        pass

    async def listen(self, listener: object) -> None:
        await asyncio.Event().wait()

    def lead(self):
        raise NotImplementedError


ORDER = PowerDecision(
    NodeId("node-1"),
    0,
    (GpuCapTarget("GPU-1", GpuSetpoint(Milliwatts(300_000)), 200_000, 300_000),),  # type: ignore[arg-type]
    30.0,
    raises=False,
    reasons=(Limited(300_000, ReasonCode.BUDGET_CUT, "less"),),
)


class Core:
    """Stands for ``step`` and ``react``: fails so often, then orders once."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.observations = []  # type: ignore[var-annotated]

    def __call__(self, state, observation, settings, now_s):
        self.observations.append(observation)
        if len(self.observations) <= self.failures:
            raise ZeroDivisionError("on purpose")
        orders = (ORDER,) if len(self.observations) == self.failures + 1 else ()
        return state, Plan(power=orders)


def around(bus: ScriptedLink) -> Surroundings:
    wake = Wakeup(0.01)
    clock = asyncio.get_running_loop().time
    inbox = Inbox(wake.now, wake.soon, clock, 0.0)
    return Surroundings(config(), bus, inbox, wake, MetricsTicker([], 1.0, 1.0, clock, wake.now), clock, idle_s=0.02)


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Core:
    made = Core()
    monkeypatch.setattr(decider_module, "react", made)
    monkeypatch.setattr(decider_module, "step", made)
    return made


async def test_a_batch_without_an_answer_goes_out_again_unchanged(core: Core) -> None:
    bus = ScriptedLink(answers=[LinkAwayError("silence"), LinkAwayError("silence")])
    task = asyncio.create_task(LeaderTerm(around(bus), bus).run())
    try:
        await until(lambda: len(bus.published) >= 3, "the third attempt")
        await until(lambda: len(core.observations) > 3, "life after it was stored")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert len(bus.published) == 3
    assert bus.published[0] == bus.published[1] == bus.published[2]


async def test_a_refused_fence_ends_the_term_at_once(core: Core) -> None:
    bus = ScriptedLink(answers=[TermEndedError("not the newest")])
    with pytest.raises(TermEndedError, match="not the newest"):
        await asyncio.wait_for(LeaderTerm(around(bus), bus).run(), 60)
    assert len(bus.published) == 1


async def test_a_bus_that_never_stores_ends_the_term_so_that_the_next_reads_the_truth(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_publisher, "PATIENCE", 3)
    bus = ScriptedLink(answers=[LinkAwayError("silence")] * 3)
    with pytest.raises(TermEndedError, match="were not stored in 3 attempts"):
        await asyncio.wait_for(LeaderTerm(around(bus), bus).run(), 60)


async def test_a_failing_core_loses_no_event_and_publishes_nothing(
    core: Core, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    core.failures = 2
    budget = v1.BudgetChange(time=datetime(2026, 1, 1, tzinfo=UTC), site="row-1", budget_watts=1000)
    bus = ScriptedLink(last_messages=((budget, 5),))
    task = asyncio.create_task(LeaderTerm(around(bus), bus).run())
    try:
        await until(lambda: bool(bus.published), "a decision after the failures")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert [len(seen.budget_commands) for seen in core.observations[:4]] == [1, 1, 1, 0]


async def test_a_watcher_that_throws_does_not_stop_decisions(core: Core, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    bus, seen = ScriptedLink(), list[DecisionEvent]()

    def broken(_: DecisionEvent) -> None:
        raise RuntimeError("on purpose")

    surroundings = around(bus)
    surroundings.watchers += [broken, seen.append]
    task = asyncio.create_task(LeaderTerm(surroundings, bus).run())
    try:
        await until(lambda: len(seen) >= 3, "more decisions")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert seen[0].published == 1
    assert seen[0].stored_s > 0


def test_decisions_are_the_same_on_the_wire() -> None:
    wire = to_wire.power_decision(ORDER, None, epoch=7, incarnation="i", at=datetime(2026, 1, 1, tzinfo=UTC))
    assert wire.caps[0].cap_watts == 300.0
    assert wire.caps[0].fallback_watts == 200.0
    assert wire.reasons == (v1.Reason(code="budget_cut", text="less"),)
    assert wire.epoch == 7
    assert replace(ORDER, decision_id=1).decision_id == 1
    assert NAME in config().deployments

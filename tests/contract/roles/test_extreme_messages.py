"""Readable messages that cannot be true, each sent by the role that may, to a planner on a real server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest

from bus_schemas import v1
from bus_schemas.jetstream.publisher import publish
from bus_schemas.subjects import Subjects
from bus_schemas.v1 import Message
from planner.core.power.node_ledger import NodeLedger
from planner.domain.ids import NodeId
from planner.runtime.decision_event import DecisionEvent
from planner.runtime.service import PlannerService, ServiceSettings
from planner.runtime.telemetry.instruments import Instruments
from tests.contract.bus import until
from tests.contract.roles.test_roles import NODE, OTHER, Guarded, guarded_bus
from tests.unit.planner.core.small_site import SITE, D
from tests.unit.planner.core.small_site import planner as small_config

SUBJECTS = Subjects()
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CARD = v1.GpuTelemetry(gpu="g", enforced_watts=700.0, default_watts=700.0, min_watts=200.0, max_watts=700.0)
numbers = count(1)


def report(node: str, *cards: v1.GpuTelemetry) -> v1.NodeTelemetry:
    """A report that is newer than all before it."""
    return v1.NodeTelemetry(time=NOW, node=node, boot="a", clock_s=float(next(numbers)), gpus=cards)


def card(**changes: object) -> v1.GpuTelemetry:
    return CARD.model_copy(update=changes)


class GuardedPlanner:
    """A planner over the guarded bus, and what it decided."""

    def __init__(self, guarded: Guarded, service: PlannerService, decided: list[DecisionEvent]) -> None:
        self.guarded, self.service, self.decided = guarded, service, decided

    async def send(self, role: str, subject: str, message: Message) -> None:
        await publish(await self.guarded.as_(role), subject, message, f"m{next(numbers)}")

    async def report(self, node: str, *cards: v1.GpuTelemetry) -> v1.NodeTelemetry:
        made = report(node, *cards)
        await self.send("agent" if node == NODE else "agent-8", SUBJECTS.telemetry_node(node), made)
        return made

    async def truly(self, node: str, *cards: v1.GpuTelemetry) -> None:
        """Send a true report, and wait until the ledger has it."""
        made = await self.report(node, *cards)
        await until(lambda: (ledger := self.ledger(node)) and ledger.heard_clock_s == made.clock_s, f"{node}'s report")

    def ledger(self, node: str) -> NodeLedger | None:
        return self.decided[-1].state.power[SITE].nodes.get(NodeId(node)) if self.decided else None

    def charged_watts(self) -> float:
        return sum(ledger.total_mw for ledger in self.decided[-1].state.power[SITE].nodes.values()) / 1000

    async def named(self, who: str, words: str) -> None:
        def holds() -> bool:
            found = [one for one in self.service.bus_watch.problems() if one.code == "implausible"]
            return any(one.who == who and words in one.text for one in found)

        await until(holds, f"{who} to be named with: {words}")


@asynccontextmanager
async def watched(guarded: Guarded) -> AsyncIterator[GuardedPlanner]:
    decided: list[DecisionEvent] = []
    how = ServiceSettings(holder="one", lease_ttl_s=30.0, idle_s=0.05)
    service = PlannerService(
        small_config(budget_mw=4_000_000), await guarded.as_("planner"), [], how, watchers=[decided.append]
    )
    task = asyncio.create_task(service.run())
    try:
        await until(lambda: decided, "the first decision")
        yield GuardedPlanner(guarded, service, decided)
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[GuardedPlanner]:
    async with guarded_bus(tmp_path) as guarded, watched(guarded) as found:
        yield found


EXTREME_REPORTS = {
    "default_watts 1,000,000,000": [card(default_watts=1e9)],
    "max_watts 1,000,000,000": [card(max_watts=1e9)],
    "enforced_watts 1,000,000,000": [card(enforced_watts=1e9)],
    "min_watts 1,000,000,000": [card(min_watts=1e9)],
    "min_watts 300 is above max_watts 200": [card(min_watts=300.0, max_watts=200.0)],
    "default_watts 0": [CARD, card(gpu="h", default_watts=0.0)],
    "GPU g is in it more than once": [CARD, CARD],
    "70 GPUs on one node": [card(gpu=f"g{number}") for number in range(70)],
}


async def test_an_extreme_report_charges_nothing_and_the_next_true_one_counts(
    scene: GuardedPlanner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "planner")
    page = Instruments(
        small_config(budget_mw=4_000_000), scene.service.vitals, problems=scene.service.bus_watch.problems
    )
    try:
        await scene.truly(NODE, CARD)
        for words, cards in EXTREME_REPORTS.items():
            await scene.report(NODE, *cards)
            await scene.named(NODE, words)
        # Others report and are charged as if nothing had been sent.
        await scene.truly(OTHER, card(gpu="other"))
        assert scene.charged_watts() == 1400.0
        await scene.report(NODE, card(draw_watts=1e9))
        await scene.named(NODE, "draw_watts 1,000,000,000")
        await scene.truly(NODE, CARD, card(gpu="second"))
        assert scene.charged_watts() == 2100.0
        assert max(sum(n.total_mw for n in one.state.power[SITE].nodes.values()) for one in scene.decided) == 2_100_000
        assert f'wattscale_planner_problem{{problem="implausible",who="{NODE}"}} 1.0' in page.page().decode()
        await until(lambda: any(f"problem: {NODE}: " in one.getMessage() for one in caplog.records), "the log")
    finally:
        page.close()


async def test_a_node_whose_only_reports_are_extreme_is_as_one_without_an_agent(scene: GuardedPlanner) -> None:
    await scene.report(NODE, card(default_watts=1e9))
    await scene.named(NODE, "default_watts")
    await scene.truly(OTHER, card(gpu="other"))
    assert scene.ledger(NODE) is None


def answer(**changes: object) -> v1.PowerAck:
    made = v1.PowerAck(
        time=NOW, node=NODE, decision_id=0, applied_decision_id=0, epoch=1, status=v1.AckStatus.APPLIED, gpus=()
    )
    return made.model_copy(update=changes)


def scaled(**changes: object) -> v1.ScalingAck:
    made = v1.ScalingAck(time=NOW, deployment=D, decision_id=0, scaled_decision_id=0, status=v1.AckStatus.APPLIED)
    return made.model_copy(update=changes)


ROWS: dict[str, tuple[str, str, Callable[[], list[tuple[Message, str]]]]] = {
    "extreme_power_ack": (
        "agent",
        SUBJECTS.ack_power(NODE),
        lambda: [
            (answer(decision_id=2**53), "decision id 9007199254740992 is beyond all ids"),
            (answer(gpus=(v1.GpuInForce(gpu="g", enforced_watts=1e9),)), "enforced_watts 1,000,000,000"),
        ],
    ),
    "extreme_scaling_ack": (
        "connector",
        SUBJECTS.ack_scaling(D),
        lambda: [
            (scaled(replicas={"decode": 10**400}), "pool decode: a count of replicas"),
            (scaled(scaled_decision_id=2**53), "decision id 9007199254740992 is beyond all ids"),
        ],
    ),
    "extreme_pin": (
        "operator",
        SUBJECTS.control_deployment(D),
        lambda: [
            (
                v1.DeploymentControl(time=NOW, deployment=D, action="pin", replicas={"decode": 10**400}),
                "pool decode: a count of replicas",
            )
        ],
    ),
}
"""By row of deploy/SECURITY.md: who sends, where, and what with the words that name it."""


@pytest.mark.parametrize("row", ROWS)
async def test_an_extreme_message_is_left_out_by_this_leader_and_by_the_next(tmp_path: Path, row: str) -> None:
    role, subject, messages = ROWS[row]
    async with guarded_bus(tmp_path) as guarded:
        for _ in range(2):
            async with watched(guarded) as scene:
                await scene.truly(NODE, CARD)
                for message, words in messages():
                    await scene.send(role, subject, message)
                    await scene.named(str(getattr(message, "node", D)), words)
                await scene.truly(NODE, CARD)
                assert scene.charged_watts() == 700.0
                assert scene.service.vitals.terms == 1
                assert scene.decided[-1].state.deployments[D].operator.pinned is None

"""The publisher against a bus whose past is older than what agents have seen: a backup that was restored."""

from __future__ import annotations

from datetime import UTC, datetime

from agent.adapters.messages import decision_of
from agent.core import caps
from bus_schemas import v1
from planner.domain.ids import NodeId
from planner.domain.observation import PowerAckSeen
from planner.domain.plan import Plan
from planner.ports import StoredHistory
from planner.runtime.decision_publisher import DecisionPublisher
from planner.runtime.inbox import Inbox
from tests.integration.planner.stage import config
from tests.unit.planner.runtime.test_leader_term import ORDER, ScriptedLink

AT = datetime(2026, 1, 1, tzinfo=UTC)
NODE = NodeId("node-1")


def decision(epoch: int, decision_id: int) -> v1.PowerDecision:
    cap = v1.GpuCap(gpu="GPU-1", cap_watts=400, fallback_watts=200, charged_watts=400)
    return v1.PowerDecision(
        time=AT, node=NODE, decision_id=decision_id, incarnation="i", epoch=epoch, valid_for_s=30, caps=(cap,)
    )


def answer(epoch: int, decision_id: int) -> PowerAckSeen:
    return PowerAckSeen(NODE, epoch, decision_id, decision_id, "applied", (), boot="m/1", clock_s=9.0, incarnation="i")


def test_agents_that_have_seen_a_later_past_are_commanded_under_a_new_incarnation() -> None:
    """Else they refuse every decision as an older leader's, for as long as this one leads."""
    agent, _ = caps.receive(caps.initial("m/1", 0.0), decision_of(decision(30, 150)), 1.0)
    inbox = Inbox(lambda: None, lambda: None, lambda: 0.0, 0.0)
    bus = ScriptedLink(epoch=25)
    past = StoredHistory(power=(decision(20, 100),))
    pen = DecisionPublisher(bus, config(), past, inbox.expect, inbox.expect_power)
    plan = Plan(power=(ORDER,))
    pen.renew_incarnations((answer(25, 100),))
    (usual,) = pen.messages(plan, AT)
    assert isinstance(usual, v1.PowerDecision)
    assert usual.incarnation == "i"
    assert caps.receive(agent, decision_of(usual), 2.0)[1] is caps.Acceptance.OLDER_EPOCH
    pen.renew_incarnations((answer(30, 150),))
    (fresh,) = pen.messages(plan, AT)
    assert isinstance(fresh, v1.PowerDecision)
    assert caps.receive(agent, decision_of(fresh), 2.0)[1] is caps.Acceptance.ACCEPTED
    pen.renew_incarnations((answer(30, 150),))
    assert pen.messages(plan, AT)[0] == fresh, "the same old answer, shown again"

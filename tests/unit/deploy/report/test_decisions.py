"""Decisions with their outcomes and reasons, and incidents with their counts."""

from __future__ import annotations

from typing import Any

from bus_schemas import v1
from deploy.report.decisions import decided
from tests.unit.deploy.report.messages import HOUR, Journal, at


def scaling(journal: Journal, second: float, number: int, **fields: Any) -> None:
    decision = v1.ScalingDecision(
        time=at(second),
        deployment="chat",
        decision_id=number,
        incarnation="one",
        epoch=fields.pop("epoch", 1),
        pools={"decode": v1.PoolTarget(role="decode", replicas=number)},
        reasons=(v1.Reason(code="sla", text="2 are needed"), v1.Reason(code="power_budget", text="1 is affordable")),
    )
    journal.add("DECISIONS", second, decision)


def answer(journal: Journal, second: float, number: int, status: v1.AckStatus, reason: str = "") -> None:
    ack = v1.ScalingAck(
        time=at(second),
        deployment="chat",
        decision_id=number,
        scaled_decision_id=number,
        incarnation="one",
        status=status,
        reason=reason,
    )
    journal.add("ACKS", second, ack)


def test_each_decision_has_its_last_answer() -> None:
    journal = Journal()
    scaling(journal, 10, 1)
    answer(journal, 11, 1, v1.AckStatus.ACCEPTED)
    scaling(journal, 20, 2, epoch=7)
    answer(journal, 21, 1, v1.AckStatus.SUPERSEDED)
    answer(journal, 22, 2, v1.AckStatus.FAILED, "insufficient_capacity")
    scaling(journal, 30, 3, epoch=7)
    scaling(journal, 4000, 4, epoch=9)
    found = decided(journal.entries, HOUR)
    assert [(change.decision_id, change.outcome) for change in found.changes] == [
        (1, "superseded"),
        (2, "failed (insufficient_capacity)"),
        (3, ""),
    ]
    assert found.changes[0].replicas == {"decode": 1}
    assert found.changes[0].why == "2 are needed; 1 is affordable"
    assert found.reasons == {"sla": 3, "power_budget": 3}
    assert found.terms == [(at(10), 1), (at(20), 7)]
    assert [(one.about, one.what) for one in found.incidents] == [("chat", "decision failed: insufficient_capacity")]


def test_alike_incidents_are_one_with_a_count() -> None:
    journal = Journal()
    flood = v1.Reason(code="agents", text="node a has two agents")
    for second in (10, 20, 30):
        journal.tick(second, problems=(flood,))
    journal.in_force(15, "a", 300, reset=True)
    found = decided(journal.entries, HOUR)
    assert [(one.time, one.about, one.what, one.times) for one in found.incidents] == [
        (at(10), "chat", "node a has two agents", 3)
    ]
    assert (found.limits_lost, found.outcomes) == (1, {"applied": 1})

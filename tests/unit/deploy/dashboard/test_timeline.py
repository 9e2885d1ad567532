"""The timeline shows what was decided, ordered or failed, and no renewals."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bus_schemas import v1
from deploy.dashboard.timeline import event_of, milliseconds
from tests.doubles.seen_site import CHAT, SITE, decision, power, record, report, scaled

NOW = datetime(2026, 1, 2, 14, 5, tzinfo=UTC)


def ack(status: v1.AckStatus) -> v1.PowerAck:
    return v1.PowerAck(
        time=NOW,
        node="n",
        decision_id=3,
        applied_decision_id=2,
        epoch=1,
        status=status,
        gpus=(),
        reason="no permission",
    )


@pytest.mark.parametrize(
    ("message", "kind", "who", "number", "well"),
    [
        (decision(3, 5), "replicas", CHAT, 3, True),
        (scaled(3, 5), "replicas", CHAT, 3, True),
        (scaled(3, 5, status=v1.AckStatus.FAILED), "replicas", CHAT, 3, False),
        (power("n", 3), "watts", "n", 3, True),
        (ack(v1.AckStatus.FAILED), "watts", "n", 3, False),
        (v1.BudgetChange(time=NOW, site=SITE, budget_watts=9000.0), "command", SITE, None, True),
        (v1.DeploymentControl(time=NOW, deployment=CHAT, action="pause"), "command", CHAT, None, True),
        (v1.NodeControl(time=NOW, node="n", action="remove"), "command", "n", None, True),
    ],
)
def test_what_is_shown(message: v1.Message, kind: str, who: str, number: int | None, well: bool) -> None:
    event = event_of(message)
    assert event is not None
    assert (event.kind, event.who, event.decision_id, event.well) == (kind, who, number, well)
    assert event.as_json()["t"] == milliseconds(message.time)


@pytest.mark.parametrize(
    "message",
    [
        power("n", 4, reasons=(v1.Reason(code="renewal", text="as before"),)),
        ack(v1.AckStatus.APPLIED),
        record(1),
        report("n"),
    ],
)
def test_what_changes_nothing_is_not_shown(message: v1.Message) -> None:
    assert event_of(message) is None


def test_commands_name_who_ordered_what_and_why() -> None:
    pin = v1.DeploymentControl(
        time=NOW, deployment=CHAT, action="pin", replicas={"decode": 3}, issued_by="ada", reason="a test"
    )
    cut = v1.BudgetChange(time=NOW, site=SITE, budget_watts=9000.0, issued_by="grid", reason="peak")
    pinned, ordered = event_of(pin), event_of(cut)
    assert pinned is not None
    assert ordered is not None
    assert pinned.text == f"{CHAT}: pin decode=3, by ada (a test)"
    assert ordered.text == f"{SITE} budget: 9000 W from 2026-01-02 14:05:00 UTC, by grid (peak)"

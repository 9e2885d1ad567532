"""What no correct sender writes is recognised, and the largest hardware there is passes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from bus_schemas import v1
from bus_schemas.v1 import Message
from planner.adapters.plausibility import ReportBounds, flaw, impossible_draw, without_impossible_draws

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BOUNDS = ReportBounds()


def card(name: str = "g", **changes: Any) -> v1.GpuTelemetry:
    watts = {"default_watts": 700.0, "min_watts": 200.0, "max_watts": 700.0, "enforced_watts": 700.0}
    return v1.GpuTelemetry(gpu=name, **{**watts, **changes})


def report(*cards: v1.GpuTelemetry) -> v1.NodeTelemetry:
    return v1.NodeTelemetry(time=NOW, node="node-1", boot="a", clock_s=1.0, gpus=cards)


def answer(**changes: Any) -> v1.PowerAck:
    fields = {"decision_id": 0, "applied_decision_id": 0, "epoch": 1, "status": "applied", "gpus": ()}
    return v1.PowerAck(time=NOW, node="node-1", **{**fields, **changes})


def scaled(**changes: Any) -> v1.ScalingAck:
    fields = {"decision_id": 0, "scaled_decision_id": 0, "status": "applied"}
    return v1.ScalingAck(time=NOW, deployment="chat", **{**fields, **changes})


def pin(**replicas: int) -> v1.DeploymentControl:
    return v1.DeploymentControl(time=NOW, deployment="chat", action="pin", replicas=replicas)


IMPLAUSIBLE = {
    "GPU g: default_watts 1,000,000,000 is more than 5,000 W": report(card(default_watts=1e9)),
    "GPU i: max_watts 5,001": report(card(), card("h"), card("i", max_watts=5001)),
    "GPU g: min_watts 1,000,000,000": report(card(min_watts=1e9, max_watts=1e9)),
    "GPU g: enforced_watts 1,000,000,000": report(card(enforced_watts=1e9)),
    "GPU g: requested_watts 1,000,000,000": report(card(requested_watts=1e9)),
    "GPU g: min_watts 300 is above max_watts 200": report(card(min_watts=300, max_watts=200)),
    "GPU g: default_watts 0": report(card(default_watts=0, min_watts=0, max_watts=0)),
    "GPU g is in it more than once": report(card(), card("h"), card()),
    "1000 GPUs on one node, more than 64": report(*(card(f"g{n}") for n in range(1000))),
    "decision id 9007199254740992": answer(decision_id=2**53),
    "decision id 9007199254740991": answer(applied_decision_id=2**53 - 1),
    "GPU \\x1b[2J: enforced_watts": answer(gpus=(v1.GpuInForce(gpu="\x1b[2J", enforced_watts=1e9),)),
    "65 GPUs on one node": answer(gpus=tuple(v1.GpuInForce(gpu=f"g{n}") for n in range(65))),
    "decision id 4503599627370497": scaled(scaled_decision_id=2**52 + 1),
    "pool decode: a count of replicas outside 0 to 1,000,000": scaled(replicas={"decode": 10**400}),
    "pool prefill: a count of replicas": scaled(replicas={"decode": 1, "prefill": -1}),
    "pool decode: a count": pin(decode=1_000_001),
}


@pytest.mark.parametrize("words", IMPLAUSIBLE)
def test_what_cannot_be_true_is_named(words: str) -> None:
    assert flaw(IMPLAUSIBLE[words], BOUNDS).startswith(words)


PLAUSIBLE: list[Message] = [
    report(),
    report(*(card(f"g{n}", default_watts=2300, max_watts=3600, enforced_watts=3600) for n in range(64))),
    report(card(min_watts=700, draw_watts=None, requested_watts=None, enforced_watts=None)),
    report(card(enforced_watts=0.0, health=v1.GpuHealth.QUARANTINED, energy_joules=-1e300, index=-(10**30))),
    answer(decision_id=-1, applied_decision_id=-1),
    answer(gpus=(v1.GpuInForce(gpu="g", enforced_watts=5000),)),
    scaled(replicas={"decode": 1_000_000, "none": 0}),
    pin(),
    v1.BudgetChange(time=NOW, site="row", budget_watts=1e9),
    v1.NodeControl(time=NOW, node="node-1", action="remove"),
]


@pytest.mark.parametrize("message", PLAUSIBLE, ids=lambda message: message.type)
def test_what_hardware_and_operators_can_do_passes(message: Message) -> None:
    assert flaw(message, BOUNDS) == ""


def test_the_bounds_are_those_of_the_site() -> None:
    cards = [card(f"g{n}", max_watts=6000, default_watts=6000) for n in range(100)]
    assert flaw(report(*cards), ReportBounds(6000.0, 100)) == ""
    assert flaw(report(*cards), ReportBounds(6000.0, 99))
    assert flaw(report(*cards), ReportBounds(5999.0, 100))


def test_an_impossible_draw_is_unknown_and_the_limits_beside_it_count() -> None:
    broken = report(card(draw_watts=1e9), card("h", draw_watts=300))
    assert flaw(broken, BOUNDS) == ""
    assert impossible_draw(broken, BOUNDS).startswith("GPU g: draw_watts 1,000,000,000 is more than")
    mended = without_impossible_draws(broken, BOUNDS)
    assert [gpu.draw_watts for gpu in mended.gpus] == [None, 300]
    assert [gpu.enforced_watts for gpu in mended.gpus] == [700, 700]
    assert impossible_draw(mended, BOUNDS) == ""

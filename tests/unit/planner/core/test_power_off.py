"""Switching power off gives back what was capped."""

from __future__ import annotations

from bus_schemas.units import GpuSetpoint, Milliwatts
from planner.core.power_off import release
from planner.domain.ids import GpuId, NodeId
from planner.domain.observation import GpuObservation, NodeObservation, StoredCaps

NODE, A, B = NodeId("n"), GpuId("a"), GpuId("b")


def stored(decision_id: int = 7, **caps_mw: int) -> StoredCaps:
    setpoints = {GpuId(gpu): GpuSetpoint(Milliwatts(mw)) for gpu, mw in caps_mw.items()}
    highest = dict.fromkeys(setpoints, 800_000)
    return StoredCaps(NODE, decision_id, setpoints, dict.fromkeys(setpoints, 300_000), highest_mw=highest)


def seen() -> dict[NodeId, NodeObservation]:
    gpus = {gpu: GpuObservation(gpu, 0, 300_000, 300_000, 700_000, 200_000, 800_000) for gpu in (A, B)}
    return {NODE: NodeObservation(NODE, gpus)}


def test_every_gpu_gets_its_default_back_and_keeps_it_after_the_lease() -> None:
    (order,) = release([stored(a=250_000, b=300_000)], seen())
    assert order.decision_id == 8
    assert order.raises
    assert {(cap.gpu, cap.setpoint.cap_mw, cap.fallback_mw, cap.charged_mw) for cap in order.caps} == {
        (A, 700_000, 700_000, 700_000),
        (B, 700_000, 700_000, 700_000),
    }


def test_a_node_without_a_report_gets_the_highest_limit_that_is_known() -> None:
    (order,) = release([stored(a=250_000)], {})
    assert [cap.setpoint.cap_mw for cap in order.caps] == [800_000]


def test_what_was_given_back_is_not_decided_again() -> None:
    assert release([stored(a=700_000, b=700_000)], seen()) == ()

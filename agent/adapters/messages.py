"""Converts wire messages to core values and back: watts on the wire, integer milliwatts in the core.

A cap is rounded down, so that rounding never increases a sum of caps.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from agent.core.caps import CapDecision, CapReport, GpuTarget, InForce
from bus_schemas.units import GpuSetpoint, mw_from_watts, watts_from_mw
from bus_schemas.v1 import AckStatus, GpuHealth, GpuInForce, PowerAck, PowerDecision


def watts(mw: int | None) -> float | None:
    """Watts in ``mw``; None if it is unknown."""
    return None if mw is None else watts_from_mw(mw)


def decision_of(message: PowerDecision) -> CapDecision:
    """The core's form of a decision from the bus."""
    return CapDecision(
        epoch=message.epoch,
        decision_id=message.decision_id,
        incarnation=message.incarnation,
        valid_for_s=message.valid_for_s,
        caps=tuple(
            GpuTarget(cap.gpu, GpuSetpoint(mw_from_watts(cap.cap_watts)), mw_from_watts(cap.fallback_watts))
            for cap in message.caps
        ),
        heard_boot=message.heard_boot,
        heard_clock_s=message.heard_clock_s,
        only_lowers=message.only_lowers,
        released=tuple(message.released_gpus or ()),
    )


def ack_of(
    report: CapReport,
    *,
    node: str,
    boot: str,
    clock_s: float,
    incarnation: str = "",
    reason: str = "",
    reasons: Mapping[str, str] | None = None,
    refused: bool = False,
) -> PowerAck:
    """The wire form of a report. ``reasons``: by GPU, why its state is what it is.

    ``refused``: it answers a decision that was refused, and names the one that is followed instead.
    """
    notes = reasons or {}
    return PowerAck(
        time=datetime.now(UTC),
        node=node,
        decision_id=report.decision_id,
        applied_decision_id=report.applied_id,
        incarnation=incarnation,
        epoch=max(report.epoch, 0),
        status=AckStatus.REJECTED if refused else AckStatus(report.status),
        reason=reason or _summary(report, notes),
        gpus=tuple(_in_force(gpu, notes.get(gpu.gpu, "")) for gpu in report.gpus),
        boot=boot,
        clock_s=clock_s,
    )


def _in_force(gpu: InForce, reason: str) -> GpuInForce:
    return GpuInForce(
        gpu=gpu.gpu,
        requested_watts=watts(gpu.requested_mw),
        enforced_watts=watts(gpu.enforced_mw),
        health=GpuHealth(gpu.health.value),
        reset=gpu.reset,
        reason=reason,
    )


def _summary(report: CapReport, notes: Mapping[str, str]) -> str:
    if report.status == "applied" or not notes:
        return ""
    shown = [f"{gpu}: {note}" for gpu, note in sorted(notes.items())]
    more = f" (and {len(shown) - 3} more)" if len(shown) > 3 else ""
    return "; ".join(shown[:3]) + more

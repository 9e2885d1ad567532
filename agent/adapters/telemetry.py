"""Builds a node's telemetry for the bus and decides when a change is worth publishing.

Nothing is published while nothing that matters has changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from agent.adapters.messages import watts
from agent.core.caps import Health
from agent.ports import GpuInfo, GpuOwner, GpuReading
from bus_schemas.units import watts_from_mw
from bus_schemas.v1 import GpuHealth, GpuTelemetry, NodeTelemetry

NO_OWNER = GpuOwner()
SMALLEST_CHANGE_WATTS = 5.0
"""A change of draw below this (or below 2 %) since the last publication is ignored."""


@dataclass(frozen=True, slots=True)
class GpuView:
    """Everything known about one GPU."""

    info: GpuInfo
    reading: GpuReading | None
    health: Health
    granted_mw: int | None = None
    error: str = ""
    owner: GpuOwner = NO_OWNER


def telemetry_of(
    views: Mapping[str, GpuView], *, node: str, boot: str, clock_s: float, applied_id: int
) -> NodeTelemetry:
    """The wire message for all GPUs, ordered by index."""
    ordered = sorted(views.values(), key=lambda view: view.info.index)
    return NodeTelemetry(
        time=datetime.now(UTC),
        node=node,
        boot=boot,
        clock_s=clock_s,
        applied_decision_id=applied_id,
        gpus=tuple(_gpu(view) for view in ordered),
    )


def _gpu(view: GpuView) -> GpuTelemetry:
    info, reading, owner = view.info, view.reading, view.owner
    return GpuTelemetry(
        gpu=info.gpu,
        index=info.index,
        model=info.model,
        draw_watts=watts(reading.draw_mw) if reading else None,
        granted_watts=watts(view.granted_mw),
        requested_watts=watts(reading.requested_mw) if reading else None,
        enforced_watts=watts(reading.enforced_mw) if reading else None,
        default_watts=watts_from_mw(info.default_mw),
        min_watts=watts_from_mw(info.min_mw),
        max_watts=watts_from_mw(info.max_mw),
        energy_joules=None if reading is None or reading.energy_mj is None else reading.energy_mj / 1000,
        throttle_reasons=reading.throttle_reasons if reading else (),
        health=GpuHealth(view.health.value),
        error=view.error,
        deployment=owner.deployment,
        pool=owner.pool,
        role=owner.role,
        worker=owner.worker,
        pod=owner.pod,
        terminating=owner.terminating,
    )


def worth_publishing(before: NodeTelemetry | None, now: NodeTelemetry) -> bool:
    """Whether ``now`` contains news compared with ``before``. Energy, which always grows, does not count."""
    if before is None or before.applied_decision_id != now.applied_decision_id or len(before.gpus) != len(now.gpus):
        return True
    return any(_changed(old, new) for old, new in zip(before.gpus, now.gpus, strict=True))


def _changed(old: GpuTelemetry, new: GpuTelemetry) -> bool:
    if (old.draw_watts is None) != (new.draw_watts is None):
        return True
    if old.draw_watts is not None and new.draw_watts is not None:
        step = max(SMALLEST_CHANGE_WATTS, 0.02 * old.draw_watts)
        if abs(new.draw_watts - old.draw_watts) >= step:
            return True
    same = {"draw_watts": None, "energy_joules": None}
    return old.model_copy(update=same) != new.model_copy(update=same)

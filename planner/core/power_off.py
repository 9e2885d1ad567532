"""When power is switched off: restores every limit that was lowered, so that no cap stays behind.

Owns the decisions that end a planner's hold on GPUs. Must only be used where no budget is in force any more, because it
raises limits without a ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from planner.domain.ids import GpuId, NodeId
from planner.domain.observation import NodeObservation, StoredCaps
from planner.domain.plan import GpuCapTarget, Limited, PowerDecision
from planner.domain.reasons import ReasonCode
from planner.domain.units import GpuSetpoint, Milliwatts

VALID_FOR_S = 30.0


def release(stored: Iterable[StoredCaps], nodes: Mapping[NodeId, NodeObservation]) -> tuple[PowerDecision, ...]:
    """One decision for every node whose last one holds a GPU below its default limit; empty once that is done.

    The fallback is the default too, so the end of the lease changes nothing. A GPU whose default is not reported gets
    the highest limit that the last decision states.
    """
    found = []
    for last in stored:
        limits = {gpu: _limit_mw(last, gpu, nodes.get(last.node)) for gpu in last.setpoints}
        if all(setpoint.cap_mw >= limits[gpu] for gpu, setpoint in last.setpoints.items()):
            continue
        caps = tuple(
            GpuCapTarget(gpu, GpuSetpoint(Milliwatts(limit)), limit, limit, last.highest_mw.get(gpu, limit))
            for gpu, limit in limits.items()
        )
        why = (Limited(sum(limits.values()), ReasonCode.POWER_OFF, f"{last.node}: power is off"),)
        found.append(PowerDecision(last.node, last.decision_id + 1, caps, VALID_FOR_S, raises=True, reasons=why))
    return tuple(found)


def _limit_mw(last: StoredCaps, gpu: GpuId, seen: NodeObservation | None) -> int:
    if seen is not None and gpu in seen.gpus:
        return seen.gpus[gpu].default_mw
    return max(last.highest_mw.get(gpu, 0), last.charged_mw.get(gpu, 0), last.setpoints[gpu].cap_mw)

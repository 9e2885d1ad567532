"""Detects external changes: a person or another autoscaler that scales the same pools. They are reported, never fought.

A decision is published once. If the running counts differ from the last one that was carried out for several ticks,
someone else changed them; the next decision is computed from the load, not from the conflicting edit.
"""

from __future__ import annotations

from planner.core.state import DeploymentState
from planner.domain.observation import DeploymentObservation
from planner.domain.plan import Limited
from planner.domain.reasons import ReasonCode

PATIENCE_TICKS = 3
"""Ticks for which counts may differ before a change is reported: listings lag behind decisions."""


def edited_ticks(state: DeploymentState, seen: DeploymentObservation | None) -> int:
    """Number of consecutive ticks in which running counts differ from the decision that was carried out."""
    if seen is None or not seen.pools:
        return state.learned.edited_ticks
    return state.learned.edited_ticks + 1 if state.flow.ready and _differences(state, seen) else 0


def notes(state: DeploymentState, seen: DeploymentObservation | None) -> tuple[Limited, ...]:
    """One note for each pool that is scaled externally."""
    if seen is None or state.learned.edited_ticks < PATIENCE_TICKS:
        return ()
    return tuple(
        Limited(
            found, ReasonCode.COMPETITOR, f"{name} runs {found}, decided were {decided}: changed by hand or by another"
        )
        for name, (found, decided) in _differences(state, seen).items()
    )


def _differences(state: DeploymentState, seen: DeploymentObservation) -> dict[str, tuple[int, int]]:
    return {
        name: (seen.pools[name].replicas.wanted, count)
        for name, count in state.flow.published.items()
        if name in seen.pools and seen.pools[name].replicas.wanted != count
    }

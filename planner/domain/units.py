"""Units of core and domain: watts as on the wire, and the instants of one planner iteration on both of its clocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

from bus_schemas.units import MW_PER_WATT, GpuSetpoint, Milliwatts, mw_from_watts, watts_from_mw

__all__ = [
    "MW_PER_WATT",
    "GpuSetpoint",
    "Instant",
    "LoadInstant",
    "Milliwatts",
    "TickClock",
    "mw_from_watts",
    "watts_from_mw",
]

Instant = NewType("Instant", float)
"""Seconds on the planner's own clock: leases, settle times, decisions."""
LoadInstant = NewType("LoadInstant", float)
"""Seconds on the time axis of the load: windows, rates, forecasts. Faster than the clock where a load is replayed."""


@dataclass(frozen=True, slots=True)
class TickClock:
    """Built once per iteration by ``PlannerConfig.clock``; nothing below reads another clock."""

    now_s: Instant
    """When the iteration decides."""
    load_now_s: LoadInstant
    """The same instant on the load's axis."""
    seen_s: LoadInstant
    """When the deployments were observed: earlier than now where a missed tick is decided late."""
    utc_s: float
    """UTC seconds at the observation, for schedules."""

"""The dead-man: how long a cap above its fallback may stay without a renewal by the planner.

Owns the arithmetic of leases on the agent's own clock. Must never extend a lease because of a message's arrival
alone: a decision that names the report it was based on is as old as that report, however late it comes.
"""

from __future__ import annotations

from dataclasses import dataclass

CLOCK_SKEW = 0.01
"""The largest difference of clock rates that the numbers allow for."""


def clock_of(boot: str) -> str:
    """The clock that a process's readings are on: the machine boot in ``<machine boot>/<process>``.

    A monotonic clock goes on across restarts of a process but not of the machine.
    """
    return boot.partition("/")[0]


@dataclass(frozen=True, slots=True)
class CapLease:
    """When the lease ends on this agent's clock, and whether this process may raise limits because of it."""

    ends_s: float
    ours: bool


def lease_of(
    boot: str, heard_boot: str, heard_clock_s: float | None, valid_for_s: float, now_s: float
) -> CapLease | None:
    """The lease of a decision received at ``now_s``; None where the report it names was made on another clock.

    A decision that names no report counts from its receipt. One that names an earlier process of this machine was
    made for that process: it may be older than others which that process had accepted, so it raises nothing here.
    """
    if heard_clock_s is None or not heard_boot:
        return CapLease(now_s + valid_for_s, ours=True)
    if clock_of(heard_boot) != clock_of(boot):
        return None
    return CapLease(min(heard_clock_s, now_s) + valid_for_s, ours=heard_boot == boot)


def unsafe(lease_s: float, reconcile_s: float, telemetry_s: float, flight_s: float = 1.0) -> tuple[str, ...]:
    """Why these numbers are unsafe together, one sentence each; empty when they are safe."""
    found = []
    if lease_s <= 0 or reconcile_s <= 0 or telemetry_s <= 0:
        found.append("lease, reconcile and telemetry times must be above 0 s")
    renewal_s = lease_s / 3.0
    if telemetry_s + renewal_s + 2.0 * flight_s > lease_s * (1.0 - CLOCK_SKEW):
        found.append(
            f"a lease of {lease_s:g} s ends before a renewal based on telemetry every {telemetry_s:g} s can arrive: "
            f"lengthen the lease or report more often"
        )
    if reconcile_s > 15.0:
        found.append(f"a limit that was lost would stand for {reconcile_s:g} s: reconcile at least every 15 s")
    return tuple(found)

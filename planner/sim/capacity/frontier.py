"""What was measured on clusters of different sizes, and which of it is worth having.

A site with more GPUs or watts than a point may leave the rest unused, so the share that can be had is the best of all
points within both limits. It never falls with more GPUs or watts, though a single run may.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CapacityPoint:
    """One run: a cluster of ``gpus`` under a budget of ``watts`` for all of them, and the good share (0..1)."""

    gpus: int
    watts: int
    good_share: float
    peak_watts: float = 0.0
    """Highest mean draw in a window of two seconds."""
    energy_joules: float = 0.0
    ttft_ms_p95: float = 0.0
    itl_ms_p95: float = 0.0
    violation_watt_seconds: float = 0.0


def best_within(points: Iterable[CapacityPoint], gpus: int, watts: float) -> CapacityPoint | None:
    """The point with the best share within both limits, of equal ones the smallest; None where none is within."""
    within = [point for point in points if point.gpus <= gpus and point.watts <= watts]
    return max(within, key=lambda point: (point.good_share, -point.gpus, -point.watts), default=None)


def pareto_frontier(points: Iterable[CapacityPoint]) -> tuple[CapacityPoint, ...]:
    """The points that no other one equals or betters in GPUs, watts and share together, by GPUs and watts."""
    kept: list[CapacityPoint] = []
    for point in sorted(points, key=lambda point: (point.gpus, point.watts, -point.good_share)):
        before = best_within(kept, point.gpus, point.watts)
        if before is None or before.good_share < point.good_share:
            kept.append(point)
    return tuple(kept)


def smallest_good(points: Iterable[CapacityPoint], promise_share: float) -> CapacityPoint | None:
    """The point with the fewest GPUs, and with these the fewest watts, that keeps the promise; None where none does."""
    good = (point for point in points if point.good_share >= promise_share)
    return min(good, key=lambda point: (point.gpus, point.watts), default=None)

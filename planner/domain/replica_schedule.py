"""Minimum and maximum replicas of a pool over the day: bounds per window of local time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, tzinfo


@dataclass(frozen=True, slots=True)
class ReplicaWindow:
    """Bounds from ``start_minute`` (inclusive) to ``end_minute`` (exclusive) of the local day; None: unbounded here.

    Minutes are wall-clock minutes since midnight, 0..1440. An end at or before the start means the next day.
    ``weekdays``: 0 is Monday; the day on which the window STARTS. Empty: every day.
    """

    start_minute: int
    end_minute: int
    min_replicas: int | None = None
    max_replicas: int | None = None
    weekdays: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ReplicaSchedule:
    """Windows in the order of rising precedence: the last one that contains the instant decides.

    ``zone`` is a loaded time zone (``zoneinfo.ZoneInfo``); the caller loads it.
    """

    windows: tuple[ReplicaWindow, ...]
    zone: tzinfo = UTC

"""Windows of the local day, and what they set: a site's budget, or a pool's minimum and maximum replicas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import TypeVar

from planner.domain.units import Milliwatts

MINUTES_PER_DAY = 1440


@dataclass(frozen=True, slots=True)
class BudgetWindow:
    """``budget_mw`` from ``start_minute`` (inclusive) to ``end_minute`` (exclusive) of the local day.

    Minutes are wall-clock minutes since midnight, 0..1440. An end at or before the start means the next day.
    ``weekdays``: 0 is Monday; the day on which the window STARTS. Empty: every day.
    """

    start_minute: int
    end_minute: int
    budget_mw: Milliwatts
    weekdays: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class BudgetSchedule:
    """Windows in the order of rising precedence: the last one that contains the instant decides.

    ``zone`` is a loaded time zone (``zoneinfo.ZoneInfo``); the caller loads it, so that nothing here reads
    a file.
    """

    windows: tuple[BudgetWindow, ...]
    zone: tzinfo = UTC


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


Window = TypeVar("Window", BudgetWindow, ReplicaWindow)


def window_at(windows: Sequence[Window], zone: tzinfo, utc_s: float) -> Window | None:
    """The window that decides at ``utc_s``, the last of those that hold; None outside all of them."""
    local = datetime.fromtimestamp(utc_s, UTC).astimezone(zone)
    minute, weekday = local.hour * 60 + local.minute, local.weekday()
    return next((window for window in reversed(windows) if _holds(window, minute, weekday)), None)


def _holds(window: BudgetWindow | ReplicaWindow, minute: int, weekday: int) -> bool:
    today = not window.weekdays or weekday in window.weekdays
    yesterday = not window.weekdays or (weekday - 1) % 7 in window.weekdays
    if window.start_minute < window.end_minute:
        return today and window.start_minute <= minute < window.end_minute
    return (today and minute >= window.start_minute) or (yesterday and minute < window.end_minute % MINUTES_PER_DAY)

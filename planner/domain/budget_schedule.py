"""A site's budget over the day: a value per window of local time, in milliwatts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, tzinfo

MINUTES_PER_DAY = 1440


@dataclass(frozen=True, slots=True)
class BudgetWindow:
    """``budget_mw`` from ``start_minute`` (inclusive) to ``end_minute`` (exclusive) of the local day.

    Minutes are wall-clock minutes since midnight, 0..1440. An end at or before the start means the next day.
    ``weekdays``: 0 is Monday; the day on which the window STARTS. Empty: every day.
    """

    start_minute: int
    end_minute: int
    budget_mw: int
    weekdays: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class BudgetSchedule:
    """Windows in the order of rising precedence: the last one that contains the instant decides.

    ``zone`` is a loaded time zone (``zoneinfo.ZoneInfo``); the caller loads it, so that nothing here reads
    a file.
    """

    windows: tuple[BudgetWindow, ...]
    zone: tzinfo = UTC

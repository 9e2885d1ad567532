"""The error budget of a promised share: how many requests were judged, how many were late, what is left.

A share of 0.97 allows 3 % of the requests to be late. Days and months are those of UTC. An interval counts for the
period in which it ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime

BURN_S = 3600.0
"""Seconds over which the burn rate is averaged, by weights that fall exponentially with age."""


@dataclass(frozen=True, slots=True)
class Account:
    """Requests judged in one period, which began at ``period_s``; they were counted from ``since_s`` on, which is later
    where the planner began within the period. Both in UTC seconds."""

    period_s: float
    since_s: float
    requests: float = 0.0
    late: float = 0.0

    def allowed(self, slo_share: float) -> float:
        """The number of late requests that the promise allows among those judged so far."""
        return (1.0 - slo_share) * self.requests

    def left(self, slo_share: float) -> float:
        """The part of the allowed late requests that is left: 1 before the first one, below 0 where it is overspent."""
        allowed = self.allowed(slo_share)
        return 1.0 - self.late / allowed if allowed > 0.0 else 1.0


@dataclass(frozen=True, slots=True)
class ErrorBudget:
    """The accounts of this day and month, and the newest past for the burn rate: seconds, requests and late ones, each
    with its weight."""

    day: Account
    month: Account
    recent_s: float = 0.0
    recent_requests: float = 0.0
    recent_late: float = 0.0

    def judged(self, utc_s: float, interval_s: float, requests: float, late: float) -> ErrorBudget:
        """The budget after an interval of ``interval_s`` that ended at ``utc_s``."""
        keep = math.exp(-interval_s / BURN_S)
        return ErrorBudget(
            _added(self.day, day_of(utc_s), utc_s - interval_s, requests, late),
            _added(self.month, month_of(utc_s), utc_s - interval_s, requests, late),
            self.recent_s * keep + interval_s,
            self.recent_requests * keep + requests,
            self.recent_late * keep + late,
        )

    def burn_rate(self, slo_share: float) -> float | None:
        """Late requests over allowed ones in the last hour: 1 spends the budget exactly. None without requests."""
        allowed = (1.0 - slo_share) * self.recent_requests
        return self.recent_late / allowed if allowed > 0.0 else None

    @property
    def req_per_s(self) -> float:
        """Requests per second over the same time."""
        return self.recent_requests / self.recent_s if self.recent_s > 0.0 else 0.0


def opened(utc_s: float) -> ErrorBudget:
    """A budget of which nothing is spent, counted from ``utc_s`` on."""
    return ErrorBudget(Account(day_of(utc_s), utc_s), Account(month_of(utc_s), utc_s))


def day_of(utc_s: float) -> float:
    """The start of the day, in UTC seconds."""
    return datetime.fromtimestamp(utc_s, UTC).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()


def month_of(utc_s: float) -> float:
    """The start of the month, in UTC seconds."""
    return datetime.fromtimestamp(day_of(utc_s), UTC).replace(day=1).timestamp()


def _added(known: Account, period_s: float, begun_s: float, requests: float, late: float) -> Account:
    account = known if known.period_s == period_s else Account(period_s, max(period_s, begun_s))
    return replace(account, requests=account.requests + requests, late=account.late + late)

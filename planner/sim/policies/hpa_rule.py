"""The Kubernetes HorizontalPodAutoscaler's rule: ratio, tolerance, unready pods, windows and rates.

Follows the published algorithm (``autoscaling/v2``): its defaults are the fields' defaults here. Deliberately written
apart from ``planner/core/limits/hpa_behavior.py``, which carries the same windows and rates: as a peer it must not
change when our limiter does, and as an oracle it can contradict it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

TOLERANCE = 0.1
SYNC_S = 15.0


@dataclass(frozen=True, slots=True)
class Behavior:
    """Windows in seconds; rates as the most pods, or the most percent, within 15 seconds."""

    up_window_s: float = 0.0
    down_window_s: float = 300.0
    up_pods: int = 4
    up_percent: float = 100.0
    down_percent: float = 100.0
    period_s: float = 15.0


@dataclass(slots=True)
class Hpa:
    """The autoscaler of one pool, with the recommendations and changes that it remembers."""

    least: int
    most: int
    behavior: Behavior = Behavior()
    _recommended: list[tuple[float, int]] = field(default_factory=list)
    _events: list[tuple[float, int]] = field(default_factory=list)

    def decide(self, now_s: float, current: int, desired: int) -> int:
        """The count to set: ``desired`` after windows, rates and bounds."""
        rules = self.behavior
        self._recommended.append((now_s, desired))
        longest_s = max(rules.up_window_s, rules.down_window_s)
        self._recommended = [(t, n) for t, n in self._recommended if t > now_s - longest_s or t == now_s]
        up = min(n for t, n in self._recommended if t >= now_s - rules.up_window_s)
        down = max(n for t, n in self._recommended if t > now_s - rules.down_window_s or t == now_s)
        count = min(max(current, up), down)
        self._events = [(t, n) for t, n in self._events if t > now_s - rules.period_s]
        recent = sum(n for _, n in self._events)
        start = current - recent
        if count > current:
            ceiling = max(start + rules.up_pods, math.ceil(start * (1 + rules.up_percent / 100)))
            count = min(count, max(ceiling, current))
        elif count < current:
            floor = math.floor(start * (1 - rules.down_percent / 100))
            count = max(count, min(floor, current))
        count = min(max(count, self.least), self.most)
        if count != current:
            self._events.append((now_s, count - current))
        return count


def by_utilisation(values: Sequence[float], unready: int, target: float) -> int:
    """Desired count from a metric of each ready pod.

    Unready pods count as idle on the way up, and as at target on the way down.
    """
    ready = len(values)
    current = ready + unready
    if not ready:
        return current
    ratio = sum(values) / ready / target
    if not unready:
        return current if abs(ratio - 1.0) <= TOLERANCE else math.ceil(ratio * ready - 1e-9)
    assumed = sum(values) + (unready * target if ratio < 1.0 else 0.0)
    again = assumed / current / target
    if abs(again - 1.0) <= TOLERANCE or (ratio < 1.0) != (again < 1.0):
        return current
    return math.ceil(again * current - 1e-9)


def by_total(total: float, current: int, target_per_pod: float) -> int:
    """Desired count from an external metric with a target average, as KEDA configures it."""
    if current and abs(total / (target_per_pod * current) - 1.0) <= TOLERANCE:
        return current
    return math.ceil(total / target_per_pod - 1e-9)

"""Mode ``load``: one replica up or down at each interval, by comparing queue and KV use with thresholds.

Two rules keep it from over-compensating: a new decode replica needs time to fill its cache, so decode does not shrink
for some intervals after it grew; and prefill does not grow while its queue is about to clear by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.domain.config import LoadThresholds
from planner.domain.observation import PoolObservation
from planner.domain.plan import Limited
from planner.domain.pool import Role
from planner.domain.reading import Sample
from planner.domain.reasons import ReasonCode


@dataclass(frozen=True, slots=True)
class PoolHistory:
    """The past that the rules use: the queue at the last tick, and the intervals since the pool last grew."""

    queued_requests: float | None = None
    intervals_since_growth: float = float("inf")


def signal(role: Role, seen: PoolObservation | None) -> float | None:
    """What is compared with the thresholds: queued requests or KV use, as a mean over the interval where it was read
    that often, else as last read; None if it is missing."""
    if seen is None:
        return None
    queue = role is Role.PREFILL
    means = seen.mean_queued_requests if queue else seen.mean_kv_usage
    last = seen.queued_requests if queue else seen.kv_usage
    reading = means if isinstance(means, Sample) and isinstance(last, Sample) else last
    return reading.value if isinstance(reading, Sample) else None


def step(role: Role, rules: LoadThresholds, value: float, current: int, past: PoolHistory) -> tuple[Limited, ...]:
    """The next desired count as a chain: one link, and a second one if a rule holds it."""
    if role is Role.PREFILL:
        return _prefill(rules, value, current, past)
    return _decode(rules, value, current, past)


def _prefill(rules: LoadThresholds, queued: float, current: int, past: PoolHistory) -> tuple[Limited, ...]:
    each = queued / max(1, current)
    if each > rules.prefill_queue_up or (queued > 0 and current == 0):
        up = Limited(current + 1, ReasonCode.LOAD, f"{each:.3g} requests wait per prefill replica: one more")
        if past.queued_requests is None or current == 0:
            return (up,)
        soon = queued + (queued - past.queued_requests) * rules.prefill_trend_intervals
        if soon / current < rules.prefill_queue_up:
            text = f"the queue falls: within {rules.prefill_trend_intervals} intervals below the threshold by itself"
            return (up, Limited(current, ReasonCode.QUEUE_TREND, text))
        return (up,)
    if each < rules.prefill_queue_down:
        return (
            Limited(max(0, current - 1), ReasonCode.LOAD, f"{each:.3g} requests wait per prefill replica: one fewer"),
        )
    return (Limited(current, ReasonCode.LOAD, f"{each:.3g} requests wait per prefill replica: between the thresholds"),)


def _decode(rules: LoadThresholds, used: float, current: int, past: PoolHistory) -> tuple[Limited, ...]:
    if used > rules.decode_kv_up:
        return (Limited(current + 1, ReasonCode.LOAD, f"KV caches are {used:.0%} full: one more"),)
    if used < rules.decode_kv_down:
        down = Limited(max(0, current - 1), ReasonCode.LOAD, f"KV caches are {used:.0%} full: one fewer")
        if past.intervals_since_growth <= rules.decode_grace_intervals:
            text = f"grown within {rules.decode_grace_intervals} intervals: new caches still fill"
            return (down, Limited(current, ReasonCode.GRACE_PERIOD, text))
        return (down,)
    return (Limited(current, ReasonCode.LOAD, f"KV caches are {used:.0%} full: between the thresholds"),)

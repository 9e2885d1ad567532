"""Mode ``classic``: the replica formulas of the published 0.9 planner, exactly, for comparison and migration.

They size on the mean capacity of a busy engine, without queues: at their result engines run nearly full.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from planner.core.performance.published_interpolators import classic_decode, classic_prefill
from planner.domain.profile import DecodeProfile, PrefillProfile


@dataclass(frozen=True, slots=True)
class Interval:
    """The inputs of the formulas for one interval: requests, mean lengths."""

    requests: float
    isl_tokens: float
    osl_tokens: float
    interval_s: float

    @property
    def context_tokens(self) -> float:
        return self.isl_tokens + self.osl_tokens / 2.0


def prefill_correction(profile: PrefillProfile, seen: Interval, ttft_ms: float) -> float:
    """Observed TTFT over the profile's. It includes queueing, and is far above 1 under load."""
    return ttft_ms / classic_prefill(profile).ttft_ms(seen.isl_tokens)


def decode_correction(
    profile: DecodeProfile, seen: Interval, itl_ms: float, replicas: int, request_duration_s: float
) -> float:
    """Observed ITL over the profile's at the concurrency that Little's law gives."""
    concurrency = seen.requests / max(1, replicas) * request_duration_s / seen.interval_s
    return itl_ms / classic_decode(profile).itl_ms(concurrency, seen.context_tokens)


def prefill_replicas(profile: PrefillProfile, ahead: Interval, correction: float, gpus: int) -> int:
    """``ceil(req * isl / interval * min(1, correction) / throughput per GPU / GPUs)``."""
    demand = ahead.requests * ahead.isl_tokens / ahead.interval_s * min(1.0, correction)
    return math.ceil(demand / classic_prefill(profile).tokens_per_s_per_gpu(ahead.isl_tokens) / gpus)


def decode_replicas(profile: DecodeProfile, ahead: Interval, itl_ms: float, correction: float, gpus: int) -> int:
    """``ceil(req * osl / interval / best throughput per GPU within the corrected ITL / GPUs)``."""
    corrected = itl_ms / correction if correction > 0 else itl_ms
    rate = classic_decode(profile).best_rate(corrected, ahead.context_tokens)
    return math.ceil(ahead.requests * ahead.osl_tokens / ahead.interval_s / rate / gpus)


def within_budget(
    prefill: int, decode: int, prefill_gpus: int, decode_gpus: int, max_gpus: int | None, floors: tuple[int, int]
) -> tuple[int, int]:
    """The published proportional cut; its rounding may exceed the budget, so a hard limit follows later."""
    total = prefill * prefill_gpus + decode * decode_gpus
    if max_gpus is None or total <= max_gpus:
        return prefill, decode
    prefill = max(floors[0], round(prefill * max_gpus / total))
    return prefill, max(floors[1], round((max_gpus - prefill * prefill_gpus) / decode_gpus))

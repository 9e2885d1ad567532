"""The load to size for: one deployment's forecast, in terms of the engines' work."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

LARGEST_HIT_RATE = 0.95
"""Upper bound of the hit rate: with 1, prefill would be free, but the new tokens of a prompt must be computed."""
SMALLEST_CV2, LARGEST_CV2 = 0.1, 10.0
"""Bounds of the spread of prompt lengths that is believed."""


@dataclass(frozen=True, slots=True)
class Corrections:
    """Factors of live engines' times over the profile's, by phase."""

    prefill: float = 1.0
    decode: float = 1.0


@dataclass(frozen=True, slots=True)
class SizedLoad:
    """Requests a second with mean shape and spread. ``queued_requests`` wait for prefill now.

    ``isl_cv2`` is the squared coefficient of variation of the lengths (1 = exponential).
    Arrivals WITHIN an interval are taken as Poisson, not measured: with the usual scrape every 15 s an interval of 30 s
    has two counts, whose index of dispersion lies between 0.03 and 7 (p10 to p90) on real traces and does not predict
    the next one's (correlation below 0.1). Rates that change from interval to interval are the forecast's scenarios.
    """

    req_per_s: float
    isl_tokens: float
    osl_tokens: float
    isl_cv2: float = 1.0
    hit_rate: float = 0.0
    accept_length: float = 1.0
    queued_requests: float = 0.0
    in_flight: float = 0.0
    """Sequences held by decode engines or waiting for one, extrapolated to the next tick."""
    rates: tuple[float, ...] = ()
    """Equally likely request rates at the time to size for; empty: ``req_per_s`` alone, in steady state."""
    held_req_per_s: float | None = None
    """The rate to size decode for, averaged over the duration of a sequence; None: ``req_per_s``."""
    arriving_req_per_s: float | None = None
    """The arrival rate, averaged likewise, with nothing added for what might come; None: unknown."""
    serving: float = 0.0
    """Prefill replicas that serve, on average over the next ``lead_s``."""
    lead_s: float = 0.0
    """Seconds until a replica decided now can serve."""
    interval_s: float = 0.0
    """Seconds until the next decision."""

    @property
    def prefill_tokens(self) -> float:
        """Tokens per prompt to compute, less prefix-cache hits."""
        return max(1.0, self.isl_tokens * (1.0 - min(LARGEST_HIT_RATE, max(0.0, self.hit_rate))))

    @property
    def context_tokens(self) -> float:
        """Mean KV tokens of a sequence over its duration: the whole prompt and half the answer."""
        return max(1.0, self.isl_tokens + self.osl_tokens / 2.0)

    @property
    def decode_steps(self) -> float:
        """Iterations per answer; with speculative decoding, one iteration yields ``accept_length`` tokens."""
        return max(1.0, self.osl_tokens) / max(1.0, self.accept_length)

    @property
    def idle(self) -> bool:
        return self.req_per_s <= 0.0 and self.queued_requests <= 0.0

    def as_it_arrives(self) -> SizedLoad | None:
        """The load for caps, which act at once: what waits and arrives now; None where that is not known."""
        rate = self.arriving_req_per_s
        return None if rate is None else replace(self, req_per_s=rate, rates=(rate,), lead_s=0.0)

    def flowing(self) -> SizedLoad:
        """The same arrivals where nothing waits, now or when new replicas serve."""
        return replace(self, queued_requests=0.0, serving=math.inf)

"""The load that is sized: one deployment's forecast, in the terms in which engines feel it."""

from __future__ import annotations

from dataclasses import dataclass

LARGEST_HIT_RATE = 0.95
"""A prefix cache that hits always would make prefill free; new tokens of every prompt still have to be read."""


@dataclass(frozen=True, slots=True)
class Corrections:
    """Live engines' times over the profile's, by phase."""

    prefill: float = 1.0
    decode: float = 1.0


@dataclass(frozen=True, slots=True)
class SizedLoad:
    """Requests a second with mean shape and spread. ``queued_requests`` wait for prefill now.

    ``arrival_cv2`` and ``isl_cv2`` are squared coefficients of variation (1 = Poisson arrivals, exponential lengths).
    Arrivals WITHIN an interval are taken as Poisson, not measured: with the usual scrape every 15 s an interval of 30 s
    has two counts, whose index of dispersion lies between 0.03 and 7 (p10 to p90) on real traces and tells nothing of
    the next one's (correlation below 0.1). Rates that change from interval to interval are the forecast's scenarios.
    """

    req_per_s: float
    isl_tokens: float
    osl_tokens: float
    arrival_cv2: float = 1.0
    isl_cv2: float = 1.0
    hit_rate: float = 0.0
    accept_length: float = 1.0
    queued_requests: float = 0.0
    in_flight: float = 0.0
    """Sequences that decode engines hold or that wait for one, at the next tick if they grow as since the last."""
    rates: tuple[float, ...] = ()
    """Equally likely request rates for the time that is sized for; empty: ``req_per_s`` alone, for ever."""
    held_req_per_s: float | None = None
    """The rate that decode is sized for, bursts averaged over a sequence's life; None: ``req_per_s``."""
    serving: float = 0.0
    """Prefill replicas that serve, or will within ``lead_s``."""
    lead_s: float = 0.0
    """Until a replica ordered now serves."""
    interval_s: float = 0.0
    """Until the next decision."""

    @property
    def prefill_tokens(self) -> float:
        """Tokens of a prompt that have to be computed."""
        return max(1.0, self.isl_tokens * (1.0 - min(LARGEST_HIT_RATE, max(0.0, self.hit_rate))))

    @property
    def context_tokens(self) -> float:
        """Mean KV tokens a sequence holds over its life: the whole prompt and half the answer."""
        return max(1.0, self.isl_tokens + self.osl_tokens / 2.0)

    @property
    def decode_steps(self) -> float:
        """Iterations an answer takes; speculative decoding accepts ``accept_length`` tokens in one."""
        return max(1.0, self.osl_tokens) / max(1.0, self.accept_length)

    @property
    def idle(self) -> bool:
        return self.req_per_s <= 0.0 and self.queued_requests <= 0.0

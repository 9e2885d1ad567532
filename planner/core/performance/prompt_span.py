"""What prompts were and took over the last half minute: the same prompts teach the same, however often there is a tick.

Of a burst, a short tick shows a high rate and a long TTFT, and the ticks around it count as much; a tick of half a
minute shows a long TTFT at a low rate. So ticks are put together, and each prompt counts once.
"""

from __future__ import annotations

from typing import NamedTuple

from planner.core.performance.observed_ratio import PER_S
from planner.core.performance.speeds_in_force import Speeds
from planner.core.sizing.sized_load import LARGEST_CV2, SMALLEST_CV2, SizedLoad

SPAN_S = PER_S
"""Seconds over which prompts are put together. A tick that lasts longer is a span of its own."""
ALONE = 1.5
"""Below so many prompts there is no spread of lengths."""


class PromptsSeen(NamedTuple):
    """The prompts of the tick that ended at ``at_s`` after ``seconds``: sums over them, and what was there at its end.

    ``tokens`` are those to compute. ``timed``: the prompts whose TTFT is in ``ttft_ms``.
    """

    at_s: float
    seconds: float
    slowest: float
    fastest: float
    ready: int
    waiting: float
    requests: float = 0.0
    tokens: float = 0.0
    square_tokens: float = 0.0
    timed: float = 0.0
    ttft_ms: float = 0.0


Span = tuple[PromptsSeen, ...]
"""The ticks of the last ``SPAN_S`` seconds, oldest first."""


class PromptMeans(NamedTuple):
    """A span's load, its mean TTFT, and what the mean speed of the GPUs lay between."""

    load: SizedLoad
    ttft_ms: float
    speeds: Speeds


def filled(empty: PromptsSeen, shape: SizedLoad, cv2: float | None, ttft_ms: float | None) -> PromptsSeen:
    """A tick with its prompts. ``cv2`` None: one prompt has no spread, of several it is not known."""
    requests, tokens = shape.req_per_s * empty.seconds, shape.prefill_tokens
    spread = (0.0 if requests < ALONE else 1.0) if cv2 is None else cv2
    return empty._replace(
        requests=requests,
        tokens=requests * tokens,
        square_tokens=requests * tokens * tokens * (1.0 + spread),
        timed=0.0 if ttft_ms is None else requests,
        ttft_ms=0.0 if ttft_ms is None else requests * ttft_ms,
    )


def extended(span: Span, newest: PromptsSeen) -> Span:
    """The span that ends with the newest tick."""
    since_s = newest.at_s - SPAN_S + newest.seconds / 2.0
    return (*[one for one in span if one.at_s > since_s], newest)


def mean_tokens(span: Span) -> float | None:
    """Tokens to compute of a prompt of the span; None where there were none."""
    requests = sum([one.requests for one in span])
    return sum([one.tokens for one in span]) / requests if requests > 0.0 else None


def means(span: Span) -> PromptMeans | None:
    """What the prompts of a span had in common; None where there were none, or no TTFT."""
    seconds, requests = sum([one.seconds for one in span]), sum([one.requests for one in span])
    timed, tokens = sum([one.timed for one in span]), mean_tokens(span)
    if seconds <= 0.0 or tokens is None or timed <= 0.0:
        return None
    cv2 = sum([one.square_tokens for one in span]) / requests / (tokens * tokens) - 1.0
    load = SizedLoad(
        req_per_s=requests / seconds,
        isl_tokens=tokens,
        osl_tokens=1.0,
        isl_cv2=1.0 if requests < ALONE else min(LARGEST_CV2, max(SMALLEST_CV2, cv2)),
    )
    slowest = sum([one.slowest * one.seconds for one in span]) / seconds
    fastest = sum([one.fastest * one.seconds for one in span]) / seconds
    return PromptMeans(load, sum([one.ttft_ms for one in span]) / timed, Speeds(slowest, fastest))

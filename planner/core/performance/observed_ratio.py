"""Online correction of a profile: how much slower or faster live engines are.

Offline profiles can be off by a factor of two against live serving. A factor is learned for each phase, under
conditions in which the profile's own prediction is precise. It is bounded, moves slowly, fades to 1 while nothing can
be learned, and is part of every plan.
"""

from __future__ import annotations

from planner.core.performance.decode_model import DecodeModel

SLOWEST, FASTEST = 2.5, 0.5
GAIN = 0.2
FADING = 0.01
SHARP_WAIT = 0.7
"""TTFT counts only while the expected wait is at most this share of it; beyond, it depends on arrivals."""
FULLEST_BATCH = 0.9
"""ITL is used only below this share of the engine's batch limit; beyond, requests queue inside the engine."""


def learned(factor: float, ratio: float | None) -> float:
    """The factor after one interval; ``ratio``: observed over predicted, None if unknown."""
    if ratio is None:
        return factor + FADING * (1.0 - factor)
    return factor + GAIN * (min(SLOWEST, max(FASTEST, ratio)) - factor)


def itl_ratio(model: DecodeModel, step_ms: float, steps_per_s: float, context_tokens: float) -> float | None:
    """Observed iteration time over the profile's, at the batch that Little's law gives for the OBSERVED time.

    ``steps_per_s``: decode iterations per second of one replica, summed over its sequences.
    """
    batch = steps_per_s * step_ms / 1000.0
    if step_ms <= 0 or batch <= 0 or batch > FULLEST_BATCH * model.batch_limit(context_tokens):
        return None
    return step_ms / model.itl_ms(max(1.0, batch), context_tokens)


def ttft_ratio(ttft_ms: float, own_ms: float, response_ms: float) -> float | None:
    """Observed mean TTFT over the profile's ``response_ms``, of which ``own_ms`` is service; None if waits dominate."""
    if ttft_ms <= 0 or own_ms <= 0 or response_ms * (1.0 - SHARP_WAIT) > own_ms:
        return None
    return ttft_ms / response_ms

"""Online correction of a profile: how much slower or faster live engines are than it says.

Offline profiles are off by up to a factor of two against live serving. A factor is learned for each phase from what
was observed under conditions in which the profile's own answer is sharp; it is bounded, it moves slowly, it fades to 1
while nothing can be learned, and every plan shows it.
"""

from __future__ import annotations

from planner.core.performance.decode_model import DecodeModel

SLOWEST, FASTEST = 2.5, 0.5
GAIN = 0.2
FADING = 0.01
SHARP_WAIT = 0.7
"""TTFT teaches only where waiting is expected to be at most this share of it: beyond, arrivals rule it, not engines."""
FULLEST_BATCH = 0.9
"""ITL teaches only below this share of the engine's batch limit: beyond, requests queue inside it."""


def learned(factor: float, ratio: float | None) -> float:
    """The factor after one interval; ``ratio``: observed over the profile's own answer, None where it is not known."""
    if ratio is None:
        return factor + FADING * (1.0 - factor)
    return factor + GAIN * (min(SLOWEST, max(FASTEST, ratio)) - factor)


def itl_ratio(model: DecodeModel, step_ms: float, steps_per_s: float, context_tokens: float) -> float | None:
    """Observed iteration time over the profile's at the batch that Little's law gives from the OBSERVED time.

    ``steps_per_s``: decode iterations asked of one replica, over all its sequences.
    """
    batch = steps_per_s * step_ms / 1000.0
    if step_ms <= 0 or batch <= 0 or batch > FULLEST_BATCH * model.batch_limit(context_tokens):
        return None
    return step_ms / model.itl_ms(max(1.0, batch), context_tokens)


def ttft_ratio(ttft_ms: float, own_ms: float, response_ms: float) -> float | None:
    """Observed mean TTFT over the profile's ``response_ms``, of which ``own_ms`` is service; None where waits rule."""
    if ttft_ms <= 0 or own_ms <= 0 or response_ms * (1.0 - SHARP_WAIT) > own_ms:
        return None
    return ttft_ms / response_ms

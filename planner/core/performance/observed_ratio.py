"""Online correction of a profile: how much slower or faster live engines are.

Offline profiles can be off by a factor of two against live serving. A factor is learned for each phase, under
conditions in which the profile's own prediction is precise. It is bounded, moves slowly, fades to 1 while nothing can
be learned, and is part of every plan. Where an interval leaves open what the engines did, it gives a range of ratios,
and the factor moves only as far as that range proves.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from planner.core.performance.decode_model import DecodeModel

SLOWEST, FASTEST = 2.5, 0.5
SLOWEST_LATE = 10.0
"""The bound while answers miss their target: then, distrusting the measurement is the worse mistake."""
GAIN, FADING, PER_S = 0.2, 0.01, 30.0
"""Of the distance to what is observed, and to 1 where nothing is: the shares that are made up every ``PER_S`` seconds,
however often there is a tick."""
SHARP_WAIT = 0.7
"""TTFT counts only while the expected wait is at most this share of it; beyond, it depends on arrivals."""
FULLEST_BATCH = 0.9
"""Up to this share of the engine's batch limit Little's law gives the batch; beyond, requests queue inside the engine,
and the batch is the limit."""

TELLING = 0.5
"""ITL counts only where the batch adds at least this share of an empty engine's iteration time."""


class Ratio(NamedTuple):
    """Observed over predicted, as an interval shows it: at least ``low`` and at most ``high``."""

    low: float
    high: float


def nearest(factor: float, ratio: Ratio) -> float:
    """The value within ``ratio`` that is nearest to ``factor``. Above ``SLOWEST`` only what is sure counts: ``low``."""
    return max(ratio.low, min(ratio.high, factor, SLOWEST))


def learned(factor: float, ratio: float | None, interval_s: float = PER_S, *, late: bool = False) -> float:
    """The factor after an interval; ``ratio``: observed over predicted, None if unknown.

    ``late``: what was observed misses its target. A factor that was learned then is kept as long as it is observed;
    after that it returns to the usual bound as fast as it came.
    """
    if ratio is None and factor > SLOWEST:
        return factor + _within(interval_s, GAIN) * (SLOWEST - factor)
    if ratio is None:
        return factor + _within(interval_s, FADING) * (1.0 - factor)
    slowest = SLOWEST_LATE if late else max(SLOWEST, factor)
    return factor + _within(interval_s, GAIN) * (min(slowest, max(FASTEST, ratio)) - factor)


def _within(interval_s: float, share: float) -> float:
    return -math.expm1(interval_s / PER_S * math.log1p(-share))


def itl_ratio(
    model: DecodeModel, step_ms: float, steps_per_s: float, context_tokens: float, *, late: bool = False
) -> float | None:
    """Observed iteration time over the profile's, at the batch that Little's law gives for the OBSERVED time.

    ``steps_per_s``: decode iterations per second of one replica, summed over its sequences. Little's law averages the
    batch over time, the observed time over tokens: a token shares its iteration with as many others as there are on
    average, and with itself. From a full engine only a ratio above 1 is used: its batch is at the limit, and more
    arrives than it carries. None where the batch hardly lengthens an iteration, unless answers are ``late``: bursts
    within the interval would be taken for slow engines, and the capacity added for them makes the batch smaller yet.
    """
    batch, limit = steps_per_s * step_ms / 1000.0, model.batch_limit(context_tokens)
    if step_ms <= 0 or batch <= 0:
        return None
    if batch > FULLEST_BATCH * limit:
        full = step_ms / model.itl_ms(limit, context_tokens)
        return full if full > 1.0 else None
    if not late and batch * model.per_sequence_ms(context_tokens) < TELLING * model.a_ms:
        return None
    return step_ms / model.itl_ms(batch + 1.0, context_tokens)


def itl_range(high: float, model: DecodeModel, running: float, steps_per_s: float, context_tokens: float) -> Ratio:
    """What a ratio by ``itl_ratio`` proves of an engine that was seen to run ``running`` sequences.

    The ITL of answers that waited for a place in decode may include that wait, and Little's law then counts those that
    wait into the batch. The sequences that run give an iteration's time without them, but only for steady arrivals.
    """
    if steps_per_s <= 0:
        return Ratio(high, high)
    step_ms = 1000.0 * running / steps_per_s
    return Ratio(min(high, step_ms / model.itl_ms(running + 1.0, context_tokens)), high)


def ttft_ratio(ttft_ms: float, own_ms: float, response_ms: float) -> float | None:
    """Observed mean TTFT over the profile's ``response_ms``, of which ``own_ms`` is service; None if waits dominate."""
    if ttft_ms <= 0 or own_ms <= 0 or response_ms * (1.0 - SHARP_WAIT) > own_ms:
        return None
    return ttft_ms / response_ms

"""A workload without a trace: endless, generated from the published figures of a real one.

The default figures describe the conversation service of the Azure LLM inference trace 2023 (CC-BY-4.0): percentiles of
input and output tokens, and arrivals in bursts (squared coefficient of variation of the gaps 1.2). A wave stands for
the day. Only these figures are kept here, no request of the trace.
"""

from __future__ import annotations

import itertools
import math
import random
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from planner.domain.request import Request

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Figures:
    """Quantiles of token counts as ``(probability, tokens)``, and the burstiness of arrivals."""

    isl: tuple[tuple[float, float], ...]
    osl: tuple[tuple[float, float], ...]
    gap_cv2: float


AZURE_CONVERSATION_2023 = Figures(
    isl=((0.0, 20), (0.05, 181), (0.25, 396), (0.5, 1020), (0.75, 1189), (0.9, 2734), (0.95, 4083), (1.0, 4200)),
    osl=((0.0, 8), (0.05, 41), (0.25, 85), (0.5, 129), (0.75, 395), (0.9, 424), (0.95, 451), (0.99, 601), (1.0, 900)),
    gap_cv2=1.2,
)


def generated(
    seed: int = 0,
    *,
    requests_per_s: float = 5.5,
    wave: float = 0.4,
    wave_s: float = DAY_S,
    wave_phase: float = 0.0,
    figures: Figures = AZURE_CONVERSATION_2023,
) -> Iterator[Request]:
    """Endless requests: a mean rate, a sine of relative height ``wave`` and period ``wave_s``, gamma-distributed gaps.

    ``wave_phase`` (0..1) is where in the period the workload starts. Gaps are drawn at the rate at that time, so that
    bursts keep their relative size. Raises ValueError for a rate that is not positive or a wave outside 0..1.
    """
    if not requests_per_s > 0 or not 0 <= wave < 1 or not wave_s > 0:
        raise ValueError("a workload needs a rate and a period above 0 and a wave from 0 to below 1")
    return _requests(random.Random(seed), requests_per_s, wave, wave_s, wave_phase, figures)


PROMPT_HEAVY = Figures(
    isl=((0.0, 500), (0.25, 2000), (0.5, 3500), (0.75, 5000), (1.0, 8000)),
    osl=((0.0, 4), (0.25, 40), (0.5, 80), (0.75, 130), (1.0, 300)),
    gap_cv2=1.2,
)
"""Summaries and retrieval: long prompts, short answers."""
ANSWER_HEAVY = Figures(
    isl=((0.0, 20), (0.25, 150), (0.5, 300), (0.75, 500), (1.0, 1500)),
    osl=((0.0, 50), (0.25, 350), (0.5, 600), (0.75, 900), (1.0, 2000)),
    gap_cv2=1.2,
)
"""Code and stories: short prompts, long answers."""


def flipping(seed: int, phases: tuple[tuple[Figures, float], ...], flip_s: float = 600.0) -> Iterator[Request]:
    """Endless requests of one mix for ``flip_s``, then of the next, and so on in turns: ``(figures, requests/s)``."""
    if not phases or not flip_s > 0 or not all(rate > 0 for _, rate in phases):
        raise ValueError("a mix needs phases with a rate above 0 and a time above 0 between flips")
    rng = random.Random(seed)
    for number in itertools.count():
        figures, rate = phases[number % len(phases)]
        for request in _requests(rng, rate, 0.0, flip_s, 0.0, figures):
            if request.t_s >= flip_s:
                break
            yield request._replace(t_s=number * flip_s + request.t_s)


def _requests(
    rng: random.Random, rate: float, wave: float, wave_s: float, phase: float, figures: Figures
) -> Iterator[Request]:
    shape = 1.0 / figures.gap_cv2
    t_s = 0.0
    while True:
        now_rate = rate * (1.0 + wave * math.sin(2.0 * math.pi * (t_s / wave_s + phase)))
        t_s += rng.gammavariate(shape, 1.0 / (shape * now_rate))
        yield Request(t_s, _tokens(figures.isl, rng.random()), _tokens(figures.osl, rng.random()))


def _tokens(quantiles: tuple[tuple[float, float], ...], share: float) -> int:
    """The quantile at ``share``, interpolated linearly between the published ones."""
    above = min(bisect_right(quantiles, (share, math.inf)), len(quantiles) - 1)
    (p0, x0), (p1, x1) = quantiles[above - 1], quantiles[above]
    return max(1, round(x0 + (x1 - x0) * (share - p0) / (p1 - p0)))

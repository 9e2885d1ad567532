"""Prefill by profile: the time that one input takes alone, and its share of the engine's time under batching.

Times are milliseconds at full speed: linear between measured points, and beyond them with the last slope.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from planner.domain.profile import PrefillProfile

DEFAULT_BATCHED_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class PrefillModel:
    """``ttft_ms`` by ``isl_tokens``: equal lengths, at least one point, both ascending."""

    isl_tokens: tuple[float, ...]
    times_ms: tuple[float, ...]
    batched_tokens: int = DEFAULT_BATCHED_TOKENS

    def ttft_ms(self, isl_tokens: float) -> float:
        """TTFT of an input that does not wait, in milliseconds."""
        xs, ys = self.isl_tokens, self.times_ms
        if isl_tokens <= xs[0] or len(xs) == 1:
            return ys[0]
        i = min(bisect_right(xs, isl_tokens), len(xs) - 1)
        slope = (ys[i] - ys[i - 1]) / (xs[i] - xs[i - 1])
        return ys[i - 1] + slope * (isl_tokens - xs[i - 1])

    def cost_ms(self, isl_tokens: float) -> float:
        """Engine time per input when many wait, in milliseconds: engines batch inputs up to ``batched_tokens``."""
        if isl_tokens >= self.batched_tokens:
            return self.ttft_ms(isl_tokens)
        batch = self.batched_tokens // max(1.0, isl_tokens)
        return min(self.ttft_ms(isl_tokens), self.ttft_ms(batch * isl_tokens) / batch)

    def covers(self, isl_tokens: float) -> bool:
        """Whether this length is within the measured range; if not, results are extrapolated."""
        return self.isl_tokens[0] <= isl_tokens <= self.isl_tokens[-1]


def prefill_model(profile: PrefillProfile, batched_tokens: int | None) -> PrefillModel:
    """The model of a profile; a measured time below that of a shorter input is raised to it.

    Raises ValueError for a profile without points.
    """
    points = sorted(zip(profile.isl_tokens, profile.ttft_ms, strict=True))
    if not points:
        raise ValueError("the prefill profile has no points")
    xs: list[float] = []
    ys: list[float] = []
    for isl, ttft in points:
        if xs and isl == xs[-1]:
            continue
        xs.append(isl)
        ys.append(max(ttft, ys[-1]) if ys else ttft)
    return PrefillModel(tuple(xs), tuple(ys), batched_tokens or DEFAULT_BATCHED_TOKENS)

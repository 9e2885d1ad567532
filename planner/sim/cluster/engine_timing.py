"""How long an engine takes for its work at full speed, derived from a profile.

Owns the plant's own law: prefill time by interpolation of the measured TTFT, ``ITL = a + b * batch + c * kv_tokens``
fitted to the measured points. Deliberately not the planner's model: the planner knows the cluster
only through its profile, and ``truth`` makes the cluster slower or faster than the profile.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations

import numpy as np

from planner.domain.profile import DecodeProfile, PrefillProfile, Profile


class Batching(StrEnum):
    """How the time of a chunk with several prompts is computed."""

    EACH = "each"
    """Each prompt's own time, the fixed part once: attention does not cross prompts."""
    TOTAL = "total"
    """The time of one prompt of as many tokens, as in NVIDIA's simulator."""


DEFAULT_MAX_SEQS = 512
DEFAULT_MAX_BATCHED_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class PrefillLaw:
    """Seconds of a prefill by input tokens (ascending), and the part that a batch pays only once."""

    isl: tuple[float, ...]
    seconds: tuple[float, ...]
    once_s: float
    max_batched_tokens: int
    batching: Batching = Batching.EACH

    def chunk_s(self, parts: Sequence[tuple[int, int]]) -> float:
        """Seconds for one chunk: ``(tokens to compute of the whole prompt, tokens of it in this chunk)`` each."""
        if self.batching is Batching.TOTAL:
            return self.alone_s(sum(part for _, part in parts))
        if len(parts) == 1 and parts[0][0] == parts[0][1]:
            return self.alone_s(parts[0][0])
        return sum(self.alone_s(whole) * part / whole for whole, part in parts) - self.once_s * (len(parts) - 1)

    def alone_s(self, isl: float) -> float:
        """Seconds for one prompt of ``isl`` tokens: linear between and beyond the measured points."""
        xs, ys = self.isl, self.seconds
        if len(xs) == 1:
            return ys[0] * max(isl / xs[0], 0.0)
        i = min(max(bisect_left(xs, isl), 1), len(xs) - 1)
        x0, y0 = xs[i - 1], ys[i - 1]
        return max(y0 + (isl - x0) * (ys[i] - y0) / (xs[i] - x0), self.once_s)


@dataclass(frozen=True, slots=True)
class DecodeLaw:
    """One iteration takes ``a + b * batch + c * kv_tokens`` seconds."""

    a: float
    b: float
    c: float
    max_kv_tokens: int
    max_seqs: int

    def iteration_s(self, batch: float, kv_tokens: float) -> float:
        """Seconds of one iteration at full speed: every running request gains a token."""
        return self.a + self.b * batch + self.c * kv_tokens


@dataclass(frozen=True, slots=True)
class EngineLaw:
    """Both phases of one engine. A phase without a profile is None."""

    prefill: PrefillLaw | None
    decode: DecodeLaw | None


def engine_law(profile: Profile, truth: float = 1.0, batching: Batching = Batching.EACH) -> EngineLaw:
    """The timing of engines whose true speed is ``truth`` times the profile's (1 = as profiled)."""
    if not truth > 0:
        raise ValueError(f"an engine's speed against its profile must be above 0, not {truth}")
    tokens = profile.max_num_batched_tokens or DEFAULT_MAX_BATCHED_TOKENS
    seqs = profile.max_num_seqs or DEFAULT_MAX_SEQS
    return EngineLaw(
        prefill=replace(_prefill_law(profile.prefill, tokens, truth), batching=batching) if profile.prefill else None,
        decode=_decode_law(profile.decode, seqs, truth) if profile.decode else None,
    )


def _prefill_law(points: PrefillProfile, max_batched_tokens: int, truth: float) -> PrefillLaw:
    seconds = tuple(ms / 1000.0 / truth for ms in points.ttft_ms)
    once_s = 0.0
    if len(seconds) > 1:
        slope = (seconds[1] - seconds[0]) / (points.isl_tokens[1] - points.isl_tokens[0])
        once_s = min(max(seconds[0] - slope * points.isl_tokens[0], 0.0), seconds[0])
    return PrefillLaw(points.isl_tokens, seconds, once_s, max_batched_tokens)


def _decode_law(points: DecodeProfile, max_seqs: int, truth: float) -> DecodeLaw:
    kv = np.asarray(points.kv_usage) * points.max_kv_tokens
    batch = kv / np.asarray(points.context_tokens)
    seconds = np.asarray(points.itl_ms) / 1000.0 / truth
    a, b, c = _fit(np.column_stack([np.ones_like(kv), batch, kv]), seconds)
    return DecodeLaw(a, b, c, points.max_kv_tokens, max_seqs)


def _fit(columns: np.ndarray, target: np.ndarray) -> tuple[float, float, float]:
    """Non-negative least squares of the relative error, by trying all subsets of coefficients."""
    weighted = columns / target[:, None]
    ones = np.ones(len(target))
    best, best_error = (float(target.mean()), 0.0, 0.0), float("inf")
    for size in (3, 2, 1):
        for chosen in combinations(range(3), size):
            found = np.linalg.lstsq(weighted[:, chosen], ones, rcond=None)[0]
            error = float(((weighted[:, chosen] @ found - 1.0) ** 2).sum())
            if (found >= 0).all() and error < best_error:
                full = [0.0, 0.0, 0.0]
                for place, value in zip(chosen, found, strict=True):
                    full[place] = float(value)
                best, best_error = (full[0], full[1], full[2]), error
    return best

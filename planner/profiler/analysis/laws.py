"""The lines that an engine's times follow, fitted to its measured points. Pure.

Prefill: ``ttft_ms = base + per_token * isl + per_token_squared * isl ** 2``. Decode: ``itl_ms = base + per_request *
requests + per_kv_token * kv_tokens``. Least squares of the relative error without negative coefficients; a term that
the points do not show (by the Bayesian information criterion) is 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from planner.domain.profile import DecodeProfile, PrefillProfile

SMALLEST_ERROR = 1e-4
"""Mean squared relative errors below the square of this are those of rounding: more terms would fit nothing."""


@dataclass(frozen=True, slots=True)
class PrefillFit:
    """Milliseconds, per token of the prompt and per token squared; median relative error against the points."""

    base_ms: float
    ms_per_token: float
    ms_per_token_squared: float
    error: float


@dataclass(frozen=True, slots=True)
class DecodeFit:
    """Milliseconds, per running request and per token in the KV cache; median relative error against the points."""

    base_ms: float
    ms_per_request: float
    ms_per_kv_token: float
    error: float


def fit_prefill(profile: PrefillProfile) -> PrefillFit:
    """The line through TTFT by input length."""
    isl = np.asarray(profile.isl_tokens)
    return PrefillFit(*_fitted([np.ones_like(isl), isl, isl**2], np.asarray(profile.ttft_ms)))


def fit_decode(profile: DecodeProfile) -> DecodeFit:
    """The line through ITL by requests and KV tokens."""
    kv_tokens = np.asarray(profile.kv_usage) * profile.max_kv_tokens
    requests = kv_tokens / np.asarray(profile.context_tokens)
    return DecodeFit(*_fitted([np.ones_like(kv_tokens), requests, kv_tokens], np.asarray(profile.itl_ms)))


def _fitted(columns: Sequence[np.ndarray], ms: np.ndarray) -> tuple[float, float, float, float]:
    """Three coefficients and the median relative error."""
    weighted = np.column_stack(columns) / ms[:, None]
    ones = np.ones(len(ms))
    best, best_score = np.array([float(np.median(ms)), 0.0, 0.0]), math.inf
    for size in range(1, 4):
        for chosen in combinations(range(3), size):
            if size > len(ms):
                continue
            found = np.linalg.lstsq(weighted[:, chosen], ones, rcond=None)[0]
            if (found < 0).any():
                continue
            squared = float(np.mean((weighted[:, chosen] @ found - 1.0) ** 2))
            score = len(ms) * math.log(squared + SMALLEST_ERROR**2) + size * math.log(len(ms))
            if score < best_score:
                best, best_score = np.zeros(3), score
                best[list(chosen)] = found
    error = float(np.median(np.abs(weighted @ best - 1.0)))
    return float(best[0]), float(best[1]), float(best[2]), error

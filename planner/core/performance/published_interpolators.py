"""The published 0.9 planner's interpolators: cubic in ISL, Clough-Tocher on a 100 x 100 grid of KV use and context.

Kept for comparison and migration, bug for bug: lookups take the nearest grid node, holes are filled from the nearest
measured point, and inconsistent points are used. scipy is imported when a profile is first read this way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.domain.profile import DecodeProfile, PrefillProfile

GRID = 100


@dataclass(frozen=True, slots=True)
class ClassicPrefill:
    """Functions of the input length, clamped to the measured range."""

    shortest: float
    longest: float
    ttft: Callable[[float], float]
    rate: Callable[[float], float]

    def ttft_ms(self, isl_tokens: float) -> float:
        return float(self.ttft(self._clamped(isl_tokens)))

    def tokens_per_s_per_gpu(self, isl_tokens: float) -> float:
        return float(self.rate(self._clamped(isl_tokens)))

    def _clamped(self, isl_tokens: float) -> float:
        return max(self.shortest, min(isl_tokens, self.longest))


@dataclass(frozen=True, slots=True)
class ClassicDecode:
    """``itl[context][kv]`` in ms and ``rate[context][kv]`` in tokens/s/GPU, on the grid."""

    longest_context: float
    max_kv_tokens: int
    itl: NDArray[np.float64]
    rate: NDArray[np.float64]

    def itl_ms(self, concurrency: float, context_tokens: float) -> float:
        usage = concurrency * context_tokens / self.max_kv_tokens
        return float(self.itl[self._row(context_tokens), _nearest(usage, 1.0)])

    def best_rate(self, itl_ms: float, context_tokens: float) -> float:
        """Throughput per GPU at the fullest KV cache that meets ``itl_ms``; at an empty one if none does."""
        row = self._row(context_tokens)
        fits = np.flatnonzero(self.itl[row] <= itl_ms)
        return float(self.rate[row, fits[-1] if len(fits) else 0])

    def _row(self, context_tokens: float) -> int:
        return _nearest(context_tokens, self.longest_context)


def _nearest(value: float, longest: float) -> int:
    return int(np.clip(np.round(value / (longest / (GRID - 1))), 0, GRID - 1))


@lru_cache(maxsize=256)
def classic_prefill(profile: PrefillProfile) -> ClassicPrefill:
    """Raises ImportError, with what to install, where scipy is missing."""
    interpolate = _scipy()
    isl = np.asarray(profile.isl_tokens, dtype=float)
    # A cubic needs four points. The published planner fails on fewer; we use the highest degree that they allow.
    kind = {2: "linear", 3: "quadratic"}.get(len(isl), "cubic")
    return ClassicPrefill(
        shortest=float(isl.min()),
        longest=float(isl.max()),
        ttft=interpolate.interp1d(isl, np.asarray(profile.ttft_ms), kind=kind),
        rate=interpolate.interp1d(isl, np.asarray(profile.tokens_per_s_per_gpu), kind=kind),
    )


@lru_cache(maxsize=256)
def classic_decode(profile: DecodeProfile) -> ClassicDecode:
    """Raises ImportError, with what to install, where scipy is missing."""
    interpolate = _scipy()
    points = (np.asarray(profile.kv_usage, dtype=float), np.asarray(profile.context_tokens, dtype=float))
    longest = float(points[1].max())
    grid = np.meshgrid(np.linspace(0.0, 1.0, GRID), np.linspace(0.0, longest, GRID))

    def surface(values: tuple[float, ...]) -> NDArray[np.float64]:
        z = interpolate.griddata(points, np.asarray(values), tuple(grid), method="cubic")
        holes = np.isnan(z)
        if holes.any():
            z[holes] = interpolate.griddata(points, values, (grid[0][holes], grid[1][holes]), method="nearest")
        return np.asarray(z, dtype=np.float64)

    return ClassicDecode(longest, profile.max_kv_tokens, surface(profile.itl_ms), surface(profile.tokens_per_s_per_gpu))


def _scipy() -> Any:
    try:
        from scipy import interpolate
    except ImportError as missing:
        raise ImportError("sizing mode 'classic' needs scipy: pip install 'wattscale[classic]'") from missing
    return interpolate

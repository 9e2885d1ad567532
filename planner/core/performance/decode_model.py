"""Decode by profile: iteration time as ``a + b * batch + c * kv_tokens``, the line that real engines follow.

A fitted line has no cliffs, so capacity changes smoothly with load and its inverse is exact. Times are
milliseconds at full speed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.domain.profile import DecodeProfile

AGREEMENT = 0.25
"""A measured point is consistent if its throughput matches batch / ITL within this share."""


@dataclass(frozen=True, slots=True)
class DecodeModel:
    """``a_ms``, ``b_ms`` per sequence, ``c_ms`` per KV token; limits of the engine.

    ``fit_error`` is the median relative error against the points fitted, ``dropped`` the number of inconsistent points.
    """

    a_ms: float
    b_ms: float
    c_ms: float
    max_kv_tokens: int
    max_batch: float
    largest_context_tokens: float
    fit_error: float = 0.0
    dropped: int = 0

    def itl_ms(self, batch: float, context_tokens: float) -> float:
        """Iteration time with ``batch`` sequences of ``context_tokens`` each."""
        return self.a_ms + batch * self.per_sequence_ms(context_tokens)

    def per_sequence_ms(self, context_tokens: float) -> float:
        """Milliseconds that one more sequence adds to an iteration."""
        return self.b_ms + self.c_ms * context_tokens

    def batch_limit(self, context_tokens: float) -> float:
        """The largest number of sequences that KV cache and scheduler hold at this context."""
        return max(1.0, min(self.max_batch, self.max_kv_tokens / max(1.0, context_tokens)))

    def covers(self, context_tokens: float) -> bool:
        """Whether the profile was measured up to this context."""
        return context_tokens <= self.largest_context_tokens


def decode_model(profile: DecodeProfile, max_num_seqs: int | None, gpus: int) -> DecodeModel:
    """Fit a profile of an engine of ``gpus`` GPUs. Raises ValueError if no point is left to fit."""
    usage = np.asarray(profile.kv_usage)
    context = np.maximum(1.0, np.asarray(profile.context_tokens))
    itl = np.asarray(profile.itl_ms)
    rate = np.asarray(profile.tokens_per_s_per_gpu) * gpus
    kv = usage * profile.max_kv_tokens
    batch = kv / context
    with np.errstate(divide="ignore", invalid="ignore"):
        agrees = np.abs(rate / (batch * 1000.0 / itl) - 1.0) <= AGREEMENT
    good = (itl > 0) & (agrees | (batch < 1.5))
    if not good.any():
        raise ValueError("the decode profile has no point whose throughput agrees with its ITL")
    a, b, c = _fit(batch[good], kv[good], itl[good])
    predicted = a + b * batch[good] + c * kv[good]
    return DecodeModel(
        a_ms=a,
        b_ms=b,
        c_ms=c,
        max_kv_tokens=profile.max_kv_tokens,
        max_batch=float(max_num_seqs or max(256.0, np.max(batch[good]))),
        largest_context_tokens=float(np.max(context)),
        fit_error=float(np.median(np.abs(predicted / itl[good] - 1.0))),
        dropped=int((~good).sum()),
    )


def _fit(batch: np.ndarray, kv: np.ndarray, itl: np.ndarray) -> tuple[float, float, float]:
    """Non-negative least squares of relative errors (a negative coefficient is left out)."""
    columns = np.stack([np.ones_like(batch), batch, kv], axis=1) / itl[:, None]
    best, best_error = (float(np.mean(itl)), 0.0, 0.0), float("inf")
    for used in ((0, 1, 2), (0, 2), (0, 1), (1, 2), (2,), (1,), (0,)):
        found, *_ = np.linalg.lstsq(columns[:, used], np.ones(len(itl)), rcond=None)
        if (found < 0).any():
            continue
        error = float(np.sum((columns[:, used] @ found - 1.0) ** 2))
        if error < best_error:
            full = [0.0, 0.0, 0.0]
            for position, value in zip(used, found, strict=True):
                full[position] = float(value)
            best, best_error = (full[0], full[1], full[2]), error
    return best

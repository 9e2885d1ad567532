"""The profile that `up` uses when none is given: a 32B dense model, one GPU an engine.

Generated from ``ITL = a + b * batch + c * kv_tokens`` and ``TTFT = d * isl + e * isl ** 2``. The H200 row (bf16) was
fitted to static estimates made with aiconfigurator-core 0.12.0 for Qwen3-32B under vLLM (residuals below 4 ms). The
others are estimates from it by the vendor's ratios: B200 (bf16) by memory bandwidth 8.0 / 4.8 TB/s, dense bf16 compute
2.25 / 0.99 PFLOP/s and memory 192 / 141 GB; H100 with FP8 weights, because bf16 weights do not fit, by bandwidth
3.35 / 4.8 TB/s and half the weight bytes. A cache entry takes 256 KiB a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploy.cli.errors import UsageError
from planner.adapters.profiles import ProfileError, load_profile
from planner.domain.profile import DecodeProfile, PrefillProfile, Profile

FLOOR_TTFT_MS = 20.0
ISL_TOKENS = tuple(float(isl) for isl in (100, *range(1000, 16001, 1000)))
CONTEXTS_TOKENS = (350.0, 3000.0, 6000.0, 9000.0, 12000.0, 15000.0)
KV_USAGES = (0.002, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.96)
MAX_NUM_SEQS = 512


@dataclass(frozen=True, slots=True)
class _Figures:
    """ms, ms per sequence, ms per KV token; ms per input token, ms per input token squared; KV tokens."""

    a: float
    b: float
    c: float
    d: float
    e: float
    max_kv_tokens: int


_H200 = _Figures(18.69, 4.943e-2, 6.345e-5, 9.582e-2, 1.044e-6, 249_864)
_FIGURES = {
    "h200": _H200,
    "h100": _Figures(13.4, 4.943e-2, 9.09e-5, 6.5e-2, 1.044e-6, 148_000),
    "b200": _Figures(11.2, 2.97e-2, 3.81e-5, 4.22e-2, 4.59e-7, 408_000),
}


def demo_profile(gpu: str) -> Profile:
    """The built-in profile for a GPU type (``h100``, ``h200`` or ``b200``). Raises KeyError for another."""
    figures = _FIGURES[gpu]
    return Profile(
        name=f"demo-32b-{gpu}",
        prefill=_prefill(figures),
        decode=_decode(figures),
        max_num_seqs=MAX_NUM_SEQS,
        max_num_batched_tokens=8192,
    )


def _prefill(figures: _Figures) -> PrefillProfile:
    ttft = tuple(max(FLOOR_TTFT_MS, figures.d * isl + figures.e * isl**2) for isl in ISL_TOKENS)
    rate = tuple(isl / ms * 1000 for isl, ms in zip(ISL_TOKENS, ttft, strict=True))
    return PrefillProfile(isl_tokens=ISL_TOKENS, ttft_ms=ttft, tokens_per_s_per_gpu=rate)


def _decode(figures: _Figures) -> DecodeProfile:
    usage, context, itl, rate = [], [], [], []
    for tokens in CONTEXTS_TOKENS:
        for share in KV_USAGES:
            batch = share * figures.max_kv_tokens / tokens
            if not 1 <= batch <= MAX_NUM_SEQS:
                continue
            ms = figures.a + figures.b * batch + figures.c * share * figures.max_kv_tokens
            usage.append(share)
            context.append(tokens)
            itl.append(ms)
            rate.append(batch / ms * 1000)
    return DecodeProfile(
        kv_usage=tuple(usage),
        context_tokens=tuple(context),
        itl_ms=tuple(itl),
        tokens_per_s_per_gpu=tuple(rate),
        max_kv_tokens=figures.max_kv_tokens,
    )


def profile_of_both_phases(folder: Path | None, gpu: str) -> Profile:
    """The profile in ``folder``, or the built-in one of a GPU type. Raises UsageError where a phase is missing."""
    if folder is None:
        return demo_profile(gpu)
    try:
        profile = load_profile(folder)
    except ProfileError as error:
        raise UsageError(str(error)) from error
    if profile.prefill is None or profile.decode is None:
        raise UsageError(f"profile {folder}: lacks a phase; prefill and decode are both simulated")
    return profile

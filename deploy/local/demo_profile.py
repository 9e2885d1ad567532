"""The profile that `up` uses when none is given: an 8B dense model in bf16, one GPU an engine.

Generated from the line ``ITL = a + b * batch + c * kv_tokens`` and ``TTFT = d * isl + e * isl ** 2``, whose
coefficients were fitted (H200, H100) to static estimates made with aiconfigurator-core 0.12.0 for
Llama-3.1-8B under vLLM; residuals below 2 ms. The B200 row scales the H200's by the vendor's ratios of memory
bandwidth (8.0 / 4.8 TB/s), dense bf16 compute (2.25 / 0.99 PFLOP/s) and memory (192 / 141 GB).
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.domain.profile import DecodeProfile, PrefillProfile, Profile

FLOOR_TTFT_MS = 6.0
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


_H200 = _Figures(4.988, 1.999e-2, 2.806e-5, 2.097e-2, 3.773e-7, 882_732)
_FIGURES = {
    "h200": _H200,
    "h100": _Figures(6.597, 1.375e-2, 4.048e-5, 2.123e-2, 3.485e-7, 432_992),
    "b200": _Figures(
        _H200.a * 0.6, _H200.b * 0.6, _H200.c * 0.6, _H200.d * 0.44, _H200.e * 0.44, int(_H200.max_kv_tokens * 1.4)
    ),
}


def demo_profile(gpu: str) -> Profile:
    """The built-in profile for a GPU type (``h100``, ``h200`` or ``b200``). Raises KeyError for another."""
    figures = _FIGURES[gpu]
    return Profile(
        name=f"demo-8b-{gpu}",
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

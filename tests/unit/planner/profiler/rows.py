"""Measured points for tests, made from times that are given."""

from __future__ import annotations

from typing import Literal

from planner.profiler.analysis.profiled import Profiled
from planner.profiler.analysis.recommendation import Targets, recommend
from planner.profiler.analysis.sweep import Point
from planner.profiler.analysis.tables import MeasuredRepeat, PointRow, rows

TARGETS = Targets(isl=1000, osl=200, ttft_ms=50.0, itl_ms=10.0)
KV_TOKENS = 100_000


def row(
    phase: Literal["prefill", "decode"],
    ms: float,
    *,
    tp: int = 1,
    isl: int = 1000,
    in_flight: int = 1,
    watts: float | None = None,
    samples: int = 200,
) -> PointRow:
    """A point measured twice with the same result; decode has answers of 200 tokens."""
    point = Point(tp, phase, isl, in_flight)
    context = isl if phase == "prefill" else isl + 100
    one = MeasuredRepeat(point, ms, context, watts, samples if watts is not None else 0)
    return rows([one, one])[0]


def profiled(*, watts: float | None = None, samples: int = 200) -> Profiled:
    """A run of engines with 20 ms + 0.05 ms a token, and 4 ms + 0.1 ms a request + 0.0001 ms a KV token."""
    prefill = [row("prefill", 20 + 0.05 * isl, isl=isl, watts=watts, samples=samples) for isl in (100, 500, 1000, 4000)]
    decode = [
        row("decode", 4 + 0.1 * n + 0.0001 * n * (isl + 100), isl=isl, in_flight=n, watts=watts, samples=samples)
        for isl in (100, 1000, 3000)
        for n in (1, 8, 16)
    ]
    found = recommend(
        [one for one in prefill if one.point.isl == TARGETS.isl],
        [one for one in decode if one.point.isl == TARGETS.isl],
        TARGETS,
        {1: KV_TOKENS},
    )
    return Profiled((*prefill, *decode), found, {1: {"model": "demo", "max_kv_tokens": KV_TOKENS}}, ())

"""Warm start: forecasts that have learned a recorded trace before the first live interval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from planner.core.forecast.band import Band
from planner.domain.request import Request


def warmed(bands: Mapping[str, Band], arrivals: Iterable[Request], interval_s: float, now_s: float) -> dict[str, Band]:
    """``bands`` after the trace, in intervals of which the last ends at ``now_s``.

    Their names are ``request_rate_per_s``, ``isl_tokens`` and ``osl_tokens``. An interval without requests has rate 0
    and no lengths. An unfinished last interval is left out.
    """
    bins = _bins(arrivals, interval_s)
    known = dict(bands)
    for index, (count, isl, osl) in enumerate(bins):
        t_s = now_s - (len(bins) - 1 - index) * interval_s
        known["request_rate_per_s"] = known["request_rate_per_s"].observe(t_s, count / interval_s)
        if count:
            known["isl_tokens"] = known["isl_tokens"].observe(t_s, isl / count)
            known["osl_tokens"] = known["osl_tokens"].observe(t_s, osl / count)
    return known


def _bins(arrivals: Iterable[Request], interval_s: float) -> list[tuple[int, float, float]]:
    """(requests, input tokens, output tokens) of each finished interval."""
    sums: list[list[float]] = []
    for arrival in arrivals:
        index = int(arrival.t_s // interval_s)
        while len(sums) <= index:
            sums.append([0, 0.0, 0.0])
        sums[index][0] += 1
        sums[index][1] += arrival.isl
        sums[index][2] += arrival.osl
    return [(int(count), isl, osl) for count, isl, osl in sums[:-1]]

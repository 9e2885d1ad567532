"""Warm start: forecasts that have learned a recorded trace before the first live interval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from planner.core.forecast.band import Band
from planner.domain.request import ObservedLoad, Request

GAP_INTERVALS = 3.0
"""After a longer time without observations, forecasts made before it are compared with nothing that comes after it."""


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


def reminded(bands: Mapping[str, Band], past: Iterable[ObservedLoad], scale: float, now_s: float) -> dict[str, Band]:
    """``bands``, of the same names, after intervals that were observed, oldest first, up to the load instant ``now_s``.

    ``scale``: seconds of load per second of the clock. Of two records of one interval the first counts.
    """
    known, last_s = dict(bands), None
    for one in past:
        t_s = one.end_s * scale
        if t_s > now_s or one.interval_s <= 0 or (last_s is not None and t_s - last_s < one.interval_s / 2.0):
            continue
        if last_s is not None and t_s - last_s > GAP_INTERVALS * one.interval_s:
            known = _begun_again(known)
        known["request_rate_per_s"] = known["request_rate_per_s"].observe(t_s, one.requests / one.interval_s)
        for name, tokens in (("isl_tokens", one.isl_tokens), ("osl_tokens", one.osl_tokens)):
            if tokens is not None and tokens > 0:
                known[name] = known[name].observe(t_s, tokens)
        last_s = t_s
    return _begun_again(known)


def _begun_again(bands: Mapping[str, Band]) -> dict[str, Band]:
    """The bands without what they had begun: after a gap it would be compared with another time's load."""
    return {name: replace(band, due=(), recent=(), closed_s=None) for name, band in bands.items()}


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

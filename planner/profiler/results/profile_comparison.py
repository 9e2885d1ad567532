"""Two profiles point by point, as a measured one against an estimate: one table. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from planner.domain.profile import DecodeProfile, PrefillProfile, Profile

Curves = Mapping[float, tuple[np.ndarray, np.ndarray]]
"""By context in tokens: rising requests in flight, and ITL in milliseconds."""


@dataclass(frozen=True, slots=True)
class ComparedPoint:
    """One point of the first profile, and what the second says of it, in milliseconds; None outside of its points."""

    phase: Literal["prefill", "decode"]
    context: float
    in_flight: int
    first_ms: float
    second_ms: float | None

    @property
    def difference(self) -> float | None:
        """The second against the first, as a share."""
        return None if self.second_ms is None else self.second_ms / self.first_ms - 1.0


def compared(first: Profile, second: Profile) -> tuple[ComparedPoint, ...]:
    """The points of the first profile against the second's, which is interpolated between its points and never beyond.

    Decode is compared at the same requests and context, whatever the sizes of the KV caches. Raises ValueError where
    they have no phase in common.
    """
    points: list[ComparedPoint] = []
    if first.prefill is not None and second.prefill is not None:
        points += _prefill(first.prefill, second.prefill)
    if first.decode is not None and second.decode is not None:
        points += _decode(first.decode, second.decode)
    if not points:
        raise ValueError("the profiles have no phase in common")
    return tuple(points)


def comparison_lines(first: Profile, second: Profile) -> tuple[str, ...]:
    """The table, and under it how far they are apart. Raises ValueError as ``compared``."""
    points = compared(first, second)
    return (
        f"A: {_head(first)}",
        f"B: {_head(second)}",
        f"{'phase':<8}{'context':>9}{'in flight':>11}{'A ms':>11}{'B ms':>11}{'B to A':>9}",
        *map(_line, points),
        *_summary("prefill", "TTFT", points),
        *_summary("decode", "ITL", points),
    )


def _prefill(first: PrefillProfile, second: PrefillProfile) -> Iterator[ComparedPoint]:
    isls, ttft = np.asarray(second.isl_tokens), np.asarray(second.ttft_ms)
    for isl, ms in zip(first.isl_tokens, first.ttft_ms, strict=True):
        yield ComparedPoint("prefill", isl, 1, ms, _between(isl, isls, ttft))


def _decode(first: DecodeProfile, second: DecodeProfile) -> Iterator[ComparedPoint]:
    curves = _curves(second)
    for context, requests, ms in _loads(first):
        yield ComparedPoint("decode", context, requests, ms, _itl(context, requests, curves))


def _loads(profile: DecodeProfile) -> list[tuple[float, int, float]]:
    """Context, requests in flight, ITL; in rising order."""
    rows = zip(profile.kv_usage, profile.context_tokens, profile.itl_ms, strict=True)
    return sorted((context, round(usage * profile.max_kv_tokens / context), ms) for usage, context, ms in rows)


def _curves(profile: DecodeProfile) -> Curves:
    found: dict[float, dict[int, float]] = {}
    for context, requests, ms in _loads(profile):
        found.setdefault(context, {}).setdefault(requests, ms)
    return {context: (np.asarray([*curve]), np.asarray([*curve.values()])) for context, curve in found.items()}


def _itl(context: float, requests: int, curves: Curves) -> float | None:
    """ITL between the two nearest contexts at which so many requests ran."""
    found = {at: _between(requests, *curve) for at, curve in curves.items()}
    known = {at: ms for at, ms in found.items() if ms is not None}
    return _between(context, np.asarray([*known]), np.asarray([*known.values()]))


def _between(x: float, xs: np.ndarray, ys: np.ndarray) -> float | None:
    if not len(xs) or not xs[0] <= x <= xs[-1]:
        return None
    return float(np.interp(x, xs, ys))


def _head(profile: Profile) -> str:
    kv_cache = "" if profile.decode is None else f", KV cache {profile.decode.max_kv_tokens} tokens"
    return f"{profile.name}: prefill TP {profile.prefill_gpus}, decode TP {profile.decode_gpus}{kv_cache}"


def _line(point: ComparedPoint) -> str:
    there = "-" if point.second_ms is None else f"{point.second_ms:.2f}"
    difference = "-" if point.difference is None else f"{point.difference:+.1%}"
    start = f"{point.phase:<8}{point.context:>9g}{point.in_flight:>11}"
    return f"{start}{point.first_ms:>11.2f}{there:>11}{difference:>9}"


def _summary(phase: str, time: str, points: Iterable[ComparedPoint]) -> Iterator[str]:
    mine = [point.difference for point in points if point.phase == phase]
    known = [abs(difference) for difference in mine if difference is not None]
    if known:
        half, most = statistics.median(known), max(known)
        yield f"{phase}: {time} of {len(known)} points differs by {half:.1%} in the median, by {most:.1%} at most"
    if len(known) < len(mine):
        yield f"{phase}: {len(mine) - len(known)} points of A lie outside of what B covers"

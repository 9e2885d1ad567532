"""Measured points as tables: one row a point, for files, fits and recommendations. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from planner.domain.profile import DecodeProfile, PrefillProfile
from planner.profiler.analysis.repeats import RepeatEstimate, estimate
from planner.profiler.analysis.sweep import Point


@dataclass(frozen=True, slots=True)
class MeasuredRepeat:
    """One repeat of a point.

    ``ms``: TTFT of a prefill, ITL of a decode run, as answers came here. ``engine_ms``: the TTFT by the engine's own
    clock; None where it states none. ``late_ms``: where it states none, how late this process was woken.
    ``context``: tokens of the prompt as the engine counts them, for decode with half the answer. ``watts`` and
    ``power_samples``: mean draw of all its GPUs meanwhile; None and 0 where it was not measured.
    """

    point: Point
    ms: float
    context: float
    watts: float | None = None
    power_samples: int = 0
    engine_ms: float | None = None
    late_ms: float | None = None


@dataclass(frozen=True, slots=True)
class PointRow:
    """A point with the estimate of its milliseconds. ``tokens_per_s``: of the whole engine at this point.

    ``later_ms``: how much later answers came here than by the engine's own clock. ``late_ms``: how late this process
    was woken. Both are medians, None where not known.
    """

    point: Point
    time: RepeatEstimate
    context: float
    watts: float | None
    power_samples: int
    later_ms: float | None = None
    late_ms: float | None = None

    @property
    def tokens_per_s(self) -> float:
        """Prompt tokens for prefill, answer tokens for decode."""
        tokens = self.context if self.point.phase == "prefill" else self.point.in_flight
        return tokens / self.time.value * 1000.0

    @property
    def tokens_per_s_per_gpu(self) -> float:
        """The same for one of its GPUs."""
        return self.tokens_per_s / self.point.tp

    @property
    def tokens_per_joule(self) -> float | None:
        """None where no draw was measured."""
        return self.tokens_per_s / self.watts if self.watts else None


def counted_ms(repeats: Sequence[MeasuredRepeat]) -> list[float]:
    """The times of one point that count: the engine's own where it states each, for a busy machine lengthens others."""
    own = [each.engine_ms for each in repeats if each.engine_ms is not None]
    return own if len(own) == len(repeats) else [each.ms for each in repeats]


def rows(measurements: Iterable[MeasuredRepeat]) -> tuple[PointRow, ...]:
    """One row for each point, in the order in which points were first measured."""
    grouped: dict[Point, list[MeasuredRepeat]] = {}
    for each in measurements:
        grouped.setdefault(each.point, []).append(each)
    return tuple(_row(point, each) for point, each in grouped.items())


def at_full_power(table: Iterable[PointRow]) -> tuple[PointRow, ...]:
    """The rows under the highest cap; all of them where there are no caps."""
    kept = tuple(table)
    caps = [row.point.cap_watts for row in kept if row.point.cap_watts is not None]
    highest = max(caps, default=None)
    return tuple(row for row in kept if row.point.cap_watts == highest)


def _row(point: Point, repeats: Sequence[MeasuredRepeat]) -> PointRow:
    watts = [(each.watts, each.power_samples) for each in repeats if each.watts is not None]
    samples = sum(count for _, count in watts)
    return PointRow(
        point=point,
        time=estimate(counted_ms(repeats)),
        context=sum(each.context for each in repeats) / len(repeats),
        watts=sum(value * count for value, count in watts) / samples if samples else None,
        power_samples=samples,
        later_ms=_median_of([None if each.engine_ms is None else each.ms - each.engine_ms for each in repeats]),
        late_ms=_median_of([each.late_ms for each in repeats]),
    )


def _median_of(values: Sequence[float | None]) -> float | None:
    """None where one is not known."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known and len(known) == len(values) else None


def prefill_profile(table: Iterable[PointRow], tp: int) -> PrefillProfile:
    """TTFT by input length of engines of ``tp`` GPUs, in Dynamo's terms."""
    by_isl = {row.context: row for row in table if row.point.phase == "prefill" and row.point.tp == tp}
    order = [by_isl[isl] for isl in sorted(by_isl)]
    return PrefillProfile(
        tuple(row.context for row in order),
        tuple(row.time.value for row in order),
        tuple(row.tokens_per_s_per_gpu for row in order),
    )


def decode_profile(table: Iterable[PointRow], tp: int, max_kv_tokens: int) -> DecodeProfile:
    """ITL by KV use and context of engines of ``tp`` GPUs, in Dynamo's terms."""
    mine = [row for row in table if row.point.phase == "decode" and row.point.tp == tp]
    mine.sort(key=lambda row: (row.context, row.point.in_flight))
    return DecodeProfile(
        tuple(row.point.in_flight * row.context / max_kv_tokens for row in mine),
        tuple(row.context for row in mine),
        tuple(row.time.value for row in mine),
        tuple(row.tokens_per_s_per_gpu for row in mine),
        max_kv_tokens,
    )

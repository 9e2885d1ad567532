"""A finished run: its rows, what was chosen, and what it could not settle. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from planner.domain.profile import DecodeProfile, PrefillProfile, Profile
from planner.profiler.analysis.recommendation import Recommendation
from planner.profiler.analysis.repeats import RepeatRule
from planner.profiler.analysis.tables import PointRow, decode_profile, prefill_profile

LEAST_POWER_SAMPLES = 100
"""A draw from fewer samples is marked: it may be that of a moment."""


@dataclass(frozen=True, slots=True)
class Profiled:
    """A run's results: the recommendation, what engines stated of themselves by TP size, and notes.

    ``table``: every row without caps, or under the highest one. ``capped``: the rows under every cap, the highest
    included; empty without caps.
    """

    table: tuple[PointRow, ...]
    recommendation: Recommendation
    engines: Mapping[int, Mapping[str, Any]]
    notes: tuple[str, ...]
    capped: tuple[PointRow, ...] = ()

    @property
    def every_row(self) -> tuple[PointRow, ...]:
        """All rows, under caps or without."""
        return self.capped or self.table

    @property
    def max_kv_tokens(self) -> int:
        """Of the engine recommended for decode."""
        return int(self.engines[self.recommendation.decode.point.tp]["max_kv_tokens"])

    @property
    def max_num_seqs(self) -> int | None:
        """How many requests that engine runs at once; None where the sweep did not come to its limit."""
        found = self.engines[self.recommendation.decode.point.tp].get("max_num_seqs")
        return None if found is None else int(found)

    def profile(self, name: str) -> Profile:
        """The profile of the recommended TP sizes."""
        return Profile(
            name=name,
            prefill=self.prefill(),
            decode=self.decode(),
            prefill_gpus=self.recommendation.prefill.point.tp,
            decode_gpus=self.recommendation.decode.point.tp,
            max_num_seqs=self.max_num_seqs,
        )

    def prefill(self) -> PrefillProfile:
        """TTFT by input length at the recommended TP size."""
        return prefill_profile(self.table, self.recommendation.prefill.point.tp)

    def decode(self) -> DecodeProfile:
        """ITL by KV use and context at the recommended TP size."""
        return decode_profile(self.table, self.recommendation.decode.point.tp, self.max_kv_tokens)


def unsettled(profiled: Profiled, rule: RepeatRule) -> tuple[str, ...]:
    """One line for each point whose interval is wider than the rule wants, and one for draws from few samples."""
    found = [
        f"{row.point}: the 95 % interval is {_width(row)} after {row.time.repeats} repeats; {rule.narrow:.0%} is wanted"
        for row in profiled.every_row
        if not row.time.is_narrow(rule)
    ]
    found += _busy(profiled.every_row, rule)
    few = [row.power_samples for row in profiled.every_row if row.watts is not None]
    few = [samples for samples in few if samples < LEAST_POWER_SAMPLES]
    if few:
        found.append(
            f"the draw of {len(few)} points is the mean of fewer than {LEAST_POWER_SAMPLES} samples ({min(few)} to "
            f"{max(few)})"
        )
    return tuple(found)


def _busy(table: Sequence[PointRow], rule: RepeatRule) -> list[str]:
    """What a busy machine, or the way to the engine, adds to times: by more than the rule lets an interval be wide."""
    found = []
    away = [(row.later_ms / row.time.value, row) for row in table if row.later_ms is not None]
    if away and (most := max(away, key=lambda each: each[0]))[0] > rule.narrow:
        share, row = most
        found.append(
            f"TTFT is by the engine's own clock; here first tokens came up to {row.later_ms:.0f} ms later "
            f"({row.point}, {share:.0%} of its time): this machine is busy, or the engine is far away"
        )
    late = [row for row in table if row.late_ms is not None and row.late_ms > rule.narrow * row.time.value]
    if late:
        row = max(late, key=lambda each: each.late_ms or 0.0)
        found.append(
            f"TTFT is too long by {row.late_ms:.1f} ms or more ({row.point}): the engine states none of its own, and "
            "this machine was so busy that the profiler was woken that late; measure again when nothing else runs on it"
        )
    return found


def _width(row: PointRow) -> str:
    return "not known" if row.time.half_width is None else f"+-{row.time.half_width:.1%}"

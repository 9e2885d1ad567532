"""One estimated profile: TP sizes compared at the targets' lengths, then the sweep of the chosen ones. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from planner.profiler.analysis.profiled import Profiled
from planner.profiler.analysis.recommendation import Targets, recommend, unweighed
from planner.profiler.analysis.tables import MeasuredRepeat, PointRow, rows
from planner.profiler.offline.estimate_points import (
    AskedPoint,
    AssumedEngine,
    decode_sweep,
    prefill_sweep,
    target_sweep,
)


class TimesOfEngine(Protocol):
    """Times of an engine of one TP size. ``inferred``: estimates so far that no measurement stands behind."""

    max_kv_tokens: int
    inferred: int

    def ms(self, asked: AskedPoint) -> float:
        """TTFT or ITL, in milliseconds."""
        ...


@dataclass(frozen=True, slots=True)
class EstimateOptions:
    """What to estimate. ``max_kv_tokens`` None: as estimated."""

    model: str
    targets: Targets
    tps: tuple[int, ...]
    max_context: int
    max_in_flight: int
    max_kv_tokens: int | None


def estimated(options: EstimateOptions, engine: Callable[[int], TimesOfEngine], refusal: type[Exception]) -> Profiled:
    """The profile. ``engine`` makes the times of a TP size and raises ``refusal`` where it has none.

    A TP size without data, or whose memory is too small, is left out with a note. Raises ValueError where none is left,
    or the context is too short for a sweep.
    """
    engines: dict[int, tuple[TimesOfEngine, AssumedEngine]] = {}
    notes: list[str] = []
    table: list[PointRow] = []
    for tp in options.tps:
        try:
            times = engine(tp)
            limits = AssumedEngine(
                options.max_context, options.max_kv_tokens or times.max_kv_tokens, options.max_in_flight
            )
            mine = _rows(times, target_sweep(tp, limits, options.targets.isl, options.targets.osl))
        except (refusal, ValueError) as error:
            notes.append(f"{error}; left out")
            continue
        engines[tp] = times, limits
        table += mine
    if not engines:
        raise ValueError("; ".join(note.removesuffix("; left out") for note in notes))
    targets = options.targets
    if why := unweighed(table, targets.objective):
        notes.append(why)
    found = recommend(
        [row for row in table if row.point.phase == "prefill"],
        [row for row in table if row.point.phase == "decode"],
        targets,
        {tp: limits.max_kv_tokens for tp, (_, limits) in engines.items()},
    )
    prefill_tp, decode_tp = found.prefill.point.tp, found.decode.point.tp
    sweep = _rows(engines[prefill_tp][0], prefill_sweep(prefill_tp, options.max_context))
    sweep += _rows(engines[decode_tp][0], decode_sweep(decode_tp, engines[decode_tp][1]))
    notes += [
        f"TP {tp}: {times.inferred} estimates are inferred from other kernels: nothing was measured near them"
        for tp, (times, _) in engines.items()
        if times.inferred
    ]
    return Profiled(
        table=_once((*table, *sweep)),
        recommendation=found,
        engines={tp: _facts(options.model, limits) for tp, (_, limits) in engines.items()},
        notes=tuple(notes),
    )


def _rows(times: TimesOfEngine, asked: Iterable[AskedPoint]) -> list[PointRow]:
    return list(rows(MeasuredRepeat(each.point, times.ms(each), each.context) for each in asked))


def _once(table: Iterable[PointRow]) -> tuple[PointRow, ...]:
    """Each load of each context once: the targets' own may be a point of the sweep."""
    found = {(row.point.tp, row.point.phase, row.context, row.point.in_flight): row for row in table}
    return tuple(found.values())


def _facts(model: str, limits: AssumedEngine) -> Mapping[str, str | int]:
    return {
        "model": model,
        "max_context": limits.max_context,
        "max_kv_tokens": limits.max_kv_tokens,
        "max_in_flight": limits.max_in_flight,
        "max_num_seqs": limits.max_in_flight,
    }

"""Which TP sizes meet the targets best, with the thresholds of Dynamo's load-based planner. Pure.

Rules of Dynamo's ``profile_sla``: among the points that meet the target, the one with the most tokens per second and
GPU; where none does, the fastest. The prefill queue's bounds are 120 % and 80 % of the target in units of the chosen
TTFT, less the one request that computes; the KV cache's bounds lie 0.2 around its use at the chosen point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from planner.profiler.analysis.tables import PointRow, at_full_power

SCALE_UP_AT, SCALE_DOWN_AT = 1.2, 0.8
KV_AROUND = 0.2
LEAST_BOUND = 0.1


Objective = Literal["throughput", "latency", "goodput_per_watt"]


@dataclass(frozen=True, slots=True)
class Targets:
    """The promise: lengths in tokens, times in milliseconds; and what counts among TP sizes that keep it."""

    isl: int
    osl: int
    ttft_ms: float
    itl_ms: float
    objective: Objective = "throughput"


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The chosen points, and for each phase whether it meets its target; bounds as (upper, lower).

    ``per_watt``: the point with the most tokens per joule among those that meet the target, under any cap; None where
    no draw was measured. ``cap``: the same of the chosen TP size alone; None without caps.
    """

    prefill: PointRow
    decode: PointRow
    prefill_meets: bool
    decode_meets: bool
    queue_bounds: tuple[float, float]
    kv_bounds: tuple[float, float]
    prefill_per_watt: PointRow | None
    decode_per_watt: PointRow | None
    prefill_cap: PointRow | None = None
    decode_cap: PointRow | None = None


def recommend(
    prefill: Sequence[PointRow], decode: Sequence[PointRow], targets: Targets, max_kv_tokens: Mapping[int, int]
) -> Recommendation:
    """The recommendation from the points of the targets' lengths, under every cap. ``max_kv_tokens`` by TP size.

    TP sizes are those that the targets' objective prefers; they and the bounds are those under the highest cap. Raises
    ValueError where a phase has no point.
    """
    if not prefill or not decode:
        raise ValueError("a recommendation needs points of both phases")
    prefill = of_objective(prefill, targets.ttft_ms, targets.objective)
    decode = of_objective(decode, targets.itl_ms, targets.objective)
    best_prefill, prefill_meets = _best(at_full_power(prefill), targets.ttft_ms)
    best_decode, decode_meets = _best(at_full_power(decode), targets.itl_ms)
    ttft = best_prefill.time.value
    context = targets.isl + targets.osl / 2
    usage = best_decode.point.in_flight * context / max_kv_tokens[best_decode.point.tp]
    return Recommendation(
        prefill=best_prefill,
        decode=best_decode,
        prefill_meets=prefill_meets,
        decode_meets=decode_meets,
        queue_bounds=(
            max(LEAST_BOUND, targets.ttft_ms * SCALE_UP_AT / ttft - 1),
            max(LEAST_BOUND, targets.ttft_ms * SCALE_DOWN_AT / ttft - 1),
        ),
        kv_bounds=(min(1.0, usage + KV_AROUND), max(LEAST_BOUND, usage - KV_AROUND)),
        prefill_per_watt=_most_per_joule(prefill, targets.ttft_ms),
        decode_per_watt=_most_per_joule(decode, targets.itl_ms),
        prefill_cap=_most_per_joule(_capped(prefill, best_prefill.point.tp), targets.ttft_ms),
        decode_cap=_most_per_joule(_capped(decode, best_decode.point.tp), targets.itl_ms),
    )


def _capped(table: Sequence[PointRow], tp: int) -> list[PointRow]:
    return [row for row in table if row.point.tp == tp and row.point.cap_watts is not None]


def lines(found: Recommendation, targets: Targets) -> tuple[str, ...]:
    """The guide's lines, word for word in form, and ours after them."""
    prefill, decode = found.prefill, found.decode
    found_lines = ["Analyzing results and generate recommendations..."]
    if not found.prefill_meets:
        found_lines.append(f"No TP size meets the TTFT target of {targets.ttft_ms:g} ms; the fastest follows")
    found_lines.append(
        f"Suggested prefill TP:{prefill.point.tp} (TTFT {prefill.time.value:.2f} ms, "
        f"throughput {prefill.tokens_per_s_per_gpu:.2f} tokens/s/GPU)"
    )
    queue = "{:.2f}/{:.2f}".format(*found.queue_bounds)
    found_lines.append(f"Suggested planner upper/lower bound for prefill queue size: {queue}")
    if not found.decode_meets:
        found_lines.append(f"No TP size meets the ITL target of {targets.itl_ms:g} ms; the fastest follows")
    found_lines.append(
        f"Suggested decode TP:{decode.point.tp} (ITL {decode.time.value:.2f} ms, "
        f"throughput {decode.tokens_per_s_per_gpu:.2f} tokens/s/GPU)"
    )
    usage = "{:.2f}/{:.2f}".format(*found.kv_bounds)
    found_lines.append(f"Suggested planner upper/lower bound for decode kv cache utilization: {usage}")
    for phase, row in (("prefill", found.prefill_per_watt), ("decode", found.decode_per_watt)):
        if row is not None:
            found_lines.append(_per_watt_line(phase, row))
    for phase, row, chosen in (("prefill", found.prefill_cap, prefill), ("decode", found.decode_cap, decode)):
        if row is not None:
            found_lines.append(_cap_line(phase, row, chosen))
        elif chosen.point.cap_watts is not None:
            found_lines.append(f"No cap is suggested for {phase}: no point with a measured draw meets the target")
    return tuple(found_lines)


def _per_watt_line(phase: str, row: PointRow) -> str:
    assert row.watts is not None and row.tokens_per_joule is not None  # noqa: S101, PT018 - only such rows are chosen
    load = "" if phase == "prefill" else f" with {row.point.in_flight} in flight"
    cap = "" if row.point.cap_watts is None else f" under {row.point.cap_watts:g} W"
    return (
        f"Best goodput per watt, {phase}: TP:{row.point.tp}{load}{cap} ({row.tokens_per_joule:.2f} tokens/s/W, "
        f"{row.watts / row.point.tp:.0f} W/GPU)"
    )


def _cap_line(phase: str, row: PointRow, full: PointRow) -> str:
    load = "" if phase == "prefill" else f" with {row.point.in_flight} in flight"
    time = "TTFT" if phase == "prefill" else "ITL"
    share = row.tokens_per_s_per_gpu / full.tokens_per_s_per_gpu
    return (
        f"Suggested cap, {phase} TP:{row.point.tp}{load}: {row.point.cap_watts:g} W/GPU ({time} "
        f"{row.time.value:.2f} ms; {share:.0%} of the throughput suggested under {full.point.cap_watts:g} W)"
    )


def _best(table: Sequence[PointRow], target_ms: float) -> tuple[PointRow, bool]:
    good = [row for row in table if row.time.value <= target_ms]
    if not good:
        return min(table, key=lambda row: row.time.value), False
    return max(good, key=lambda row: row.tokens_per_s_per_gpu), True


def _most_per_joule(table: Sequence[PointRow], target_ms: float) -> PointRow | None:
    good = [(row.tokens_per_joule, row) for row in table if row.tokens_per_joule and row.time.value <= target_ms]
    return max(good, key=lambda each: each[0])[1] if good else None


def of_objective(table: Sequence[PointRow], target_ms: float, objective: Objective) -> tuple[PointRow, ...]:
    """The points of the TP size that an objective prefers; all for ``throughput``.

    ``latency``: the size with the fastest point. ``goodput_per_watt``: that with the most tokens per joule within the
    target; all points where no draw was measured, or none is within.
    """
    if objective == "throughput" or not table:
        return tuple(table)
    best = min(table, key=lambda row: row.time.value) if objective == "latency" else _most_per_joule(table, target_ms)
    return tuple(row for row in table if best is None or row.point.tp == best.point.tp)


def unweighed(table: Sequence[PointRow], objective: Objective) -> str:
    """Why an objective did not choose the TP size; empty where it did."""
    if objective == "goodput_per_watt" and all(row.watts is None for row in table):
        return "no draw was measured: the TP sizes are those of the most tokens per second and GPU"
    return ""

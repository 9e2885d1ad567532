"""Compares predictions with measurements: the error of the power-performance law, per GPU type and phase.

Must never fit anything silently: the report evaluates the curves that are in force.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from planner.adapters.power_priors import GpuType, Phase, curve
from planner.core.power.curve import draw_mw, speed
from planner.domain.power import PowerCurve
from planner.domain.units import mw_from_watts

MIN_OF_TDP, IDLE_OF_TDP = 0.25, 0.17
"""For GPUs without a data sheet here; neither affects the comparison at full load."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One point of a cap sweep under full load. ``speed`` is relative to uncapped (1); either figure may be missing."""

    gpu_type: str
    tdp_watts: float
    phase: Phase
    cap_watts: float
    speed: float | None = None
    draw_watts: float | None = None


@dataclass(frozen=True, slots=True)
class Fit:
    """One GPU type in one phase. Speed errors are shares of full speed, draw errors of the measured draw.

    A positive bias means that the law predicts more than was measured.
    """

    gpu_type: str
    phase: Phase
    points: int
    speed_bias: float | None
    speed_error: float | None
    speed_worst: float | None
    draw_bias: float | None
    draw_error: float | None


def prior_for(point: Measurement) -> PowerCurve:
    """The prior's fractions of TDP for any GPU type."""
    tdp = point.tdp_watts
    return curve(GpuType(point.gpu_type, tdp, MIN_OF_TDP * tdp, IDLE_OF_TDP * tdp), point.phase)


def calibrate(points: Iterable[Measurement], law: Callable[[Measurement], PowerCurve] = prior_for) -> tuple[Fit, ...]:
    """One ``Fit`` per GPU type and phase, in alphabetical order. ``law`` gives the curve to evaluate."""
    groups: dict[tuple[str, Phase], list[Measurement]] = {}
    for point in points:
        groups.setdefault((point.gpu_type, point.phase), []).append(point)
    return tuple(_fit(gpu_type, phase, group, law) for (gpu_type, phase), group in sorted(groups.items()))


def _fit(gpu_type: str, phase: Phase, group: list[Measurement], law: Callable[[Measurement], PowerCurve]) -> Fit:
    speeds, draws = [], []
    for point in group:
        cap = mw_from_watts(point.cap_watts)
        if point.speed is not None:
            speeds.append(speed(law(point), cap) - point.speed)
        if point.draw_watts:
            draws.append(draw_mw(law(point), cap, 1.0) / 1000 / point.draw_watts - 1)
    return Fit(
        gpu_type=gpu_type,
        phase=phase,
        points=len(group),
        speed_bias=statistics.mean(speeds) if speeds else None,
        speed_error=statistics.mean(map(abs, speeds)) if speeds else None,
        speed_worst=max(map(abs, speeds)) if speeds else None,
        draw_bias=statistics.mean(draws) if draws else None,
        draw_error=statistics.mean(map(abs, draws)) if draws else None,
    )

"""Speed by cap, for each phase and batch size, and the product's power law fitted to it. Pure.

Speed is relative to the highest cap. The law and its tail are those of ``planner.core.power.curve``, so that what is
fitted is what the planner computes with. It holds within the caps that were measured.

Speeds show P_s and alpha only where caps hold a phase far back: above, one nearly makes up for the other. So each
parameter comes with the margin that its points leave it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from planner.core.power.curve import LEAST_SPEED, MOST_SPEED, speed
from planner.domain.power import PowerCurve
from planner.domain.units import mw_from_watts
from planner.profiler.analysis.profiled import Profiled
from planner.profiler.analysis.repeats import t_95
from planner.profiler.analysis.sweep import Point
from planner.profiler.analysis.tables import PointRow

HELD_BACK = 0.99
"""Speeds below this are a cap's doing; between it and 1 they may be noise."""
PARAMETERS = 3
STEPS, ZOOMS, ZOOM, POLISHING = 15, 10, 0.7, 200
MOST_P_S = 0.99
"""The greatest P_s, as a share of P_u."""
LEAST_ALPHA, MOST_ALPHA = 0.02, 3.0
SLOWEST = 1e-3
MARGIN = 0.03
"""How far P_u may be above a cap that seems to hold nothing back."""
CERTAIN = 0.05
"""A parameter is certain where its margin is at most this share of it."""
SAME = 1e-6
"""Combinations of parameters that move speeds by less than this share of what others do are not shown by them."""
NEAR = 1e-5
"""The step of derivatives, as a share."""


@dataclass(frozen=True, slots=True)
class CardLimits:
    """Of each GPU, in watts: its draw under an idle engine (None: not measured), and the limits that it takes."""

    idle_watts: float | None
    min_watts: float
    max_watts: float


@dataclass(frozen=True, slots=True)
class CapSpeed:
    """Speed of one point under a cap. ``draw_watts``: of each GPU; None where it was not measured."""

    point: Point
    cap_watts: float
    speed: float
    draw_watts: float | None


@dataclass(frozen=True, slots=True)
class ParameterMargins:
    """Half widths of the parameters' 95 % intervals; infinite for one that the points do not show."""

    p_s_watts: float
    p_u_watts: float
    alpha: float


@dataclass(frozen=True, slots=True)
class PowerFit:
    """One phase at batches of ``least_batch`` to ``most_batch`` requests in flight.

    ``curve``: None where the points do not show one; ``why`` then says why. ``error`` is the root mean square of the
    speeds' differences, ``worst`` the greatest one, as shares of full speed. ``margins``: of the curve's parameters.
    """

    phase: Literal["prefill", "decode"]
    least_batch: int
    most_batch: int
    points: tuple[CapSpeed, ...]
    curve: PowerCurve | None
    error: float | None
    worst: float | None
    why: str
    margins: ParameterMargins | None = None

    @property
    def label(self) -> str:
        """The phase and, for decode, its batches."""
        if self.phase == "prefill":
            return "prefill"
        return f"decode, {self.batches} in flight"

    @property
    def batches(self) -> str:
        """Its batch sizes, as ``4 to 7``."""
        least, most = self.least_batch, self.most_batch
        return f"{least}" if least == most else f"{least} to {most}"

    @property
    def parameters(self) -> dict[str, tuple[float, float]]:
        """Each parameter's value and margin, by the names of ``ParameterMargins``; none without a curve."""
        curve, margins = self.curve, self.margins
        if curve is None or margins is None:
            return {}
        return {
            "p_s_watts": (curve.p_s_mw / 1000, margins.p_s_watts),
            "p_u_watts": (curve.p_u_mw / 1000, margins.p_u_watts),
            "alpha": (curve.alpha, margins.alpha),
        }

    @property
    def uncertain(self) -> tuple[str, ...]:
        """The parameters whose margins are above 5 % of them. The speeds may be right all the same, because
        parameters make up for each other."""
        return tuple(name for name, (value, margin) in self.parameters.items() if margin > CERTAIN * value)

    def predicted(self, one: CapSpeed) -> float | None:
        """The speed that the law gives for a point; None without a curve."""
        if self.curve is None:
            return None
        return _relative(self.curve, one.cap_watts, max(each.cap_watts for each in self.points))


def cap_speeds(table: Iterable[PointRow]) -> tuple[CapSpeed, ...]:
    """Every row as a speed relative to that of the same point under its highest cap."""
    points: dict[Point, dict[float, PointRow]] = {}
    for row in table:
        if row.point.cap_watts is not None:
            points.setdefault(replace(row.point, cap_watts=None), {})[row.point.cap_watts] = row
    found = []
    for by_cap in points.values():
        full_ms = by_cap[max(by_cap)].time.value
        for cap_watts, row in sorted(by_cap.items()):
            draw = None if row.watts is None else row.watts / row.point.tp
            found.append(CapSpeed(row.point, cap_watts, full_ms / row.time.value, draw))
    return tuple(found)


def fit_power(profiled: Profiled, min_watts: float, max_watts: float) -> tuple[PowerFit, ...]:
    """A fit for each phase at its recommended TP size and, for decode, each batch size in powers of two.

    The limits are those that every GPU of the run takes.
    """
    found = profiled.recommendation
    tps = {"prefill": found.prefill.point.tp, "decode": found.decode.point.tp}
    groups: dict[tuple[Literal["prefill", "decode"], int], list[CapSpeed]] = {}
    for one in cap_speeds(profiled.capped):
        if one.point.tp == tps[one.point.phase]:
            groups.setdefault((one.point.phase, one.point.in_flight.bit_length()), []).append(one)
    order = sorted(groups, key=lambda group: (group[0] != "prefill", group[1]))
    fits = []
    for phase, size in order:
        idle = profiled.engines[tps[phase]].get("idle_watts")
        fits.append(fit_points(phase, groups[phase, size], CardLimits(idle, min_watts, max_watts)))
    return tuple(fits)


def phase_fit(fits: Iterable[PowerFit], phase: str) -> PowerFit | None:
    """The fit that stands for a phase: of the largest batch that shows a curve. None where none does."""
    of_phase = [fit for fit in fits if fit.phase == phase and fit.curve is not None]
    return max(of_phase, key=lambda fit: fit.most_batch, default=None)


def fit_points(phase: Literal["prefill", "decode"], points: Sequence[CapSpeed], card: CardLimits) -> PowerFit:
    """One fit through all the points, whatever their batches."""
    batches = [one.point.in_flight for one in points]
    by_cap = _speed_by_cap(points)
    curve, why = _curve(by_cap, card)
    fit = PowerFit(phase, min(batches), max(batches), tuple(points), curve, None, None, why)
    if curve is None:
        return fit
    top = max(by_cap)
    errors = [_relative(curve, one.cap_watts, top) - one.speed for one in points]
    return replace(
        fit,
        error=math.sqrt(statistics.mean(error * error for error in errors)),
        worst=max(map(abs, errors)),
        margins=_margins(curve, points),
    )


def _speed_by_cap(points: Iterable[CapSpeed]) -> dict[float, float]:
    found: dict[float, list[float]] = {}
    for one in points:
        found.setdefault(one.cap_watts, []).append(one.speed)
    return {cap: statistics.geometric_mean(each) for cap, each in sorted(found.items())}


def _curve(by_cap: Mapping[float, float], card: CardLimits) -> tuple[PowerCurve | None, str]:
    """The law through speeds by cap, or why there is none."""
    if card.idle_watts is None:
        return None, "the draw of the idle engine was not measured"
    lowest, top = min(by_cap), max(by_cap)
    held = [cap for cap, share in by_cap.items() if share < HELD_BACK]
    if not held:
        return None, f"no cap held it back; the lowest was {lowest:g} W"
    free = [cap for cap in by_cap if cap not in held and cap != top]
    if len(held) < PARAMETERS:
        return None, f"only {len(held)} of the caps held it back; the law needs {PARAMETERS}"
    # Above every cap that held it back. Just below P_u the law costs less than what counts as held back.
    least = max(held)
    most = min(card.max_watts, min(free) * (1 + MARGIN)) if free else max(card.max_watts, top)
    start = PowerCurve(
        p_s_mw=0,
        p_u_mw=mw_from_watts(most),
        alpha=1.0,
        idle_mw=mw_from_watts(card.idle_watts),
        min_mw=mw_from_watts(card.min_watts),
        max_mw=mw_from_watts(card.max_watts),
        useful_mw=mw_from_watts(lowest),
    )
    return _searched(start, by_cap, (least, most)), ""


def _searched(start: PowerCurve, by_cap: Mapping[float, float], p_u_watts: tuple[float, float]) -> PowerCurve:
    """The curve with the least squares of the logarithms: a grid that narrows around its best point, then steps of
    Levenberg and Marquardt, because P_s and alpha nearly make up for each other.

    Full speed is fitted too (what is left over has the mean 0): the highest cap was measured no better than others.
    """
    caps_mw = np.array([1000.0 * cap for cap in by_cap])
    wanted = np.log(np.array(list(by_cap.values())))
    least = np.array([0.0, 1000.0 * p_u_watts[0], math.log(LEAST_ALPHA)])
    most = np.array([MOST_P_S, 1000.0 * p_u_watts[1], math.log(MOST_ALPHA)])

    def errors(at: np.ndarray) -> np.ndarray:
        share, p_u, log_alpha = at[:, :1], at[:, 1:2], at[:, 2:]
        speeds = np.maximum(SLOWEST, law_speeds(start, (share * p_u, p_u, np.exp(log_alpha)), caps_mw))
        left = np.log(speeds) - wanted
        return np.asarray(left - left.mean(axis=1, keepdims=True))

    best, width = (least + most) / 2, most - least
    for _ in range(ZOOMS):
        axes = np.clip(best + width * np.linspace(-0.5, 0.5, STEPS)[:, None], least, most)
        grid = np.stack([each.ravel() for each in np.meshgrid(*axes.T, indexing="ij")], axis=1)
        best, width = grid[int(np.argmin((errors(grid) ** 2).sum(axis=1)))], ZOOM * width
    share_of_u, p_u_mw, log_alpha = _polished(errors, best, least, most)
    return replace(start, p_s_mw=round(share_of_u * p_u_mw), p_u_mw=round(p_u_mw), alpha=math.exp(log_alpha))


def _polished(
    errors: Callable[[np.ndarray], np.ndarray], start: np.ndarray, least: np.ndarray, most: np.ndarray
) -> tuple[float, float, float]:
    best, damping = start, 1e-3
    found = errors(best[None])[0]
    steps = 1e-6 * (most - least)
    for _ in range(POLISHING):
        away = np.where(best + steps > most, -steps, steps)
        slopes = ((errors(best + np.diag(away)) - found) / away[:, None]).T
        normal = slopes.T @ slopes
        scale = np.diag(np.maximum(np.diag(normal), 1e-30))
        step = np.linalg.lstsq(normal + damping * scale, -slopes.T @ found, rcond=None)[0]
        tried = np.clip(best + step, least, most)
        left = errors(tried[None])[0]
        if left @ left < found @ found:
            best, found, damping = tried, left, damping / 3
        else:
            damping = min(1e6, 4 * damping)
    return float(best[0]), float(best[1]), float(best[2])


def _margins(curve: PowerCurve, points: Sequence[CapSpeed]) -> ParameterMargins:
    """By the covariance of linear least squares at the curve found, with the noise that the fit leaves over.

    Each point (a prompt length and batch) has a full speed of its own, which takes a degree of freedom.
    """
    scale = np.array([curve.p_u_mw, curve.p_u_mw, curve.alpha])
    at = np.array([curve.p_s_mw, curve.p_u_mw, curve.alpha])
    steps = NEAR * np.diag(scale)
    near = np.vstack([at, at + steps, at - steps])
    caps = sorted({one.cap_watts for one in points})
    caps_mw = 1000.0 * np.array(caps)
    logs = np.log(np.maximum(SLOWEST, law_speeds(curve, (near[:, :1], near[:, 1:2], near[:, 2:]), caps_mw)))
    slopes = dict(zip(caps, ((logs[1:4] - logs[4:]) / (2 * NEAR)).T, strict=True))
    fitted = dict(zip(caps, logs[0], strict=True))
    each: dict[Point, list[np.ndarray]] = {}
    for one in points:
        left = math.log(one.speed) - fitted[one.cap_watts]
        each.setdefault(replace(one.point, cap_watts=None), []).append(np.append(slopes[one.cap_watts], left))
    table = np.vstack([np.array(rows) - np.mean(rows, axis=0) for rows in each.values()])
    free = len(points) - len(each) - PARAMETERS
    p_s, p_u, alpha = scale * _half_widths(table[:, :-1], table[:, -1], free)
    return ParameterMargins(float(p_s) / 1000, float(p_u) / 1000, float(alpha))


def _half_widths(slopes: np.ndarray, left: np.ndarray, free: int) -> np.ndarray:
    """95 % of each parameter, from what it does to each value and what the fit leaves over of them."""
    _, sizes, directions = np.linalg.svd(slopes, full_matrices=False)
    shown = sizes > SAME * sizes[0]
    if free < 1 or not shown.any():
        return np.full(slopes.shape[1], math.inf)
    variances = ((directions[shown] / sizes[shown, None]) ** 2).sum(axis=0)
    hidden = (np.abs(directions[~shown]) > SAME).any(axis=0)
    sigma = math.sqrt(float(left @ left) / free)
    return np.where(hidden, math.inf, t_95(free) * sigma * np.sqrt(variances))


def law_speeds(
    card: PowerCurve, parameters: tuple[np.ndarray, np.ndarray, np.ndarray], caps_mw: np.ndarray
) -> np.ndarray:
    """``planner.core.power.curve.speed`` of many curves at once: rows of (P_s, P_u, alpha), columns of caps."""
    p_s, p_u, alpha = parameters
    idle, lowest = card.idle_mw, card.min_mw

    def fitted(caps: np.ndarray) -> np.ndarray:
        return np.asarray(np.clip((caps - p_s) / (p_u - p_s), 0.0, 1.0) ** alpha)

    speeds = fitted(caps_mw)
    with np.errstate(divide="ignore", invalid="ignore"):
        end = np.minimum(p_u, np.ceil((p_s - alpha * idle) / (1.0 - alpha)))
    end = np.where((lowest > p_s) | (alpha >= 1.0) | (idle >= p_s), 0.0, end)
    top = fitted(end)
    line = top * (lowest - idle) / np.maximum(1.0, end - idle)
    slowest = np.minimum(np.minimum(MOST_SPEED, np.maximum(LEAST_SPEED, line)), top)
    share = np.maximum(0.0, (caps_mw - lowest) / np.where(end > lowest, end - lowest, 1.0))
    tail = np.maximum(speeds, slowest + (top - slowest) * share)
    return np.asarray(np.where(caps_mw >= end, speeds, tail))


def _relative(curve: PowerCurve, cap_watts: float, top_watts: float) -> float:
    full = max(SLOWEST, speed(curve, mw_from_watts(top_watts)))
    return max(SLOWEST, speed(curve, mw_from_watts(cap_watts))) / full

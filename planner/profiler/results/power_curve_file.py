"""Writes ``power_curve.json``: speed by power cap as measured, the law fitted to it, and the curves that the planner
loads with the profile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from planner.adapters.measured_power import FILE, PHASES, block_of
from planner.profiler.analysis.power_law import PowerFit, phase_fit
from planner.profiler.results.profile_files import write_json

LAW = (
    "speed(cap) = 1 for cap >= p_u, else ((cap - p_s) / (p_u - p_s)) ** alpha; watts per GPU; holds within the "
    "measured caps, and speed is relative to the highest of them"
)


def write_power_curve(folder: Path, fits: Sequence[PowerFit], gpu: str) -> Path:
    """Write the file. ``gpu``: the type of the GPUs. Raises OSError."""
    curves = {phase: phase_fit(fits, phase) for phase in PHASES}
    content = {
        "gpu": gpu,
        "law": LAW,
        "curves": {
            phase: block_of(fit.curve) for phase, fit in curves.items() if fit is not None and fit.curve is not None
        },
        "fits": [_fit(fit) for fit in fits],
        "rows": [row for fit in fits for row in _rows(fit)],
    }
    return write_json(folder / FILE, content)


def power_notes(fits: Sequence[PowerFit]) -> tuple[str, ...]:
    """One line for each phase without a curve, and one for each curve with parameters that its points leave open."""
    lines = []
    for phase in PHASES:
        of_phase = [fit for fit in fits if fit.phase == phase]
        if of_phase and phase_fit(of_phase, phase) is None:
            lines.append(f"no power curve for {phase}: {of_phase[-1].why}; planners use the published one")
    lines += [_uncertain(fit) for fit in fits if fit.uncertain]
    return tuple(lines)


def with_margin(fit: PowerFit, name: str) -> str:
    """A parameter and its margin in words, without its unit; the name is one of ``fit.parameters``."""
    value, margin = fit.parameters[name]
    digits = 3 if name == "alpha" else 0
    return f"{value:.{digits}f} +- {margin:.{digits}f}" if math.isfinite(margin) else f"{value:.{digits}f} +- ?"


def _uncertain(fit: PowerFit) -> str:
    units = {"p_s_watts": ("P_s", " W"), "p_u_watts": ("P_u", " W"), "alpha": ("alpha", "")}
    parts = [f"{units[name][0]} {with_margin(fit, name)}{units[name][1]}" for name in fit.uncertain]
    return (
        f"the power curve of {fit.label} has uncertain parameters ({', '.join(parts)}); its speeds are within "
        f"{fit.worst or 0.0:.1%} of those measured"
    )


def _fit(fit: PowerFit) -> dict[str, Any]:
    found: dict[str, Any] = {"phase": fit.phase, "batch": [fit.least_batch, fit.most_batch]}
    if fit.curve is None:
        return {**found, "why": fit.why}
    law = {name: value for name, (value, _) in fit.parameters.items()}
    margins = {name: margin if math.isfinite(margin) else None for name, (_, margin) in fit.parameters.items()}
    return {**found, **law, "margins": margins, "uncertain": fit.uncertain, "rmse": fit.error, "worst": fit.worst}


def _rows(fit: PowerFit) -> list[dict[str, Any]]:
    return [
        {
            "phase": fit.phase,
            "tp": one.point.tp,
            "isl": one.point.isl,
            "in_flight": one.point.in_flight,
            "cap_watts": one.cap_watts,
            "speed": one.speed,
            "fitted_speed": fit.predicted(one),
            "draw_watts": one.draw_watts,
        }
        for one in fit.points
    ]

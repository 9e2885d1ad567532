"""Reads ``power_curve.json``, which the profiler writes beside a profile: the measured power curve of each phase."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from bus_schemas.regular_files import read_regular
from planner.domain.power import PowerCurve
from planner.domain.units import mw_from_watts

FILE = "power_curve.json"
FILE_BYTES = 64 << 20
PHASES = ("prefill", "decode")
MOST_WATTS = 1e6


class PowerCurveError(Exception):
    """A file that cannot be used. The message is one line."""


def load_power_curves(folder: Path) -> dict[str, PowerCurve]:
    """The curves by phase; a phase that was not held back by any cap has none, and neither has a folder without the
    file. Raises PowerCurveError."""
    path = folder / FILE
    try:
        content = json.loads(read_regular(path, FILE_BYTES))
    except FileNotFoundError:
        return {}
    except RecursionError:
        raise PowerCurveError(f"{path}: nested too deeply") from None
    except (OSError, ValueError) as error:
        raise PowerCurveError(f"{path}: cannot be read as JSON: {error}") from error
    blocks = content.get("curves") if isinstance(content, dict) else None
    if not isinstance(blocks, dict) or not set(blocks) <= set(PHASES):
        raise PowerCurveError(f"{path}: needs an object 'curves' with {' and '.join(PHASES)}")
    try:
        return {phase: curve_of(block) for phase, block in blocks.items() if block is not None}
    except ValueError as error:
        raise PowerCurveError(f"{path}: {error}") from error


def curve_of(block: Any) -> PowerCurve:
    """A curve in the form of the setting ``power_curve``, watts per GPU. Raises ValueError."""
    names = [field.name.replace("_mw", "_watts") for field in fields(PowerCurve)]
    if not isinstance(block, Mapping) or sorted(block) != sorted(names):
        raise ValueError(f"a curve has {', '.join(names)}")
    for name in names:
        value = block[name]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not 0 <= value <= MOST_WATTS:
            raise ValueError(f"{name} is {value!r}; it must be a number that is not negative")
    if not block["alpha"] > 0:
        raise ValueError("alpha must be above 0")
    check_order(block["p_s_watts"], block["p_u_watts"], block["min_watts"], block["max_watts"])
    watts = {name.replace("_watts", "_mw"): mw_from_watts(block[name]) for name in names if name != "alpha"}
    return PowerCurve(alpha=float(block["alpha"]), **watts)


def block_of(curve: PowerCurve) -> dict[str, float]:
    """The same form, of a curve."""
    found = {}
    for field in fields(curve):
        value = getattr(curve, field.name)
        found[field.name.replace("_mw", "_watts")] = value / 1000 if field.name.endswith("_mw") else value
    return found


def check_order(p_s_watts: float, p_u_watts: float, min_watts: float, max_watts: float) -> None:
    """Raises ValueError where the powers of a curve contradict each other."""
    if not p_s_watts < p_u_watts <= max_watts or min_watts > max_watts:
        raise ValueError("power_curve: p_s_watts < p_u_watts <= max_watts and min_watts <= max_watts must hold")

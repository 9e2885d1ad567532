"""HPA's formula for an external metric with target 1 `AverageValue`, and the single steps that it loses. Pure.

Source: `GetExternalPerPodMetricReplicas` of Kubernetes' pod autoscaler. The tolerance is 10 % by default. From
Kubernetes 1.35 on (1.33 and 1.34 behind the gate `HPAConfigurableTolerance`) `spec.behavior.scaleUp.tolerance` and
`scaleDown.tolerance` replace it; older servers drop these fields without a word.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

DEFAULT_TOLERANCE = 0.1
MOST_REPLICAS = 1000
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)([num]?)")
_FACTORS = {"": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Which ratios of wanted to present replicas change nothing: from ``1 - down`` to ``1 + up``."""

    up: float = DEFAULT_TOLERANCE
    down: float = DEFAULT_TOLERANCE


def recommended(value: int, replicas: int, tolerance: Tolerance) -> int:
    """The replicas that HPA asks for, before its windows, policies and bounds.

    ``value``: the metric; ``replicas``: ``status.replicas`` of the target.
    """
    if replicas > 0:
        # HPA calculates in thousandths of the metric, as floats.
        ratio = float(value * 1000) / (1000.0 * float(replicas))
        if 1.0 - tolerance.down <= ratio <= 1.0 + tolerance.up:
            return replicas
    return math.ceil(float(value * 1000) / 1000.0)


def lost_from(tolerance: Tolerance) -> int | None:
    """The smallest count from which one replica more or one less is ignored; None: up to MOST_REPLICAS none is."""
    for replicas in range(1, MOST_REPLICAS + 1):
        steps = (replicas + 1, replicas - 1) if replicas > 1 else (replicas + 1,)
        if any(recommended(wanted, replicas, tolerance) != wanted for wanted in steps):
            return replicas
    return None


def quantity(text: object) -> float | None:
    """A tolerance as an HPA has it: a number, or a Quantity such as ``50m``. None for anything else."""
    found = _QUANTITY.fullmatch(str(text).strip())
    return None if found is None else float(found[1]) * _FACTORS[found[2]]

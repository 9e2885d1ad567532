"""What a sizing rule answers for one pool: the speed that each replica count would need."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from planner.core.sizing.queueing import Counts
from planner.domain.plan import Limited
from planner.domain.pool import Role

SPARE_COUNTS = 4
ENOUGH = 1.0 + 1e-9


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """``speed[i]`` and ``utilisation[i]`` belong to ``counts[i]``; ``wanted``: the least count that needs at most 1."""

    role: Role
    counts: tuple[int, ...]
    speed: tuple[float, ...]
    utilisation: tuple[float, ...]
    wanted: int
    chain: tuple[Limited, ...] = ()


def least_count(speed_at_one: float) -> int:
    """A first guess of the count whose required speed is 1, where speed falls as 1 / count."""
    return max(1, math.ceil(speed_at_one - 1e-9))


def wanted_count(counts: Counts, speed: Counts) -> int:
    """The least count whose speed is at most 1; beyond the table, by the 1 / count law of its end."""
    enough = np.flatnonzero(speed <= ENOUGH)
    if len(enough):
        return int(counts[enough[0]])
    return max(int(counts[-1]) + 1, math.ceil(float(counts[-1]) * float(speed[-1]) - 1e-9))

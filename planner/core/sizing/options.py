"""What a sizing rule answers for one pool: the speed that each replica count would need, and the count it wants."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from planner.core.sizing.queueing import CountArray
from planner.domain.plan import Limited

SPARE_COUNTS = 4
ENOUGH = 1.0 + 1e-9


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """``speed[i]`` and ``utilisation[i]`` belong to ``i`` replicas; ``wanted`` is what the rule asks for, and why."""

    speed: tuple[float, ...]
    utilisation: tuple[float, ...]
    wanted: int
    chain: tuple[Limited, ...] = ()
    arriving: tuple[float, ...] = ()
    """By count: the speed at which half of the answers that arrive are good; empty: unknown."""
    prompts: tuple[float, ...] = ()
    """By count: the speed at which ``IN_TIME_AT_NEED`` of the prompts that arrive are in time; empty: unknown."""
    least_speed: float = 0.0
    """The speed below which a full batch of prompts is late, whatever the count: while watts suffice, no cap goes below
    it."""

    def speed_at(self, count: int) -> float:
        """The speed that ``count`` replicas need; beyond the table by the 1 / count law from its last entry."""
        return at_count(self.speed, count)

    def utilisation_at(self, count: int) -> float:
        """Expected busy share of each of ``count`` replicas."""
        return self.utilisation[min(count, len(self.utilisation) - 1)]


def at_count(speeds: tuple[float, ...], count: int) -> float:
    """The speed that ``count`` replicas need, by a table from 0 on and beyond it by the 1 / count law."""
    end = len(speeds) - 1
    return speeds[count] if count <= end else speeds[end] * end / count


def at_counts(speeds: tuple[float, ...], least: int, most: int) -> tuple[float, ...]:
    """``at_count`` of every count from ``least`` to ``most``."""
    if most < len(speeds):
        return speeds[least : most + 1]
    return tuple([at_count(speeds, count) for count in range(least, most + 1)])


def wanted_count(counts: CountArray, speed: CountArray) -> int:
    """The least count whose speed is at most 1; beyond the table by the 1 / count law from its last entry."""
    enough = np.flatnonzero(speed <= ENOUGH)
    if len(enough):
        return int(counts[enough[0]])
    return max(int(counts[-1]) + 1, math.ceil(float(counts[-1]) * float(speed[-1]) - 1e-9))


def exactly(chain: tuple[Limited, ...]) -> PoolOptions:
    """Options of a rule that gives a count but no speeds: full speed at that count, more with fewer replicas."""
    wanted = chain[-1].value
    speed = (math.inf if wanted else 0.0, *(wanted / count for count in range(1, wanted + 1)))
    return PoolOptions(speed, (0.0, *(1.0,) * wanted), wanted, chain)


def at_least(options: PoolOptions, floor: PoolOptions) -> PoolOptions:
    """The rule that wants more decides: ``floor`` where ``options`` wants no more, else the higher of both speeds."""
    if options.wanted <= floor.wanted:
        return floor
    last = max(len(options.speed), len(floor.speed))
    speed = tuple(max(options.speed_at(count), floor.speed_at(count)) for count in range(last))
    busy = tuple(floor.utilisation_at(count) for count in range(last))
    return PoolOptions(speed, busy, options.wanted, (*floor.chain, *options.chain), least_speed=floor.least_speed)

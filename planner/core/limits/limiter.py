"""What a limiter takes and returns: a deployment's counts, each with the chain of reasons that led to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from planner.core.sizing.options import PoolOptions
from planner.core.state import DeploymentState
from planner.domain.config import DeploymentConfig, PoolConfig
from planner.domain.demand import StartLimit
from planner.domain.ids import PoolId
from planner.domain.plan import Limited
from planner.domain.units import TickClock


@dataclass(frozen=True, slots=True)
class Limits:
    """One pool's count, with the limiters that changed it."""

    count: int
    chain: tuple[Limited, ...] = ()

    def then(self, limited: Limited | None) -> Limits:
        """These limits after one more limiter; None means that it let the count through."""
        if limited is None:
            return self
        return Limits(limited.value, (*self.chain, limited))


@dataclass(frozen=True, slots=True)
class CountsByPool:
    """One deployment's counts between two limiters."""

    pools: Mapping[PoolId, Limits]

    @property
    def values(self) -> dict[PoolId, int]:
        """The counts alone."""
        return {name: limits.count for name, limits in self.pools.items()}

    def then(self, limited: Mapping[PoolId, Limited]) -> CountsByPool:
        """After a limiter that changed the pools in ``limited``."""
        if not limited:
            return self
        return CountsByPool({name: limits.then(limited.get(name)) for name, limits in self.pools.items()})


@dataclass(frozen=True, slots=True)
class LimitContext:
    """What a limiter may read.

    ``config`` has the bounds in force now. ``options`` lacks pools that cannot be sized. ``current`` has the counts in
    force; it is empty for counts that do not depend on them (an operator's pin, a fall-back).
    """

    config: DeploymentConfig
    state: DeploymentState
    options: Mapping[PoolId, PoolOptions]
    current: Mapping[PoolId, int]
    clock: TickClock
    starts: StartLimit | None = None
    """None where a replica needs no watts reserved before it is published."""
    gpus_to_spare: bool = False
    """The site is short of watts, and has GPUs for all replicas that run and all that are wanted."""


Limiter: TypeAlias = Callable[[LimitContext, CountsByPool], CountsByPool]
"""Returns the counts that it lets through; ``CountsByPool.then`` adds the limiter's reason to each pool that it
changes."""


def each_pool(
    context: LimitContext, counts: CountsByPool, limit: Callable[[PoolConfig, int], Limited | None]
) -> CountsByPool:
    """The counts after applying ``limit`` to each pool on its own; where it returns None the count is unchanged."""
    pools, limited = context.config.pools, {}
    for name, limits in counts.pools.items():
        if (changed := limit(pools[name], limits.count)) is not None:
            limited[name] = changed
    return counts.then(limited)

"""Settings in force at an instant: minimum and maximum replicas by schedule, and the windows of the sizing mode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from planner.domain.config import DeploymentConfig, PoolConfig, SizingMode
from planner.domain.daily_window import window_at
from planner.domain.ids import PoolId

WINDOWLESS = (SizingMode.CLASSIC, SizingMode.LOAD)


def in_force(config: DeploymentConfig, utc_s: float) -> DeploymentConfig:
    """``config`` with the bounds in force now; a pool keeps its schedule only while one of its windows applies."""
    pools, others = _in_force(config, config.pools, utc_s), _in_force(config, config.other_pools, utc_s)
    if pools is config.pools and others is config.other_pools:
        return config
    return replace(config, pools=pools, other_pools=others)


def _in_force(
    config: DeploymentConfig, pools: Mapping[PoolId, PoolConfig], utc_s: float
) -> Mapping[PoolId, PoolConfig]:
    if pools and config.sizing in WINDOWLESS:
        pools = {name: _without_window(pool) for name, pool in pools.items()}
    if any(pool.schedule is not None for pool in pools.values()):
        pools = {name: _bounded(pool, utc_s) for name, pool in pools.items()}
    return pools


def _without_window(pool: PoolConfig) -> PoolConfig:
    """The published planners had no stabilization windows: in their modes only configured ones apply."""
    if pool.scale_down.stabilization_window_s is not None:
        return pool
    return replace(pool, scale_down=replace(pool.scale_down, stabilization_window_s=0.0))


def _bounded(pool: PoolConfig, utc_s: float) -> PoolConfig:
    window = None if pool.schedule is None else window_at(pool.schedule.windows, pool.schedule.zone, utc_s)
    if window is None:
        return pool if pool.schedule is None else replace(pool, schedule=None)
    least = pool.min_replicas if window.min_replicas is None else window.min_replicas
    most = pool.max_replicas if window.max_replicas is None else window.max_replicas
    return replace(pool, min_replicas=min(least, most), max_replicas=most)

"""Settings in force at an instant: minimum and maximum replicas by schedule, and the windows of the sizing mode."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from planner.domain.config import DeploymentConfig, PoolConfig, SizingMode
from planner.domain.replica_schedule import ReplicaSchedule, ReplicaWindow

MINUTES_PER_DAY = 1440
WINDOWLESS = (SizingMode.CLASSIC, SizingMode.LOAD)


def in_force(config: DeploymentConfig, utc_s: float) -> DeploymentConfig:
    """``config`` with the bounds in force now; a pool keeps its schedule only while one of its windows applies."""
    pools = config.pools
    if config.sizing in WINDOWLESS:
        pools = {name: _without_window(pool) for name, pool in pools.items()}
    if any(pool.schedule is not None for pool in pools.values()):
        pools = {name: _bounded(pool, utc_s) for name, pool in pools.items()}
    return config if pools is config.pools else replace(config, pools=pools)


def _without_window(pool: PoolConfig) -> PoolConfig:
    """The published planners had no stabilization windows: in their modes only configured ones apply."""
    if pool.scale_down.stabilization_window_s is not None:
        return pool
    return replace(pool, scale_down=replace(pool.scale_down, stabilization_window_s=0.0))


def _bounded(pool: PoolConfig, utc_s: float) -> PoolConfig:
    window = None if pool.schedule is None else _window(pool.schedule, utc_s)
    if window is None:
        return pool if pool.schedule is None else replace(pool, schedule=None)
    least = pool.min_replicas if window.min_replicas is None else window.min_replicas
    most = pool.max_replicas if window.max_replicas is None else window.max_replicas
    return replace(pool, min_replicas=min(least, most), max_replicas=most)


def _window(schedule: ReplicaSchedule, utc_s: float) -> ReplicaWindow | None:
    local = datetime.fromtimestamp(utc_s, UTC).astimezone(schedule.zone)
    minute, day = local.hour * 60 + local.minute, local.weekday()
    holding = [window for window in schedule.windows if _holds(window, minute, day)]
    return holding[-1] if holding else None


def _holds(window: ReplicaWindow, minute: int, day: int) -> bool:
    today = not window.weekdays or day in window.weekdays
    yesterday = not window.weekdays or (day - 1) % 7 in window.weekdays
    if window.start_minute < window.end_minute:
        return today and window.start_minute <= minute < window.end_minute
    return (today and minute >= window.start_minute) or (yesterday and minute < window.end_minute % MINUTES_PER_DAY)

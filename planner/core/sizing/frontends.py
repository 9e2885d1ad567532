"""Frontends: as many replicas as the request rate needs, at what one replica is meant to take.

Owns the count of pools without GPUs, in every sizing mode. Must never concern watts, profiles or caps.
"""

from __future__ import annotations

import math

from planner.core.sizing.options import PoolOptions, exactly
from planner.core.sizing.sized_load import SizedLoad
from planner.domain.config import PoolConfig
from planner.domain.plan import Limited
from planner.domain.reasons import ReasonCode


def options(pool: PoolConfig, load: SizedLoad | None, current: int) -> PoolOptions:
    """The count for the load to size for; the count in force where that is unknown."""
    if load is None or not pool.requests_per_s:
        return exactly((Limited(current, ReasonCode.METRICS_MISSING, "held: the request rate is unknown"),))
    wanted = math.ceil(load.req_per_s / pool.requests_per_s - 1e-9)
    text = f"{load.req_per_s:.4g} requests/s at {pool.requests_per_s:g} for each {pool.pool} replica"
    return exactly((Limited(wanted, ReasonCode.REQUEST_RATE, text),))

"""What would change a decision: of each pool the limits that moved its count, or else the load. From the plan record.

States only what the record holds: the count before and after each limit. It computes no decision of its own.
"""

from __future__ import annotations

from bus_schemas import v1
from deploy.views.words import amount


def would_change(record: v1.PlanRecord) -> tuple[str, ...]:
    """One line for each pool: what its count would be without the limits that moved it, or what it follows."""
    return tuple(_pool(record, name, pool) for name, pool in record.pools.items() if pool.chain)


def _pool(record: v1.PlanRecord, name: str, pool: v1.PoolRecord) -> str:
    moves = [
        f"{before} without {reason.code} ({reason.text})"
        for before, after, reason in zip(pool.values, pool.values[1:], pool.chain[1:], strict=False)
        if before != after
    ]
    if moves:
        return f"{name}: {pool.granted}; it would be {'; '.join(moves)}"
    if pool.values and pool.granted != pool.values[-1]:
        return f"{name}: {pool.granted} on its way to {pool.values[-1]} ({pool.chain[-1].text})"
    return f"{name}: {pool.granted}, which no limit moves; another load would{_load(record)}, or another target"


def _load(record: v1.PlanRecord) -> str:
    rate = record.forecasts.get("request_rate_per_s")
    if rate is None:
        return ""
    return f" (forecast {amount(rate.mean)} requests/s, band {amount(rate.lower)} to {amount(rate.upper)})"

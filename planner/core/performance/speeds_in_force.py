"""How fast the GPUs of each pool run by the limits that stand on them, and what that lay between since the last tick.

What a planner aims at is not what was observed: GPUs begin parked, a raise waits for watts, a new leader has no aim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from planner.core.power.curve import speed
from planner.core.power.node_ledger import NodeLedger
from planner.core.power.site_state import PowerState
from planner.domain.config import DeploymentConfig
from planner.domain.ids import DeploymentId, GpuId, PoolId

Held = Mapping[tuple[DeploymentId, PoolId], Sequence[GpuId]]


class Speeds(NamedTuple):
    """The mean speed of a pool's GPUs in an interval lay between these; 1 is full speed."""

    slowest: float
    fastest: float


FULL = Speeds(1.0, 1.0)


def now(config: DeploymentConfig, power: PowerState | None, held: Held) -> Mapping[PoolId, float]:
    """The mean speed of each pool's GPUs; a pool is absent while no limit of its GPUs is known."""
    found: dict[PoolId, float] = {}
    if power is None:
        return found
    for name, pool in config.pools.items():
        limits = [limit for gpu in held.get((config.deployment, name), ()) if (limit := _limit_mw(power, gpu))]
        if limits:
            at = {limit: speed(pool.curve, limit) for limit in set(limits)}
            found[name] = sum([at[limit] for limit in limits]) / len(limits)
    return found


def since(
    before: Mapping[PoolId, float] | None,
    after: Mapping[PoolId, float],
    config: DeploymentConfig,
    power: PowerState | None,
) -> Mapping[PoolId, Speeds]:
    """What speeds lay between from one tick to the next, for the pools whose speed was known at both.

    A lower limit stands a moment after the tick that ordered it; a higher one waits for watts, perhaps all the time.
    ``before`` None: this leader's first tick, before which it has changed no limit. Full where no agent has ever
    reported: then nothing is known to limit the GPUs.
    """
    if power is None or not power.nodes:
        return dict.fromkeys(config.pools, FULL)
    known = after if before is None else before
    return {name: Speeds(min(known[name], speed), speed) for name, speed in after.items() if name in known}


def _limit_mw(power: PowerState, gpu: GpuId) -> int | None:
    """The limit that stands on a GPU; None while a decision on its node is not answered, or it reported none."""
    node = power.nodes[power.where[gpu]]
    if not node.answered or node.seen is None:
        return None
    return _reported_mw(node, gpu) if _reported_last(node) else node.hardware_mw[node.cards.gpus.index(gpu)]


def _reported_last(node: NodeLedger) -> bool:
    """Whether the newest readback is a report. Before the first decision the ledger assumes the highest limits."""
    return node.caps_mw is None or node.reported_since_answer


def _reported_mw(node: NodeLedger, gpu: GpuId) -> int | None:
    seen = node.seen.gpus.get(gpu) if node.seen is not None else None
    return None if seen is None else seen.enforced_mw

"""How fast the GPUs of each pool run by the limits that stand on them, and what that lay between since the last tick.

What a planner aims at is not what was observed: GPUs begin parked, a raise waits for watts, a new leader has no aim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from planner.core.power.curve import speed
from planner.core.power.site_state import PowerState
from planner.domain.config import DeploymentConfig
from planner.domain.ids import DeploymentId, GpuId, PoolId

Held = Mapping[tuple[DeploymentId, PoolId], Sequence[GpuId]]


class Speeds(NamedTuple):
    """The mean speed of a pool's GPUs in an interval lay between these; 1 is full speed."""

    slowest: float
    fastest: float


FULL = Speeds(1.0, 1.0)


def now(config: DeploymentConfig, power: PowerState | None, held: Held) -> Mapping[PoolId, Speeds]:
    """What the mean speed of each pool's GPUs lies between; a pool is absent while no limit of its GPUs is known."""
    found: dict[PoolId, Speeds] = {}
    if power is None:
        return found
    for name, pool in config.pools.items():
        gpus = held.get((config.deployment, name), ())
        limits = [limit for gpu in gpus if (limit := _limits_mw(power, gpu)) is not None]
        if limits:
            at = {limit: speed(pool.curve, limit) for limit in {mw for pair in limits for mw in pair}}
            low, high = (sum([at[pair[i]] for pair in limits]) / len(limits) for i in (0, 1))
            found[name] = Speeds(low, high)
    return found


def since(
    before: Mapping[PoolId, Speeds] | None,
    after: Mapping[PoolId, Speeds],
    config: DeploymentConfig,
    power: PowerState | None,
    aimed: Mapping[PoolId, float],
) -> Mapping[PoolId, Speeds]:
    """What speeds lay between from one tick to the next, for the pools whose speed was known at both.

    A lower limit stands a moment after the tick that ordered it; a higher one waits for watts, perhaps all the time.
    ``before`` None: this leader's first tick, before which it has changed no limit. Where no agent has ever reported
    (others set the caps, or a journal is replayed), nothing but what was ordered is known: the speeds ``aimed`` at, or
    full speed.
    """
    if power is None or not power.nodes:
        return {name: Speeds(aimed.get(name, 1.0), aimed.get(name, 1.0)) for name in config.pools}
    known = after if before is None else before
    return {
        name: Speeds(min(known[name].slowest, speeds.slowest), speeds.fastest)
        for name, speeds in after.items()
        if name in known
    }


def _limits_mw(power: PowerState, gpu: GpuId) -> tuple[int, int] | None:
    """The lowest and the highest limit that may stand on a GPU: what was read back, and decisions not answered yet.

    Before the first decision the ledger assumes the highest limits, and the report shows what stands.
    """
    node = power.nodes[power.where[gpu]]
    if node.seen is None:
        return None
    index, reported = node.cards.gpus.index(gpu), node.seen.gpus.get(gpu)
    read = node.hardware_mw[index]
    if (node.caps_mw is None or node.reported_since_answer) and reported is not None:
        read = reported.enforced_mw or 0
    if not read:
        return None
    unanswered = [cap for sent in node.sent if sent.decision_id > node.acked_id and (cap := sent.caps_mw[index])]
    standing = (read, *unanswered)
    return min(standing), max(standing)

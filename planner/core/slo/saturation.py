"""When counts could not have followed a moved quantile: the controller must not wind up then.

At the minimum of every pool it does go on: requests that are good there spend no budget, which others may spend.
"""

from __future__ import annotations

from dataclasses import replace

from planner.core.limits.pipeline import LimitedCounts
from planner.core.sizing.deployment import SizedDeployment
from planner.core.sizing.options import ENOUGH
from planner.core.slo.share_controller import SloState
from planner.domain.config import OperationMode
from planner.domain.reasons import ReasonCode

BINDING = frozenset(
    {
        ReasonCode.MAX_REPLICAS,
        ReasonCode.SCHEDULE,
        ReasonCode.GPU_BUDGET,
        ReasonCode.POWER_BUDGET,
        ReasonCode.START_WATTS,
        ReasonCode.NO_FREE_GPU,
        ReasonCode.SHORTFALL,
    }
)
"""Limits that a higher quantile does not move. Rates and windows are none of them: counts follow later."""
LATE = 5e-3
"""Predicted share of late requests from which a site is short of watts or GPUs."""


def settled(
    state: SloState, sized: SizedDeployment, limited: LimitedCounts, shortfall: float, now_s: float
) -> SloState:
    """The state that knows whether the counts in ``limited`` could follow a moved quantile.

    ``shortfall``: the share of the requests that the site's allocation predicts to be late. ``now_s``: on the planner's
    clock.
    """
    if sized.config.mode is not OperationMode.ACTIVE:
        watched = f"the deployment is {sized.config.mode.value}"
        return replace(state, stuck_up=watched, stuck_down=watched)
    if sized.hold is not None:
        return replace(state, stuck_up=sized.hold.sentence, stuck_down=sized.hold.sentence)
    flow = sized.state.flow
    if not flow.ready and now_s - flow.decided_at_s >= sized.config.scaling_timeout_s:
        # Of a connector that is gone, say: what runs is not what was decided, and shows nothing of the quantile.
        undone = f"decision {flow.decision_id} is not carried out"
        return replace(state, stuck_up=undone, stuck_down=undone)
    return replace(state, stuck_up=_up(sized, limited, shortfall), stuck_down="")


def _up(sized: SizedDeployment, limited: LimitedCounts, shortfall: float) -> str:
    for name, pool in sized.config.pools.items():
        count, options = limited.counts[name], sized.options.get(name)
        codes = [link.reason for link in limited.chains[name] if link.reason in BINDING]
        if codes and count < limited.wanted[name]:
            return f"{name} is limited to {count} ({codes[-1].value})"
        if options is not None and count >= pool.max_replicas and options.speed_at(count) > ENOUGH:
            return f"{name} has its most replicas, {count}"
    return "watts or GPUs do not carry the load" if shortfall > LATE else ""

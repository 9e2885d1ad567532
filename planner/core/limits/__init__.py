"""Limits of scaling: one ordered list of limiters, and nothing else outside the optimiser applies a bound.

A limiter is a function in this room: it takes the context and the counts and returns the counts that it lets through,
each change with its reason. To add one, write the function and put its name on a line below.
"""

from planner.core.limits.bounds import gpu_budget, keep_partners_awake, replica_bounds
from planner.core.limits.hpa_behavior import ignore_small_changes, scaling_rate, stabilization_window
from planner.core.limits.limiter import Limiter
from planner.core.limits.readiness import wait_for_last_decision
from planner.core.limits.start_watts import start_watts

LIMITERS: tuple[Limiter, ...] = (
    ignore_small_changes,  # HPA's tolerance, first as in HPA: a change that is ignored needs no window
    stabilization_window,  # HPA's windows
    scaling_rate,  # HPA's policies, then the pool's largest step a tick
    replica_bounds,  # min/max replicas, after windows and rates: as in HPA they may not hold a count outside
    keep_partners_awake,  # after the bounds, because a pool's minimum may be zero
    gpu_budget,  # after everything that may raise a count
    start_watts,  # after the GPU budget: only replicas that it leaves need watts reserved
    wait_for_last_decision,  # last: while a decision is carried out the counts in force stay, whatever they are
)
"""In this order, over the counts that the optimiser chose."""

LIMITERS_OF_HELD: tuple[Limiter, ...] = (replica_bounds, gpu_budget)
"""For counts that do not follow the load: an operator's pin, a fall-back for missing metrics."""

__all__ = ["LIMITERS", "LIMITERS_OF_HELD"]

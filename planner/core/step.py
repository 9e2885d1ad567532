"""The whole planner as two pure functions: ``step`` at every tick, ``react`` between ticks.

Owns the order of the stages: what was seen, what is wanted, what limits it, which watts are reserved for it, what is
published. Reads no clock and knows no wire format, so service, simulation, replay and tests all decide alike.
"""

from __future__ import annotations

from collections.abc import Sequence

from planner.core.allocation.goals import aim_at
from planner.core.allocation.site import allocate, gpus_to_spare, reallocate, share_sites
from planner.core.intake import absorb
from planner.core.limits import LIMITERS
from planner.core.limits.limiter import Limiter
from planner.core.limits.pipeline import apply_limits, shorten
from planner.core.power.draw_feedback import measure_draws
from planner.core.power.reservations import reserve_power
from planner.core.publishable import aims_of, publish, waiting_aims
from planner.core.record import deployment_plans, record
from planner.core.sizing.deployment import size_deployments
from planner.core.state import PlannerState
from planner.domain.config import PlannerConfig
from planner.domain.observation import Observation
from planner.domain.plan import Plan
from planner.domain.units import TickClock


def step(
    state: PlannerState,
    observation: Observation,
    config: PlannerConfig,
    clock: TickClock,
    limiters: Sequence[Limiter] = LIMITERS,
) -> tuple[PlannerState, Plan]:
    """One tick: the next state and everything that was decided, with its reasons.

    Pure: the same inputs always give the same plan. ``clock``: ``config.clock(now_s)``.
    """
    absorbed = absorb(state, observation, config, clock)  # acknowledgements, commands, telemetry -> ledgers
    sites = share_sites(absorbed, config, clock)  # watts and GPUs that each site's deployments share
    held = {name: site.held for name, site in sites.items()}
    measured = measure_draws(absorbed, observation, config, held, clock)  # P_u of every pool
    sized = size_deployments(measured, observation, config, held, clock)  # forecasts, corrections, counts for the SLO
    free = allocate(sized, sites)  # optimiser: counts and caps under the sites' watts
    starts = {name: site.starts for name, site in sites.items()}  # for how many new replicas watts can be reserved
    spare = gpus_to_spare(sized, sites)  # sites where a replica that is kept costs little
    limited = apply_limits(sized, free, clock, limiters, starts, spare)  # windows, rates, bounds, GPU budget, in order
    final = reallocate(sized, sites, free, limited)  # optimiser: the best caps for the counts that the limits left
    granted = shorten(sized, limited, final)  # fewer where the site cannot power them
    aiming = aim_at(measured, sized, granted, final, config, clock)
    reserved = reserve_power(aiming, config, clock)  # ledgers: lower first, raise when proven; GPUs for new replicas
    published = publish(reserved, aims_of(sized, granted), clock)  # only replicas whose watts are reserved
    plans = deployment_plans(sized, granted, final, published, config)
    return published.state, record(reserved, published, config, clock, plans)


def react(
    state: PlannerState, observation: Observation, config: PlannerConfig, clock: TickClock
) -> tuple[PlannerState, Plan]:
    """Between ticks: acknowledgements, commands, budgets, settled watts, leases. Sizes nothing."""
    absorbed = absorb(state, observation, config, clock)
    reserved = reserve_power(absorbed, config, clock)
    published = publish(reserved, waiting_aims(reserved, config), clock)
    return published.state, record(reserved, published, config, clock)

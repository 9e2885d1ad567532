"""Allocation: what a site's deployments share, and the optimiser's counts and caps under its watts and GPUs.

Owns the seam between sizing and the optimiser. Must never decide that a watt is free: only the ledger does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from planner.core import advisory
from planner.core.allocation import proportional
from planner.core.allocation.closed_form import settled
from planner.core.allocation.optimiser import priority_classes
from planner.core.allocation.optimiser.problem import minimums_fit
from planner.core.limits.pipeline import LimitedDeployments
from planner.core.placement import GpuInventory, Holder, inventory_of, powered
from planner.core.power.cap_changes import fallbacks
from planner.core.power.site_state import PowerState, gpus_mw, unseen_mw
from planner.core.sizing.deployment import Sized, SizedDeployment
from planner.core.sizing.options import PoolOptions, at_counts
from planner.core.state import PlannerState
from planner.domain.config import Covers, PlannerConfig, PoolConfig, Shortage, SiteConfig
from planner.domain.demand import Allocation, Allocations, DeploymentDemand, PoolDemand, SiteLimits, StartLimit
from planner.domain.ids import DeploymentId, GpuId, PoolId, SiteId
from planner.domain.units import Milliwatts, TickClock

FULL_SPEED = 1.0
DECIDED_AFTER = 0.5
"""Start-up times after which the next change is decided, however short the interval: so long a load takes to show.
Otherwise a planner that ticks every few seconds would never find a start worth its wait."""
SPEED_RESERVE = 1.3
"""Caps leave this much speed above what the sized load needs, while watts suffice. A cap that just meets the forecast
leaves nothing for load that comes before the next tick, and a raise waits for watts to settle. Measured on seven cases:
at 1.0 energy falls by 5.7 % and 3.1 points of good requests are lost; at 1.6 one bursty case gains 3.2 points and
another loses 4.8, for more GPUs at lower caps and no fewer joules. It does not follow the load's bursts: they are in
the sized load already (``sim/README.md`` has six loads). Short of watts, shares of good requests decide."""


def site_limits(power: PowerState, config: SiteConfig, ours: frozenset[GpuId], now_s: float) -> SiteLimits:
    """What the optimiser may spend on the GPUs in ``ours``: everything but the charge of all others.

    Includes what the brake withholds now.
    """
    others = reserve = 0
    workers = config.covers is Covers.WORKERS  # then a free GPU is charged nothing, nor one that others hold
    for node in power.nodes.values():
        parked = fallbacks(node, config, power.share)
        counted = node.covered or (True,) * len(parked)
        for gpu, charge, park, counts in zip(node.cards.gpus, node.charge_mw, parked, counted, strict=True):
            if gpu in ours:
                reserve = max(reserve, 0 if workers else park)
            elif counts:
                others += charge
    unseen = 0 if workers else unseen_mw(power, config)
    budget = gpus_mw(power, config, now_s) + power.brake.off_mw(now_s) - unseen - others
    return SiteLimits(config.site, Milliwatts(max(0, budget)), len(ours), Milliwatts(reserve))


def start_limit(power: PowerState, config: SiteConfig, now_s: float) -> StartLimit | None:
    """On how many more GPUs replicas may ever start at the same time: while those that run are at their lowest caps.

    None where all GPUs are covered: then each GPU's watts are reserved before a replica starts on it.
    """
    if config.covers is Covers.ALL_GPUS:
        return None
    held, each, free = 0, 1, 0
    for node in power.nodes.values():
        parked = fallbacks(node, config, power.share)
        rows = zip(node.cost_mw, parked, node.cards.min_mw, node.held, node.busy, strict=True)
        for cost, park, low, ours, busy in rows:
            held += min(cost, low) if ours else 0
            free += not ours
            # A free GPU will be at its parked cap by then; one that another's pod holds may be left as it stands.
            each = max(each, 0 if ours else cost if busy else min(cost, park))
    room = max(0, gpus_mw(power, config, now_s) - held)
    if power.pledged_gpus >= free:
        # Replicas may start on all of them already: where that is reserved, further ones cost nothing more.
        return StartLimit(free if room // each >= free else 0, each)
    return StartLimit(room // each - power.pledged_gpus if room // each > power.pledged_gpus else 0, each)


def demand(sized: SizedDeployment, counts: Mapping[PoolId, int] | None) -> DeploymentDemand:
    """What a deployment asks of the optimiser: all its options, or what the limiters left of them.

    ``counts`` are the limiters' answer: a pool that stays or shrinks gets exactly its count; one that grows gets up to
    its count, as many as watts and GPUs allow, because the watts of a held pool may be missing elsewhere.
    """
    config = sized.config
    pools = {}
    for name, pool in config.pools.items():
        current = sized.current[name]
        held = sized.hold.counts[name] if sized.hold is not None else None
        span = (pool.min_replicas, pool.max_replicas) if held is None else (held, held)
        if counts is not None:
            span = (min(current, counts[name]) if counts[name] > current else counts[name], counts[name])
        pools[name] = _pool_demand(pool, sized.options.get(name), current, *span)
    interval_s = sized.seen.interval_s if sized.seen is not None else 0.0
    starting = starting_part(max([pool.startup_s for pool in config.pools.values()], default=0.0), interval_s)
    return DeploymentDemand(config.deployment, config.site, pools, config.priority, config.max_gpus, starting)


def starting_part(startup_s: float, interval_s: float) -> float:
    """The part of the time until the next change can help in which replicas that are to start serve nothing.

    The next change is decided an interval later, and serves a start-up time after that.
    """
    return startup_s / (startup_s + max(interval_s, DECIDED_AFTER * startup_s)) if startup_s > 0.0 else 0.0


def _pool_demand(pool: PoolConfig, options: PoolOptions | None, current: int, least: int, most: int) -> PoolDemand:
    arriving: tuple[float, ...] = ()
    prompts: tuple[float, ...] = ()
    if options is None:
        speed, busy, wanted = (FULL_SPEED,) * (most - least + 1), (1.0,) * (most - least + 1), current
    else:
        end = len(options.speed) - 1
        most = max(least, min(most, end))
        speed, wanted = at_counts(options.speed, least, most), options.wanted
        busy = options.utilisation[least : most + 1]
        if len(busy) <= most - least:
            busy = tuple([options.utilisation_at(count) for count in range(least, most + 1)])
        arriving = at_counts(options.arriving, least, most) if options.arriving else ()
        prompts = at_counts(options.prompts, least, most) if options.prompts else ()
    return PoolDemand(
        pool=pool.pool,
        role=pool.role,
        gpus_per_replica=pool.gpus_per_replica,
        current_replicas=current,
        min_replicas=least,
        required_speed=speed,
        utilisation=busy,
        curve=pool.curve,
        wanted=wanted,
        spare_speed=SPEED_RESERVE,
        least_speed=0.0 if options is None else options.least_speed,
        arriving_speed=arriving,
        prompt_speed=prompts,
    )


@dataclass(frozen=True, slots=True)
class SharedSite:
    """One powered site inside a step."""

    config: SiteConfig
    limits: SiteLimits
    deployments: tuple[DeploymentId, ...]
    held: Mapping[Holder, Sequence[GpuId]]
    """GPUs of each pool's living replicas."""
    withheld_mw: Milliwatts = Milliwatts(0)
    """What the brake withholds. It lowers caps within seconds and is released in a minute and a half: a replica given
    up for it would be missing for longer. So counts are chosen without it, and caps with it, as far as all of those
    counts still fit; where they do not, the ledger trims every cap by the same part."""
    starts: StartLimit | None = None
    imagined: SharedSite | None = None
    """The site as it would be if the watched deployments acted too; None if none is watched."""

    @property
    def members(self) -> tuple[DeploymentId, ...]:
        """All deployments that get an answer, watched ones included."""
        return self.deployments if self.imagined is None else self.imagined.deployments

    def answer(self, sized: Sized, counts: Mapping[DeploymentId, Mapping[PoolId, int]]) -> Allocation:
        """``allocate`` for the deployments that act; for watched ones, what they would get if all acted."""
        acting = self.allocate(sized, counts) if self.deployments else Allocation()
        if self.imagined is None:
            return acting
        all_ = self.imagined.allocate(sized, counts)
        watched = {key: grant for key, grant in all_.pools.items() if key[0] not in self.deployments}
        late = {name: share for name, share in all_.shortfall.items() if name not in self.deployments}
        cuts = {name: cut for name, cut in all_.cuts.items() if name not in self.deployments}
        return replace(
            acting,
            pools={**acting.pools, **watched},
            shortfall={**acting.shortfall, **late},
            cuts={**acting.cuts, **cuts},
        )

    def allocate(self, sized: Sized, counts: Mapping[DeploymentId, Mapping[PoolId, int]]) -> Allocation:
        """The optimiser's answer; deployments in ``counts`` get those replicas, or fewer where they grow."""
        demands = [demand(sized[name], counts.get(name)) for name in self.deployments]
        braked = replace(self.limits, budget_mw=Milliwatts(max(0, self.limits.budget_mw - self.withheld_mw)))
        if self.config.shortage is Shortage.PROPORTIONAL:
            return proportional.allocate(demands, braked)
        limits = braked if counts and minimums_fit([d for d in demands if d.pools], braked) else self.limits
        if (easy := settled(demands, limits)) is not None:
            return easy
        return priority_classes.allocate(demands, limits, self.config.weights)


def share_sites(state: PlannerState, config: PlannerConfig, clock: TickClock) -> dict[SiteId, SharedSite]:
    """The sites whose GPUs are known, with what their deployments share."""
    found = {}
    for name, site in config.sites.items():
        if not powered(state, name):
            continue
        members, acting = advisory.members(config, name), advisory.acting(config, name)
        inventory = inventory_of(state.power[name], site, clock.now_s)
        limits = site_limits(state.power[name], site, _ours(inventory, acting), clock.now_s)
        imagined, withheld = None, Milliwatts(state.power[name].brake.off_mw(clock.now_s))
        if acting != members:
            whole = site_limits(state.power[name], site, _ours(inventory, members), clock.now_s)
            if acting:
                # The lowest cap of a watched GPU is its present one; take the parking cap from all others.
                whole = replace(whole, reserve_mw_per_idle_gpu=limits.reserve_mw_per_idle_gpu)
            imagined = SharedSite(site, whole, members, inventory.held, withheld)
        starts = start_limit(state.power[name], site, clock.now_s)
        found[name] = SharedSite(site, limits, acting, inventory.held, withheld, starts, imagined)
    return found


def _ours(inventory: GpuInventory, deployments: Sequence[DeploymentId]) -> frozenset[GpuId]:
    """GPUs that are free or serve one of ``deployments``."""
    ours = {gpu for gpus in inventory.free.values() for gpu in gpus}
    for (deployment, _), gpus in inventory.held.items():
        if deployment in deployments:
            ours.update(gpus)
    return frozenset(ours)


def allocate(sized: Sized, sites: Mapping[SiteId, SharedSite]) -> dict[SiteId, Allocation]:
    """The optimiser's free choice of counts and caps, by site."""
    return {name: site.answer(sized, {}) for name, site in sites.items()}


def gpus_to_spare(sized: Sized, sites: Mapping[SiteId, SharedSite]) -> frozenset[SiteId]:
    """The sites that cannot power what runs, and have GPUs for all replicas that run and all that are wanted."""
    return frozenset(name for name, site in sites.items() if _spares(site, sized))


def _spares(site: SharedSite, sized: Sized) -> bool:
    asked, at_full_mw, parked_mw = 0, 0, site.limits.reserve_mw_per_idle_gpu
    for one in (sized[member] for member in site.members):
        for name, pool in one.config.pools.items():
            wanted = one.options[name].wanted if name in one.options else 0
            asked += max(one.current[name], wanted) * pool.gpus_per_replica
            at_full_mw += one.current[name] * pool.gpus_per_replica * (pool.curve.p_u_mw - parked_mw)
    return asked <= site.limits.gpus and at_full_mw > site.limits.budget_mw - site.limits.gpus * parked_mw


def reallocate(
    sized: Sized, sites: Mapping[SiteId, SharedSite], free: Allocations, limited: LimitedDeployments
) -> dict[SiteId, Allocation]:
    """The best caps for the counts that the limiters left: ``free`` where they changed nothing."""
    return {
        name: free[name]
        if not site.withheld_mw and _unchanged(free[name], site, sized, limited)
        else site.answer(sized, {member: limited[member].counts for member in site.members})
        for name, site in sites.items()
    }


def _unchanged(free: Allocation, site: SharedSite, sized: Sized, limited: LimitedDeployments) -> bool:
    return all(
        (answer := free.pools.get((member, pool))) is not None and answer.replicas == count
        for member in site.members
        for pool, count in limited[member].counts.items()
        if pool in sized[member].config.pools
    )

"""Power inside a step: what a site's deployments may share, the optimiser's answer, and whose GPUs get which cap.

Owns the seam between sizing, the optimiser and the ledger. Must never itself decide that a watt is free: that is the
ledger's word alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from planner.core import placement as placing
from planner.core.allocation.closed_form import plenty, settled
from planner.core.allocation.optimiser.priority_classes import allocate
from planner.core.placement import GpuInventory, Holder
from planner.core.power import site_ledger as ledger
from planner.core.power.cap_changes import answers, fallbacks
from planner.core.power.site_state import PowerState, gpus_mw, unseen_mw
from planner.core.sizing.deployment import SizedDeployment
from planner.core.sizing.options import PoolOptions
from planner.core.state import DeploymentState, PlannerState, PoolGoal
from planner.domain.config import DeploymentConfig, PlannerConfig, PoolConfig, SiteConfig
from planner.domain.demand import Allocation, DeploymentDemand, PoolDemand, PoolGrant, SiteLimits
from planner.domain.ids import DeploymentId, GpuId, PoolId, SiteId
from planner.domain.observation import Observation
from planner.domain.plan import Placement, PowerDecision

FULL_SPEED = 1.0
SPEED_RESERVE = 1.3
"""Caps leave this much speed above what the sized load needs. A cap that just meets the forecast has nothing left for
what comes before the next tick, and a raise waits for watts to settle. At the same attainment (97.8 % of a day and a
half of ServeGen) 1.15 took 113 GPU-h and 104 MJ, 1.3 about 106 and 102, 1.6 97 and 102, no caps 94 and 104. But 1.6
held 40 % more GPUs than 1.3 under a steady load, at lower caps and for no fewer joules: 1.3 is the middle."""


def absorb(state: PlannerState, observation: Observation, config: PlannerConfig, now_s: float) -> PlannerState:
    """Every site's ledger after what was seen."""
    sites = {
        name: ledger.absorb(state.power.get(name) or ledger.initial(site, state.epoch, now_s), observation, site, now_s)
        for name, site in config.sites.items()
    }
    return replace(state, power=sites)


def powered(state: PlannerState, site: SiteId) -> bool:
    """Whether the site's GPUs are known: without them there are counts to decide, and no watts."""
    power = state.power.get(site)
    return power is not None and bool(power.nodes)


def inventory_of(power: PowerState, config: SiteConfig, now_s: float) -> GpuInventory:
    """The site's GPUs as last told. Silence is no reason to think that pods are gone."""
    silent = {name for name, page in power.nodes.items() if not answers(page, config, now_s)}
    return placing.survey([page.seen for page in power.nodes.values() if page.seen is not None], silent)


def site_limits(power: PowerState, config: SiteConfig, ours: frozenset[GpuId], now_s: float) -> SiteLimits:
    """What the optimiser may spend on the GPUs in ``ours``: everything but the charge of all others."""
    others = reserve = 0
    for page in power.nodes.values():
        parked = fallbacks(page, config, power.share)
        for gpu, charge, park in zip(page.cards.gpus, page.charge_mw, parked, strict=True):
            if gpu in ours:
                reserve = max(reserve, park)
            else:
                others += charge
    budget = gpus_mw(power, config, now_s) - unseen_mw(power, config) - others
    return SiteLimits(config.site, max(0, budget), len(ours), reserve)


def demand(
    ticked: SizedDeployment, counts: Mapping[PoolId, int] | None, reserve: float = SPEED_RESERVE
) -> DeploymentDemand:
    """What a deployment asks of the optimiser: all its options, or what the limiters left of them.

    ``counts`` are the limiters' answer: a pool that stays or shrinks gets exactly its count, one that grows gets as
    many as watts and GPUs allow up to it, for the watts of a held pool may be missing elsewhere.
    """
    config = ticked.config
    pools = {}
    for name, pool in config.pools.items():
        current = ticked.current[name]
        held = ticked.hold.counts[name] if ticked.hold is not None else None
        span = (pool.min_replicas, pool.max_replicas) if held is None else (held, held)
        if counts is not None:
            span = (min(current, counts[name]) if counts[name] > current else counts[name], counts[name])
        pools[name] = _pool_demand(pool, ticked.options.get(name), current, *span, reserve)
    return DeploymentDemand(config.deployment, config.site, pools, config.priority, config.max_gpus)


def _pool_demand(
    pool: PoolConfig, options: PoolOptions | None, current: int, least: int, most: int, reserve: float
) -> PoolDemand:
    if options is None:
        speed, busy, wanted = (FULL_SPEED,) * (most - least + 1), (1.0,) * (most - least + 1), current
    else:
        end = len(options.speed) - 1
        most = max(least, min(most, end))
        speed = tuple([_with_reserve(options.speed_at(count), reserve) for count in range(least, most + 1)])
        busy = tuple([options.utilisation_at(count) for count in range(least, most + 1)])
        wanted = options.wanted
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
    )


def _with_reserve(speed: float, reserve: float) -> float:
    """Speed to cap for: never more than full, and a need above full stays what it is."""
    return speed if speed >= FULL_SPEED else min(FULL_SPEED, speed * reserve)


@dataclass(frozen=True, slots=True)
class SharedSite:
    """One powered site inside a step."""

    config: SiteConfig
    limits: SiteLimits
    deployments: tuple[DeploymentId, ...]
    held: Mapping[Holder, Sequence[GpuId]]
    """GPUs of each pool's living replicas."""

    def allocate(
        self, ticks: Mapping[DeploymentId, SizedDeployment], counts: Mapping[DeploymentId, Mapping[PoolId, int]]
    ) -> Allocation:
        """The optimiser's answer; deployments in ``counts`` get those replicas, or fewer where they grow.

        Where watts or GPUs are short nobody keeps a reserve: it would be taken from a stage that has none.
        """
        reserved = self._demands(ticks, counts, SPEED_RESERVE)
        if (easy := settled(reserved, self.limits)) is not None:
            return easy
        # Which question comes first changes no answer, only how often both must be asked.
        if plenty(reserved, self.limits):
            found = self._optimised(reserved)
            if not any(found.shortfall.values()):
                return found
            return self._bare(ticks, counts)
        bare = self._bare(ticks, counts)
        if any(bare.shortfall.values()):
            return bare
        found = self._optimised(reserved)
        return bare if any(found.shortfall.values()) else found

    def _demands(
        self,
        ticks: Mapping[DeploymentId, SizedDeployment],
        counts: Mapping[DeploymentId, Mapping[PoolId, int]],
        reserve: float,
    ) -> list[DeploymentDemand]:
        return [demand(ticks[name], counts.get(name), reserve) for name in self.deployments]

    def _bare(
        self, ticks: Mapping[DeploymentId, SizedDeployment], counts: Mapping[DeploymentId, Mapping[PoolId, int]]
    ) -> Allocation:
        demands = self._demands(ticks, counts, 1.0)
        return settled(demands, self.limits) or self._optimised(demands)

    def _optimised(self, demands: Sequence[DeploymentDemand]) -> Allocation:
        return allocate(demands, self.limits, self.config.weights)


def sites(state: PlannerState, config: PlannerConfig, now_s: float) -> dict[SiteId, SharedSite]:
    """The sites whose GPUs are known, with what their deployments share."""
    found = {}
    for name, site in config.sites.items():
        if not powered(state, name):
            continue
        members = tuple(d for d, deployment in config.deployments.items() if deployment.site == name)
        floor = inventory_of(state.power[name], site, now_s)
        ours = {gpu for gpus in floor.free.values() for gpu in gpus}
        for (deployment, _), gpus in floor.held.items():
            if deployment in members:
                ours.update(gpus)
        found[name] = SharedSite(
            site, site_limits(state.power[name], site, frozenset(ours), now_s), members, floor.held
        )
    return found


def goals(config: DeploymentConfig, allocation: Allocation, counts: Mapping[PoolId, int]) -> Mapping[PoolId, PoolGoal]:
    """What each pool is meant to run, with the cap of its GPUs."""
    found = {}
    for name, pool in config.pools.items():
        answer = allocation.pools.get((config.deployment, name)) or PoolGrant(counts[name], pool.curve.max_mw, 1.0)
        found[name] = PoolGoal(counts[name], answer.cap_mw, answer.speed)
    return found


@dataclass(frozen=True, slots=True)
class Reserved:
    """One deployment's GPUs after the ledger moved: where replicas may start, and how many each pool may have."""

    placements: tuple[Placement, ...]
    counts: Mapping[PoolId, int]
    placed: Mapping[PoolId, int]
    """Replicas that hold GPUs or have GPUs chosen, whether or not their watts are there."""
    patience_s: float
    """How long the rest may be waited for."""


def advance(
    state: PlannerState, config: PlannerConfig, now_s: float
) -> tuple[PlannerState, tuple[PowerDecision, ...], Mapping[DeploymentId, Reserved]]:
    """Give every GPU its cap, send what is safe, and say what is reserved for replicas to come."""
    power = dict(state.power)
    orders: list[PowerDecision] = []
    reserved: dict[DeploymentId, Reserved] = {}
    for name, site in config.sites.items():
        if not powered(state, name):
            continue
        floor = inventory_of(power[name], site, now_s)
        members = [d for d, deployment in config.deployments.items() if deployment.site == name]
        chosen = {d: _chosen(floor, config.deployments[d], state.deployments[d]) for d in members}
        if any(state.deployments[d].goals for d in members):
            power[name] = ledger.want(power[name], _caps(floor, chosen, state.deployments))
        power[name], sent = ledger.advance(power[name], site, now_s)
        orders += sent
        for d in members:
            reserved[d] = _reserved(power[name], site, floor, config.deployments[d], state.deployments[d], chosen[d])
    deployments = dict(state.deployments)
    for d, held in reserved.items():
        known = deployments[d]
        if known.placements != held.placements or known.placed != held.placed:
            deployments[d] = replace(known, placements=held.placements, placed=held.placed)
    return replace(state, power=power, deployments=deployments), tuple(orders), reserved


def _chosen(floor: GpuInventory, config: DeploymentConfig, state: DeploymentState) -> tuple[Placement, ...]:
    """GPUs for the replicas that hold none yet: earlier choices first."""
    earlier = placing.where(state.placements)
    found: list[Placement] = []
    for name, goal in state.goals.items():
        size = config.pools[name].gpus_per_replica
        lacking = goal.replicas - len(floor.held.get((config.deployment, name), ())) // size
        if lacking <= 0:
            continue
        kept = placing.keep(floor, earlier.get(name, ()), lacking)
        found += kept + placing.choose(floor, name, size, lacking - len(kept))
    return tuple(found)


def _caps(
    floor: GpuInventory,
    chosen: Mapping[DeploymentId, Iterable[Placement]],
    deployments: Mapping[DeploymentId, DeploymentState],
) -> dict[GpuId, int]:
    caps: dict[GpuId, int] = {}
    for deployment, placements in chosen.items():
        known = deployments[deployment].goals
        for name, goal in known.items():
            caps.update(dict.fromkeys(floor.held.get((deployment, name), ()), goal.cap_mw))
        for placement in placements:
            caps.update(dict.fromkeys(placement.gpus, known[placement.pool].cap_mw))
    return caps


def _reserved(
    power: PowerState,
    site: SiteConfig,
    floor: GpuInventory,
    config: DeploymentConfig,
    state: DeploymentState,
    chosen: tuple[Placement, ...],
) -> Reserved:
    counts, placed, step_mw = {}, {}, site.smallest_step_mw
    by_pool = placing.where(chosen)
    for name, goal in state.goals.items():
        held = len(floor.held.get((config.deployment, name), ())) // config.pools[name].gpus_per_replica
        proven = [p for p in by_pool.get(name, ()) if ledger.reserved(power, p.gpus, goal.cap_mw, step_mw)]
        counts[name], placed[name] = held + len(proven), held + len(by_pool.get(name, ()))
    return Reserved(chosen, counts, placed, site.patience_s)

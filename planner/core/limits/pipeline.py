"""From the counts that the optimiser chose to the counts that a deployment is meant to run: the limiters, in order."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from planner.core.limits import readiness
from planner.core.limits.bounds import gpu_shares
from planner.core.limits.holds import Hold
from planner.core.limits.limiter import CountsByPool, LimitContext, Limiter, Limits
from planner.core.sizing.deployment import Sized, SizedDeployment
from planner.domain.config import DeploymentConfig
from planner.domain.demand import Allocation, Allocations, StartLimit
from planner.domain.ids import DeploymentId, PoolId, SiteId
from planner.domain.plan import Limited, PowerCut
from planner.domain.reasons import ReasonCode
from planner.domain.units import TickClock


@dataclass(frozen=True, slots=True)
class LimitedCounts:
    """One deployment's counts with their chains.

    ``wanted``: what sizing asked for. ``recommended``: what windows look back on, the counts before any limiter; empty
    for a held deployment.
    """

    counts: Mapping[PoolId, int]
    wanted: Mapping[PoolId, int]
    chains: Mapping[PoolId, tuple[Limited, ...]]
    recommended: Mapping[PoolId, int] = field(default_factory=dict)
    notes: tuple[Limited, ...] = ()
    cut: PowerCut | None = None
    """The published cut to the site's watts, where it was made."""


LimitedDeployments: TypeAlias = Mapping[DeploymentId, LimitedCounts]


def apply_limits(
    sized: Sized,
    free: Allocations,
    clock: TickClock,
    limiters: Sequence[Limiter],
    starts: Mapping[SiteId, StartLimit | None],
    to_spare: Collection[SiteId] = (),
) -> dict[DeploymentId, LimitedCounts]:
    """Every deployment's counts after ``limiters``. A held deployment keeps the counts of its hold.

    ``to_spare``: the sites that are short of watts and not of GPUs.
    """
    return {
        name: _held(one.hold)
        if one.hold is not None
        else _limited(
            one, free.get(one.config.site), clock, limiters, starts.get(one.config.site), one.config.site in to_spare
        )
        for name, one in sized.items()
    }


def _limited(
    sized: SizedDeployment,
    allocation: Allocation | None,
    clock: TickClock,
    limiters: Sequence[Limiter],
    starts: StartLimit | None,
    gpus_to_spare: bool,
) -> LimitedCounts:
    options = {**sized.options, **sized.other_options}
    context = LimitContext(sized.config.together(), sized.state, options, sized.current, clock, starts, gpus_to_spare)
    wanted = _woken(sized, CountsByPool({name: Limits(o.wanted, o.chain) for name, o in options.items()}))
    recommended = _allocated(context, wanted, allocation)
    counts = recommended
    for limiter in limiters:
        counts = limiter(context, counts)
    return LimitedCounts(
        counts=counts.values,
        wanted=wanted.values,
        chains={name: limits.chain for name, limits in counts.pools.items()},
        recommended=recommended.values,
        notes=readiness.timeout_note(sized.state.flow, sized.config, clock.now_s),
        cut=allocation.cuts.get(sized.config.deployment) if allocation is not None else None,
    )


def _held(hold: Hold) -> LimitedCounts:
    chains = {name: (Limited(count, hold.reason, hold.sentence),) for name, count in hold.counts.items()}
    return LimitedCounts(hold.counts, hold.counts, chains)


def _woken(sized: SizedDeployment, wanted: CountsByPool) -> CountsByPool:
    """Record SCALE_FROM_ZERO for a deployment that wakes from zero replicas."""
    counts = wanted.values
    if any(sized.current.values()) or not any(counts.values()):
        return wanted
    sentence = "requests came to a deployment that slept at zero"
    return wanted.then(
        {name: Limited(max(1, count), ReasonCode.SCALE_FROM_ZERO, sentence) for name, count in counts.items()}
    )


def _allocated(context: LimitContext, wanted: CountsByPool, allocation: Allocation | None) -> CountsByPool:
    """The optimiser's counts. Where none runs, its one constraint without watts: the GPU budget."""
    if allocation is None:
        return wanted.then(gpu_shares(context.config, wanted.values, {}))
    found = {}
    for name, limits in wanted.pools.items():
        answer = allocation.pools.get((context.config.deployment, name))
        if answer is None or answer.replicas == limits.count:
            found[name] = limits
            continue
        links = answer.chain or (
            Limited(answer.replicas, ReasonCode.POWER_BUDGET, f"{answer.replicas} replicas at their caps cost least"),
        )
        found[name] = Limits(answer.replicas, limits.chain + links)
    return CountsByPool(found)


def shorten(sized: Sized, limited: LimitedDeployments, final: Allocations) -> LimitedDeployments:
    """The counts after the optimiser's second answer: fewer where the site cannot power them, never below a minimum."""
    return {
        name: _shortened(one, final[sized[name].config.site], sized[name].config)
        if sized[name].config.site in final
        else one
        for name, one in limited.items()
    }


def _shortened(limited: LimitedCounts, allocation: Allocation, config: DeploymentConfig) -> LimitedCounts:
    counts, chains = dict(limited.counts), dict(limited.chains)
    for name, count in limited.counts.items():
        answer = allocation.pools.get((config.deployment, name))
        if answer is None or answer.replicas >= count or count <= config.pools[name].min_replicas:
            continue
        counts[name] = max(answer.replicas, config.pools[name].min_replicas)
        sentence = f"{answer.replicas} are what the site's watts and GPUs carry now"
        links = answer.chain or (Limited(answer.replicas, ReasonCode.POWER_BUDGET, sentence),)
        chains[name] = (*chains[name], *links)
    return replace(limited, counts=counts, chains=chains, cut=limited.cut or allocation.cuts.get(config.deployment))

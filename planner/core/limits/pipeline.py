"""From what a deployment wants to the counts it is meant to run: holds, windows, rates, bounds, GPU budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from planner.core.limits import bounds, pool_limits, readiness
from planner.core.limits.holds import Hold
from planner.core.limits.pool_limits import Limits
from planner.core.sizing.deployment import SizedDeployment
from planner.domain.config import DeploymentConfig
from planner.domain.demand import Allocation
from planner.domain.ids import PoolId
from planner.domain.plan import Limited
from planner.domain.reasons import ReasonCode


@dataclass(frozen=True, slots=True)
class LimitedCounts:
    """Counts with their chains. ``recommended`` is what the windows remember: counts before they and the rates act."""

    counts: Mapping[PoolId, int]
    wanted: Mapping[PoolId, int]
    chains: Mapping[PoolId, tuple[Limited, ...]]
    recommended: Mapping[PoolId, int] = field(default_factory=dict)
    notes: tuple[Limited, ...] = ()


def limit_counts(ticked: SizedDeployment, allocation: Allocation | None, now_s: float, t_s: float) -> LimitedCounts:
    """The counts to aim at. ``allocation``: the optimiser's free choice, None where power is not managed."""
    if ticked.hold is not None:
        return _held(ticked.hold)
    wanted = _woken(ticked, {name: Limits(o.wanted, o.chain) for name, o in ticked.options.items()})
    recommended = _allocated(ticked, wanted, allocation)
    limited = _limited(ticked, recommended, t_s)
    blocked = readiness.blocked(ticked.state, ticked.config, now_s)
    if blocked is not None:
        limited = {name: _wait(limit, ticked.current[name], blocked) for name, limit in limited.items()}
    return LimitedCounts(
        counts={name: limit.count for name, limit in limited.items()},
        wanted={name: limit.count for name, limit in wanted.items()},
        chains={name: limit.chain for name, limit in limited.items()},
        recommended={name: limit.count for name, limit in recommended.items()},
        notes=_timeout_note(ticked, now_s),
    )


def _woken(ticked: SizedDeployment, wanted: dict[PoolId, Limits]) -> dict[PoolId, Limits]:
    """Says so where a deployment that slept is needed again."""
    if any(ticked.current.values()) or not any(limit.count for limit in wanted.values()):
        return wanted
    sentence = "requests came to a deployment that slept at zero"
    return {
        name: pool_limits.held(limit, max(1, limit.count), ReasonCode.SCALE_FROM_ZERO, sentence)
        for name, limit in wanted.items()
    }


def shortened(granted: LimitedCounts, allocation: Allocation, config: DeploymentConfig) -> LimitedCounts:
    """After the optimiser's second word: for want of watts or GPUs a pool may get less, but not below its floor."""
    counts, chains = dict(granted.counts), dict(granted.chains)
    for name, count in granted.counts.items():
        answer = allocation.pools.get((config.deployment, name))
        if answer is None or answer.replicas >= count or count <= config.pools[name].min_replicas:
            continue
        counts[name] = max(answer.replicas, config.pools[name].min_replicas)
        sentence = f"{answer.replicas} are what the site's watts and GPUs carry now"
        chains[name] = (
            *chains[name],
            *(answer.chain or (Limited(answer.replicas, ReasonCode.POWER_BUDGET, sentence),)),
        )
    return replace(granted, counts=counts, chains=chains)


def _allocated(
    ticked: SizedDeployment, wanted: Mapping[PoolId, Limits], allocation: Allocation | None
) -> dict[PoolId, Limits]:
    """What the optimiser makes of it under watts and GPUs; without one, the GPU budget alone."""
    if allocation is None:
        shares = bounds.gpu_budget(ticked.config, {name: limit.count for name, limit in wanted.items()})
        return {name: limit.then(shares.get(name)) for name, limit in wanted.items()}
    found = {}
    for name, limit in wanted.items():
        answer = allocation.pools.get((ticked.config.deployment, name))
        if answer is None or answer.replicas == limit.count:
            found[name] = limit
            continue
        links = answer.chain or (
            Limited(answer.replicas, ReasonCode.POWER_BUDGET, f"{answer.replicas} replicas at their caps cost least"),
        )
        found[name] = Limits(answer.replicas, limit.chain + links)
    return found


def _limited(ticked: SizedDeployment, recommended: Mapping[PoolId, Limits], t_s: float) -> dict[PoolId, Limits]:
    config, state, current = ticked.config, ticked.state, ticked.current
    found = {}
    for name, pool in config.pools.items():
        limit = recommended[name]
        limit = limit.then(pool_limits.tolerate(pool, ticked.options[name], current[name], limit.count))
        found[name] = pool_limits.apply(pool, state.pools[name], current[name], limit, t_s)
    found = _together(found)
    shares = bounds.gpu_budget(config, {name: limit.count for name, limit in found.items()}, current)
    return {name: limit.then(shares.get(name)) for name, limit in found.items()}


def _together(found: dict[PoolId, Limits]) -> dict[PoolId, Limits]:
    """No pool stays at zero while another serves: a request needs all of them."""
    if not any(limit.count for limit in found.values()):
        return found
    return {
        name: limit
        if limit.count
        else pool_limits.held(limit, 1, ReasonCode.PARTNER_HELD, "kept while its partner serves")
        for name, limit in found.items()
    }


def _wait(limit: Limits, current: int, blocked: Limited) -> Limits:
    if limit.count == current:
        return limit
    return pool_limits.held(limit, current, ReasonCode.SCALING_IN_PROGRESS, blocked.sentence)


def _held(hold: Hold) -> LimitedCounts:
    chains = {name: (Limited(count, hold.reason, hold.sentence),) for name, count in hold.counts.items()}
    return LimitedCounts(hold.counts, hold.counts, chains)


def _timeout_note(ticked: SizedDeployment, now_s: float) -> tuple[Limited, ...]:
    if not readiness.timed_out(ticked.state, ticked.config, now_s):
        return ()
    waited = now_s - ticked.state.decided_at_s
    sentence = f"decision {ticked.state.decision_id} was not carried out within {waited:.0f} s: going on"
    return (Limited(ticked.state.decision_id, ReasonCode.SCALING_TIMEOUT, sentence),)

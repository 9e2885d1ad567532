"""From what a deployment wants to what it gets: holds, windows, rates, bounds, GPU budget, the decision flow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from planner.core.safety import bounds, flow, limits
from planner.core.safety.limits import Limits
from planner.core.sizing.load import SizedLoad
from planner.core.tick import Ticked
from planner.domain.ids import PoolId
from planner.domain.plan import Limited
from planner.domain.reasons import Reason


@dataclass(frozen=True, slots=True)
class Granted:
    """Counts with their chains. ``recommended`` is what the windows remember: counts before any limit."""

    counts: Mapping[PoolId, int]
    wanted: Mapping[PoolId, int]
    chains: Mapping[PoolId, tuple[Limited, ...]]
    recommended: Mapping[PoolId, int] = field(default_factory=dict)
    blocked: Limited | None = None
    notes: tuple[Limited, ...] = ()

    def reasons(self, current: Mapping[PoolId, int]) -> tuple[Limited, ...]:
        """The last word on each pool that changes: what a decision message carries."""
        return tuple(chain[-1] for name, chain in self.chains.items() if chain and self.counts[name] != current[name])


def grant(ticked: Ticked, now_s: float, t_s: float) -> Granted:
    """The counts that may be published now. Where a decision is under way: its counts."""
    if ticked.hold is not None or ticked.load is None:
        return _held(ticked, ticked.hold, now_s)
    wanted = {name: _wanted(ticked, ticked.load, name) for name in ticked.config.pools}
    limited = _limited(ticked, wanted, t_s)
    blocked = flow.blocked(ticked.state, ticked.config, now_s)
    if blocked is not None:
        limited = {
            name: limit
            if limit.count == ticked.current[name]
            else limits.held(limit, ticked.current[name], Reason.SCALING_IN_PROGRESS, blocked.sentence)
            for name, limit in limited.items()
        }
    return Granted(
        counts={name: limit.count for name, limit in limited.items()},
        wanted={name: limit.count for name, limit in wanted.items()},
        chains={name: limit.chain for name, limit in limited.items()},
        recommended={name: limit.count for name, limit in wanted.items()},
        blocked=blocked,
        notes=_timeout_note(ticked, now_s),
    )


def _wanted(ticked: Ticked, load: SizedLoad, name: PoolId) -> Limits:
    options = ticked.options[name]
    if load.idle and ticked.config.pools[name].min_replicas == 0:
        return Limits(0, (Limited(0, Reason.SLA, "no load: nothing is needed"),))
    wanted = max(1, options.wanted)
    rate = f"{load.req_per_s:.3g} requests/s of {load.isl_tokens:.0f}/{load.osl_tokens:.0f} tokens"
    chain = (*(Limited(wanted, link.reason, link.sentence) for link in options.chain),)
    return Limits(wanted, (*chain, Limited(wanted, Reason.SLA, f"{wanted} {name} replicas serve {rate} in time")))


def _limited(ticked: Ticked, wanted: Mapping[PoolId, Limits], t_s: float) -> dict[PoolId, Limits]:
    config, state, current = ticked.config, ticked.state, ticked.current
    found = {}
    for name, pool in config.pools.items():
        limit = wanted[name].then(limits.tolerate(pool, ticked.options[name], current[name], wanted[name].count))
        found[name] = limits.apply(pool, state.pools[name], current[name], limit, t_s)
    shares = bounds.gpu_budget(config, {name: limit.count for name, limit in found.items()})
    found = {name: limit.then(shares.get(name)) for name, limit in found.items()}
    return _together(found)


def _together(found: dict[PoolId, Limits]) -> dict[PoolId, Limits]:
    """No pool stays at zero while another serves: a request needs all of them."""
    if not any(limit.count for limit in found.values()):
        return found
    return {
        name: limit if limit.count else limits.held(limit, 1, Reason.PARTNER_HELD, "kept while its partner serves")
        for name, limit in found.items()
    }


def _held(ticked: Ticked, hold: Limited | None, now_s: float) -> Granted:
    hold = hold or Limited(0, Reason.METRICS_MISSING, "held: no load was seen yet")
    counts = dict(ticked.current)
    if hold.reason is Reason.PINNED:
        counts |= {name: count for name, count in (ticked.state.pinned or {}).items() if name in counts}
        counts = {name: min(count, ticked.config.pools[name].max_replicas) for name, count in counts.items()}
    chains = {name: (Limited(count, hold.reason, hold.sentence),) for name, count in counts.items()}
    return Granted(counts, dict(counts), chains, blocked=flow.blocked(ticked.state, ticked.config, now_s))


def _timeout_note(ticked: Ticked, now_s: float) -> tuple[Limited, ...]:
    if not flow.timed_out(ticked.state, ticked.config, now_s):
        return ()
    waited = now_s - ticked.state.decided_at_s
    sentence = f"decision {ticked.state.decision_id} was not carried out within {waited:.0f} s: going on"
    return (Limited(ticked.state.decision_id, Reason.SCALING_TIMEOUT, sentence),)

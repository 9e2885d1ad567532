"""Why counts do not follow the load now: a pause, a pin, metrics that are missing, a model that is not ready.

Missing metrics lead to no change; only after ``metrics_timeout_s`` does the configured fall-back apply.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from planner.core.limits import LIMITERS_OF_HELD
from planner.core.limits.limiter import CountsByPool, LimitContext, Limits
from planner.core.sizing.options import PoolOptions
from planner.core.state import DeploymentState
from planner.domain.config import DeploymentConfig, Fallback, OperationMode, SizingMode
from planner.domain.ids import PoolId
from planner.domain.reasons import ReasonCode
from planner.domain.units import TickClock


@dataclass(frozen=True, slots=True)
class Hold:
    """The counts that are kept, and why. ``frozen``: not even the caps of the deployment's GPUs are touched."""

    counts: Mapping[PoolId, int]
    reason: ReasonCode
    sentence: str
    frozen: bool = False


def hold(
    config: DeploymentConfig,
    state: DeploymentState,
    missing: Mapping[str, str],
    options: Mapping[PoolId, PoolOptions],
    current: Mapping[PoolId, int],
    clock: TickClock,
) -> tuple[Hold | None, DeploymentState]:
    """What holds the deployment, with the state that remembers when metrics were last good."""
    lacking = _lacking(config, missing, options)
    if not lacking or state.learned.metrics_at_s is None:
        state = replace(state, learned=replace(state.learned, metrics_at_s=clock.seen_s))
    if config.mode is OperationMode.PAUSED or state.operator.paused:
        return Hold(current, ReasonCode.PAUSED, "the deployment is paused", frozen=True), state
    if state.operator.pinned is not None:
        counts = {**current, **{n: c for n, c in state.operator.pinned.items() if n in current}}
        pinned = _bounded(config, state, counts, clock)
        return Hold(pinned, ReasonCode.PINNED, "an operator pinned the replicas"), state
    if lacking:
        return _without_metrics(config, state, lacking, current, clock), state
    if len(options) < len(config.pools):
        names = ", ".join(sorted(set(config.pools) - set(options)))
        return Hold(current, ReasonCode.MODEL_NOT_READY, f"held: the profile has no model for {names}"), state
    return None, state


def _lacking(
    config: DeploymentConfig, missing: Mapping[str, str], options: Mapping[PoolId, PoolOptions]
) -> Mapping[str, str]:
    """The readings that the mode cannot do without. Thresholds need queue and cache, the other modes the traffic."""
    if config.sizing is SizingMode.LOAD:
        return {f"queue or KV use of {name}": "missing" for name in config.pools if name not in options}
    return missing


def _without_metrics(
    config: DeploymentConfig,
    state: DeploymentState,
    lacking: Mapping[str, str],
    current: Mapping[PoolId, int],
    clock: TickClock,
) -> Hold:
    names = ", ".join(f"{name} ({why})" for name, why in lacking.items())
    since_s = state.learned.metrics_at_s
    gone_s = 0.0 if since_s is None else clock.seen_s - since_s
    if gone_s < config.metrics_timeout_s or config.fallback is Fallback.HOLD:
        return Hold(current, ReasonCode.METRICS_MISSING, f"held: no {names} for {gone_s:.0f} s")
    if config.fallback is Fallback.MAX_SEEN:
        counts = {name: max(count, state.learned.pools[name].most_seen) for name, count in current.items()}
        sentence = f"no {names} for {gone_s:.0f} s: the most replicas ever seen"
    else:
        asked = {name: config.all_pools[name].fallback_replicas for name in current}
        counts = {name: current[name] if count is None else count for name, count in asked.items()}
        sentence = f"no {names} for {gone_s:.0f} s: the fall-back replicas"
    return Hold(_bounded(config, state, counts, clock), ReasonCode.METRICS_FALLBACK, sentence)


def _bounded(
    config: DeploymentConfig, state: DeploymentState, counts: Mapping[PoolId, int], clock: TickClock
) -> Mapping[PoolId, int]:
    """Pinned and fall-back counts, clamped to min/max replicas and the GPU budget."""
    bounded = CountsByPool({name: Limits(count) for name, count in counts.items()})
    context = LimitContext(config.together(), state, options={}, current={}, clock=clock)
    for limiter in LIMITERS_OF_HELD:
        bounded = limiter(context, bounded)
    return bounded.values

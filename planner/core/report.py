"""A tick put into its record: everything that ``wattscale explain`` needs, and nothing it would have to guess."""

from __future__ import annotations

from collections.abc import Mapping

from planner.core.grant import Granted
from planner.core.perf.engine import engine
from planner.core.sizing import decode, prefill
from planner.core.state import DeploymentState
from planner.core.tick import Ticked
from planner.domain.ids import PoolId
from planner.domain.observation import DeploymentObservation
from planner.domain.plan import DeploymentPlan, Limited, PoolPlan
from planner.domain.pool import Role
from planner.domain.reading import Reading, Sample
from planner.domain.reasons import Reason

READINGS = (
    "num_req",
    "isl_tokens",
    "osl_tokens",
    "ttft_ms",
    "itl_ms",
    "ttft_p95_ms",
    "itl_p95_ms",
    "request_duration_s",
    "kv_hit_rate",
    "accept_length",
)


def deployment_plan(ticked: Ticked, granted: Granted, state: DeploymentState) -> DeploymentPlan:
    """The record of one deployment's tick."""
    observed, missing = _readings(ticked.seen)
    ttft, itl = _expected(ticked, granted.counts)
    return DeploymentPlan(
        deployment=ticked.config.deployment,
        pools={name: _pool(ticked, granted, name) for name in ticked.config.pools},
        observed=observed,
        missing={**missing, **ticked.learned.missing},
        forecasts=dict(ticked.learned.forecasts),
        corrections=dict(state.corrections),
        expected_ttft_ms=ttft,
        expected_itl_ms=itl,
        notes=(*granted.notes, *_steady(ticked, granted)),
        ready=state.ready,
    )


def _pool(ticked: Ticked, granted: Granted, name: PoolId) -> PoolPlan:
    options, count = ticked.options.get(name), granted.counts[name]
    busy = options.utilisation[count] if options is not None and count < len(options.utilisation) else None
    return PoolPlan(
        pool=name,
        role=ticked.config.pools[name].role,
        current=ticked.current[name],
        wanted=granted.wanted[name],
        granted=count,
        cap_mw=None,
        chain=granted.chains[name],
        expected_utilisation=busy,
    )


def _readings(seen: DeploymentObservation | None) -> tuple[dict[str, float | None], dict[str, str]]:
    observed: dict[str, float | None] = {}
    missing: dict[str, str] = {}
    if seen is None:
        return observed, missing
    for name in READINGS:
        reading: Reading = getattr(seen, name)
        if isinstance(reading, Sample):
            observed[name] = reading.value
        else:
            missing[name] = reading.reason.value
    return observed, missing


def _expected(ticked: Ticked, counts: Mapping[PoolId, int]) -> tuple[float | None, float | None]:
    """TTFT at the sized quantile and mean ITL that the granted counts should give; None where unknown."""
    load, model = ticked.load, engine(ticked.config.profile)
    if load is None or load.idle:
        return None, None
    ttft = itl = None
    for name, pool in ticked.config.pools.items():
        count = counts[name]
        if count <= 0:
            continue
        if pool.role is not Role.DECODE and model.prefill is not None:
            queue = prefill.station(model.prefill, load, ticked.config.ttft_quantile, 1.0)
            ttft = queue.response_at(count, 1.0)
        if pool.role is not Role.PREFILL and model.decode is not None:
            itl = decode.itl_ms(model.decode, load, count)
    return ttft, itl


def _steady(ticked: Ticked, granted: Granted) -> tuple[Limited, ...]:
    if any(granted.counts[name] != ticked.current[name] for name in ticked.config.pools):
        return ()
    counts = ", ".join(f"{name}={granted.counts[name]}" for name in ticked.config.pools)
    return (Limited(sum(granted.counts.values()), Reason.STEADY, f"No scaling needed ({counts})"),)

"""What a planner that takes the lead remembers of its predecessor's ticks, from the plan records on the bus.

Decisions and acknowledgements come back exactly; forecasts, corrections and the windows that steady a pool come back
by making the recorded observations pass through the same ``step`` once more, on paper. Without records (the stream is
in memory) they are learned anew. Must never bring back a decision: those have their own stream.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from bus_schemas import v1
from planner.adapters import journal
from planner.core.plan import initial_state, step
from planner.core.safety.behavior import horizon_s
from planner.core.state import DeploymentState, PlannerState, PoolState
from planner.domain.config import OperationMode, PlannerConfig
from planner.domain.ids import DeploymentId, PoolId
from planner.domain.observation import Observation
from planner.ports import BusAwayError, Term

log = logging.getLogger(__name__)

TICKS = 20
"""Enough for every light forecaster to have forgotten what came before."""
LONGEST_S = 3600.0
"""The stream keeps no more."""
WITHIN_S = 10.0
"""Sizing waits so long for what earlier ticks taught."""


def span_s(config: PlannerConfig) -> float:
    """How far back records matter, in clock seconds: the longest window of any pool, and some ticks before it."""
    windows = [horizon_s(pool) for each in config.deployments.values() for pool in each.pools.values()]
    return min(LONGEST_S, max(windows, default=0.0) / config.load_time_scale + TICKS * config.interval_s)


async def recall(config: PlannerConfig, term: Term, now: datetime) -> dict[DeploymentId, DeploymentState]:
    """What earlier ticks taught, by deployment; nothing where it can not be read in time. Never raises."""
    found: dict[DeploymentId, DeploymentState] = {}
    try:
        async with asyncio.timeout(WITHIN_S):
            by_name: dict[str, list[v1.PlanRecord]] = {}
            for record in await term.records(now - timedelta(seconds=span_s(config))):
                by_name.setdefault(record.deployment, []).append(record)
            for name in config.deployments:
                old = recalled(config, name, by_name.get(name, ()))
                if old is not None:
                    found[name] = old
                await asyncio.sleep(0)
    except (BusAwayError, TimeoutError) as error:
        log.warning("earlier ticks could not be recalled in time; forecasts begin anew: %s", error)
    except Exception:
        log.exception("earlier ticks could not be recalled; forecasts begin anew")
    return found


def recalled(config: PlannerConfig, name: DeploymentId, records: Sequence[v1.PlanRecord]) -> DeploymentState | None:
    """The deployment's state after its recorded ticks, oldest first; None where no record holds an observation."""
    kept = [(r, journal.observation(r.journal)) for r in records if r.journal and _usable(r.journal)]
    if not kept:
        return None
    deployment = replace(config.deployments[name], mode=OperationMode.ADVISORY)
    # Without sites no watts are asked for: what is wanted does not hang on them.
    paper = replace(config, deployments={name: deployment}, sites={})
    state = initial_state(paper, 0, kept[0][1][0])
    before: v1.PlanRecord | None = None
    before_s = 0.0
    for record, (now_s, seen) in kept:
        known = _told(state.deployments[name], record, before, config.load_now_s(before_s))
        state = replace(state, deployments={name: known})
        state, _ = step(state, Observation({name: seen}), paper, now_s)
        before, before_s = record, now_s
    return state.deployments[name]


def _usable(entry: Mapping[str, Any]) -> bool:
    return entry.get("format") == journal.FORMAT


def _told(
    state: DeploymentState, record: v1.PlanRecord, before: v1.PlanRecord | None, before_t_s: float
) -> DeploymentState:
    """The counts that were in force at a record, and the changes since the one before."""
    pools = dict(state.pools)
    for name, told in record.pools.items():
        pool = pools.get(PoolId(name)) or PoolState()
        earlier = before.pools.get(name) if before is not None else None
        change = told.current - earlier.current if earlier is not None else 0
        events = (*pool.events, (before_t_s, change)) if change else pool.events
        pools[PoolId(name)] = replace(pool, decided=told.current, events=events)
    return replace(state, pools=pools)


def joined(state: PlannerState, name: DeploymentId, old: DeploymentState) -> PlannerState:
    """The state with what was learned before. What was published since, and operators' orders, are left as they are."""
    known = state.deployments[name]
    pools = {
        pool: replace(
            known.pools.get(pool) or PoolState(),
            recommendations=learned.recommendations,
            events=(*learned.events, *(known.pools[pool].events if pool in known.pools else ())),
            most_seen=max(learned.most_seen, known.pools[pool].most_seen if pool in known.pools else 0),
            queued=learned.queued,
        )
        for pool, learned in old.pools.items()
    }
    fresh = replace(
        known,
        pools={**known.pools, **pools},
        forecasts=old.forecasts,
        corrections=old.corrections,
        metrics_at_s=old.metrics_at_s,
    )
    return replace(state, deployments={**state.deployments, name: fresh})

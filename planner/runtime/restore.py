"""What a planner that takes the lead remembers of its predecessor's ticks, from the plan records on the bus.

Decisions and acknowledgements come back exactly from their own streams. Windows and corrections come back from the
newest record, forecasts from the newest record that holds them whole and the observations recorded since. Ticks that
fell between two leaders are read afterwards where the metrics' source keeps the past: all are learned from, and the
last one is decided on, late. Without records (the stream is in memory) all this is learned again. Must never restore a
decision.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from bus_schemas import v1
from planner.adapters import checkpoint, journal, to_wire
from planner.core.forecast.band import Band
from planner.core.intake import warm
from planner.core.sizing import load_forecast
from planner.core.slo import share_controller
from planner.core.state import DeploymentState, PlannerState, PoolState
from planner.core.step import step
from planner.domain.config import OperationMode, PlannerConfig
from planner.domain.ids import DeploymentId
from planner.domain.observation import DeploymentObservation, Observation
from planner.ports import LinkAwayError, Term
from planner.runtime.recorder import CHECKPOINT_TICKS

log = logging.getLogger(__name__)

MISSED_TICKS = 20
"""How many missed ticks are read afterwards; older ones no longer influence the forecast."""
TICKS = CHECKPOINT_TICKS + MISSED_TICKS + 1
"""How far back records are read: after an outage of ``MISSED_TICKS`` a whole record is still among them."""
WITHIN_S = 10.0
"""Longest time in seconds that sizing waits for what is learned from earlier ticks."""
AT_ONCE = 16
"""Deployments whose missed ticks are read at the same time."""
_CLOSE = 1e-6

Reread = Callable[[DeploymentId, float], Awaitable[DeploymentObservation | None]]


async def nothing_kept(_name: DeploymentId, _then_s: float) -> DeploymentObservation | None:
    """For sources that keep no past."""
    return None


@dataclass(frozen=True, slots=True)
class Restored:
    """One deployment's state after its newest record, which was made at ``at_s`` of the planner's clock."""

    state: DeploymentState
    at_s: float


@dataclass(slots=True)
class Restore:
    """``found`` fills while it runs; what was not read in time is missing from it.

    ``first_s``: the first tick that this leader reads itself; earlier ones that have no record are read again.
    """

    config: PlannerConfig
    first_s: float
    reread: Reread = nothing_kept
    found: dict[DeploymentId, DeploymentState] = field(default_factory=dict)
    late: dict[DeploymentId, DeploymentObservation] = field(default_factory=dict)
    """The observation of the last missed tick: decided now, late rather than never."""

    @property
    def late_s(self) -> float:
        """The instant of that tick."""
        return (math.ceil(self.first_s / self.config.interval_s - _CLOSE) - 1) * self.config.interval_s

    async def run(self, term: Term, now_s: float, offset_s: float) -> dict[DeploymentId, DeploymentState]:
        """What was learned from earlier ticks, by deployment. Never raises."""
        try:
            async with asyncio.timeout(WITHIN_S):
                records = await term.records(
                    to_wire.utc(now_s + offset_s) - timedelta(seconds=TICKS * self.config.interval_s)
                )
                await self._all(records)
        except (LinkAwayError, TimeoutError) as error:
            log.warning("not all earlier ticks could be restored in time: %s", error or "out of time")
        except Exception:
            log.exception("earlier ticks could not be restored; forecasts start from nothing")
        return self.found

    async def _all(self, records: Sequence[v1.PlanRecord]) -> None:
        by_name: dict[str, list[v1.PlanRecord]] = {}
        for record in records:
            by_name.setdefault(record.deployment, []).append(record)
        last: dict[DeploymentId, Restored] = {}
        for name in self.config.deployments:
            old = restored(self.config, name, by_name.get(name, ()))
            if old is not None and old.at_s > self.first_s:
                log.warning("ticks of %s were recorded in the future: the clock was set; learning starts again", name)
            elif old is not None:
                last[name], self.found[name] = old, old.state
            await asyncio.sleep(0)
        gate = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            for name, old in last.items():
                tasks.create_task(self._missed(name, old, gate))

    async def _missed(self, name: DeploymentId, old: Restored, gate: asyncio.Semaphore) -> None:
        async with gate:
            for then_s in missed(old.at_s, self.first_s, self.config.interval_s):
                seen = await self.reread(name, then_s)
                if seen is None:
                    continue
                if then_s >= self.late_s - _CLOSE:
                    self.late[name] = seen
                else:
                    self.found[name] = replayed(self.config, name, self.found[name], seen, then_s)


def missed(last_s: float, first_s: float, interval_s: float) -> list[float]:
    """The ticks of the clock's grid after the one at ``last_s`` and before ``first_s``, oldest first."""
    begin, end = math.floor(last_s / interval_s) + 1, math.ceil(first_s / interval_s - _CLOSE)
    return [tick * interval_s for tick in range(max(begin, end - MISSED_TICKS), end)]


def restored(config: PlannerConfig, name: DeploymentId, records: Sequence[v1.PlanRecord]) -> Restored | None:
    """The deployment's state after its recorded ticks, oldest first; None where no record can be read."""
    kept = [record.journal for record in records if record.journal and _usable(record.journal)]
    if not kept:
        return None
    try:
        state, at_s = checkpoint.state(kept[-1]["learned"]), journal.observation(kept[-1])[0]
        return Restored(replace(state, learned=replace(state.learned, forecasts=_forecasts(config, name, kept))), at_s)
    except (checkpoint.NotPlainError, KeyError, TypeError, ValueError) as error:
        log.warning("what was learned from earlier ticks of %s cannot be read: %s", name, error)
        return None


def _usable(entry: Mapping[str, Any]) -> bool:
    return entry.get("format") == journal.FORMAT and "learned" in entry


def _forecasts(config: PlannerConfig, name: DeploymentId, kept: Sequence[Mapping[str, Any]]) -> Mapping[str, Band]:
    """The forecasts last kept whole, or as warm as at the start, after the observations since."""
    bands, since = _whole(config, name, kept)
    for entry in kept[since:]:
        now_s, seen = journal.observation(entry)
        sized_for = share_controller.in_force(config.deployments[name], checkpoint.slo(entry["learned"]))
        bands = load_forecast.learn(config, sized_for, bands, seen, config.load_now_s(now_s)).bands
    return bands


def _whole(
    config: PlannerConfig, name: DeploymentId, kept: Sequence[Mapping[str, Any]]
) -> tuple[Mapping[str, Band], int]:
    """Forecasts kept whole, and the first entry that they have not learned; warm ones where none can be used, because
    the settings are others."""
    for index in range(len(kept) - 1, -1, -1):
        if "bands" not in kept[index]:
            continue
        try:
            bands = checkpoint.bands_back(kept[index]["bands"], config.predictors)
        except checkpoint.NotPlainError as error:
            log.warning("forecasts of %s are learned again from recorded observations: %s", name, error)
            break
        fresh = load_forecast.learn(config, config.deployments[name], {}, None, 0.0).bands
        same = all(quantity in bands and checkpoint.alike(bands[quantity], fresh[quantity]) for quantity in fresh)
        if same:
            return bands, index + 1
        break
    return warm(config, config.deployments[name], journal.observation(kept[0])[0] - config.interval_s), 0


def replayed(
    config: PlannerConfig, name: DeploymentId, known: DeploymentState, seen: DeploymentObservation, then_s: float
) -> DeploymentState:
    """The state after one more observation, without deciding anything."""
    deployment = replace(config.deployments[name], mode=OperationMode.ADVISORY)
    # Without sites no watts are requested: what is wanted does not depend on them.
    paper = replace(config, deployments={name: deployment}, sites={})
    before = PlannerState(0, then_s, {name: known})
    after, _ = step(before, Observation({name: seen}), paper, paper.clock(then_s))
    found = after.deployments[name]
    if found.learned.slo is None or known.learned.slo is None:
        return found
    # Nothing was decided: the counts are those before, and so is what held them.
    stuck = known.learned.slo
    slo = replace(found.learned.slo, stuck_up=stuck.stuck_up, stuck_down=stuck.stuck_down)
    return replace(found, learned=replace(found.learned, slo=slo))


def joined(state: PlannerState, name: DeploymentId, old: DeploymentState, load_time_scale: float) -> PlannerState:
    """The state with what was learned before. What was published since, and operators' orders, are left as they are."""
    known = state.deployments[name]
    decided_s = known.flow.decided_at_s * load_time_scale
    pools = {}
    for pool, was in old.learned.pools.items():
        since = known.learned.pools.get(pool) or PoolState()
        before, now = old.flow.published.get(pool), known.flow.published.get(pool)
        change = None if before is None or now is None else now - before
        pools[pool] = _pool(since, was, change, decided_s)
    fresh = replace(known, learned=replace(old.learned, pools={**known.learned.pools, **pools}))
    return replace(state, deployments={**state.deployments, name: fresh})


def _pool(since: PoolState, was: PoolState, change: int | None, decided_s: float) -> PoolState:
    """One pool's past, restored and since. ``change``: of its published count, for what no recorded event explains."""
    unrecorded = 0 if change is None else change - sum(step for _, step in since.events)
    events = (*was.events, (decided_s, unrecorded)) if unrecorded else was.events
    return replace(was, events=(*events, *since.events), most_seen=max(was.most_seen, since.most_seen))

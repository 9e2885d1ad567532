"""Sends plan records outside the decision loop: hundreds of them must not hold up a reaction."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bus_schemas import v1
from planner.adapters import checkpoint, journal, to_wire
from planner.domain.config import PlannerConfig
from planner.domain.ids import DeploymentId
from planner.domain.plan import DeploymentPlan
from planner.ports import Link
from planner.runtime.decision_event import DecisionEvent
from planner.runtime.telemetry.bus_watch import BusProblem

log = logging.getLogger(__name__)

CHECKPOINT_TICKS = 10
"""Forecasts are stored whole in every Nth record; the records between hold the observations they learned from."""


class Recorder:
    """The recorder of one term. ``put`` takes a decision; ``run`` sends its records."""

    def __init__(
        self,
        link: Link,
        config: PlannerConfig,
        offset_s: Callable[[], float],
        problems: Callable[[], Sequence[BusProblem]] = tuple,
        *,
        keep_journal: bool,
    ) -> None:
        self._problems = problems
        self._link = link
        self._config = config
        self._offset_s = offset_s
        self._keep_journal = keep_journal
        self._plans: dict[DeploymentId, DeploymentPlan] = {}
        self._waiting: asyncio.Queue[DecisionEvent] = asyncio.Queue()
        self._ticks = 0

    def put(self, decided: DecisionEvent) -> None:
        """Record this decision soon."""
        self._waiting.put_nowait(decided)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            decided = await self._waiting.get()
            try:
                for record in self.records(decided):
                    await self._link.record(record)
                    await asyncio.sleep(0)
            except Exception:
                log.exception("a decision could not be recorded")

    def records(self, decided: DecisionEvent) -> Iterator[v1.PlanRecord]:
        """One record per deployment and tick, and one, from its own tick, for a decision that had to wait."""
        plan = decided.plan
        problems = tuple(v1.Reason(code=one.code, text=one.text) for one in self._problems())
        self._plans.update(plan.deployments)
        whole = decided.tick and self._ticks % CHECKPOINT_TICKS == 0
        self._ticks += decided.tick
        late = {order.deployment for order in plan.scaling} & self._plans.keys()
        for name in (*plan.deployments, *sorted(late - plan.deployments.keys())):
            config, known = self._config.deployments[name], decided.state.deployments[name]
            yield to_wire.plan_record(
                self._plans[name],
                config,
                plan.sites.get(config.site),
                decision_id=known.flow.decision_id,
                scaled_decision_id=known.flow.scaled_decision_id,
                at=to_wire.utc(decided.now_s + self._offset_s()),
                journal=self._entry(decided, name, whole=whole),
                problems=problems,
                pin_id=known.operator.pin_id,
                load_time_scale=self._config.load_time_scale,
            )

    def _entry(self, decided: DecisionEvent, name: DeploymentId, *, whole: bool) -> dict[str, Any] | None:
        seen = decided.observation.deployments.get(name)
        if not self._keep_journal or seen is None:
            return None
        known = decided.state.deployments[name]
        entry = journal.entry(seen, decided.tick_s, self._config.interval_s)
        entry["learned"] = checkpoint.learned(known)
        bands = checkpoint.bands(known.learned.forecasts) if whole else None
        return entry if bands is None else {**entry, "bands": bands}

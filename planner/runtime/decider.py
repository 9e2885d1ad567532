"""One term of leadership: observe, decide, publish, record, until the lead is lost.

Owns the planner's state between decisions. Must never publish what a newer state has overtaken without the older
one being settled first: a batch whose answer was lost is sent again, unchanged, until it is stored or the lead is gone.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bus_schemas import v1
from planner.adapters import journal, wire_in, wire_out
from planner.adapters.observe.replicas import holders, with_replicas
from planner.core.plan import initial_state, react, step
from planner.core.power.state import belongs
from planner.core.state import DeploymentState, PlannerState
from planner.domain.config import PlannerConfig
from planner.domain.ids import DeploymentId, NodeId
from planner.domain.observation import DeploymentObservation, Observation
from planner.domain.plan import DeploymentPlan, Plan, SitePlan
from planner.ports import BusAwayError, Clock, Link, LostLead, Past, Term
from planner.runtime.backoff import Backoff
from planner.runtime.cancelling import heed_cancellation
from planner.runtime.inbox import Inbox
from planner.runtime.readings import Reader, Readings
from planner.runtime.recall import joined, recalled, span_s
from planner.runtime.wake import Wake

log = logging.getLogger(__name__)

STALE_NODE_S = 60.0
"""Telemetry older than this no longer says who holds a GPU."""

RECALL_WITHIN_S = 10.0
"""Sizing waits so long for what earlier ticks taught."""
PATIENCE = 10
"""Attempts at one batch, each with retries of its own, before the term is given up."""


@dataclass(frozen=True, slots=True)
class Decided:
    """One decision, for whoever watches: what was seen, what was decided, and why it was looked at."""

    observation: Observation
    plan: Plan
    state: PlannerState
    now_s: float
    tick: bool
    epoch: int
    took_s: float = 0.0
    """Computing time."""
    published: int = 0
    stored_s: float = 0.0
    """How long it took until the decisions were stored; 0 where there were none."""


Watcher = Callable[[Decided], None]


@dataclass(slots=True)
class Surroundings:
    """What outlives a term."""

    config: PlannerConfig
    link: Link
    inbox: Inbox
    wake: Wake
    reader: Reader
    clock: Clock
    clock_offset_s: float = 0.0
    idle_s: float = 1.0
    journal: bool = True
    watchers: list[Watcher] = field(default_factory=list)
    trace: Callable[[Decided], str | None] = lambda decided: None
    """The ``traceparent`` of a decision that is about to be published."""


class Decider:
    """The decision loop of one term."""

    def __init__(self, around: Surroundings, term: Term) -> None:
        self._around = around
        self._term = term
        self._incarnations: dict[str, str] = {}
        self._plans: dict[DeploymentId, DeploymentPlan] = {}
        self._to_record: asyncio.Queue[Decided] = asyncio.Queue()
        self._backoff = Backoff(first_s=0.05, longest_s=5.0)

    async def run(self) -> None:
        """Until LostLead is raised, or cancelled."""
        state = self._resume(await self._term.past())
        recalling = asyncio.create_task(self._recall(), name="recall")
        recording = asyncio.create_task(self._record(), name="record")
        try:
            await self._look(state, recalling)
        finally:
            recalling.cancel()
            recording.cancel()

    async def _look(self, state: PlannerState, recalling: asyncio.Task[dict[DeploymentId, DeploymentState]]) -> None:
        """Decide, publish, wait, for ever. Sizing waits until what was learned before is back; reactions do not."""
        around = self._around
        joining = True
        while True:
            readings = None
            if recalling.done():
                if joining:
                    joining = False
                    for name, old in recalling.result().items():
                        state = joined(state, name, old)
                readings = around.reader.take()
            decided = self._decide(state, readings)
            if decided is None:
                await asyncio.sleep(self._backoff.next_s())
                continue
            self._backoff.reset()
            state = decided.state
            await self._publish(decided)
            await around.wake.wait(self._pause_s(decided.plan))

    async def _recall(self) -> dict[DeploymentId, DeploymentState]:
        """What earlier ticks taught, by deployment; nothing where it can not be read in time."""
        around = self._around
        since = wire_out.utc(around.clock() + around.clock_offset_s - span_s(around.config))
        found: dict[DeploymentId, DeploymentState] = {}
        try:
            async with asyncio.timeout(RECALL_WITHIN_S):
                by_name: dict[str, list[v1.PlanRecord]] = {}
                for record in await self._term.records(since):
                    by_name.setdefault(record.deployment, []).append(record)
                for name in around.config.deployments:
                    old = recalled(around.config, name, by_name.get(name, ()))
                    if old is not None:
                        found[name] = old
                    await asyncio.sleep(0)
        except (BusAwayError, TimeoutError) as error:
            log.warning("earlier ticks could not be recalled in time; forecasts begin anew: %s", error)
        except Exception:
            log.exception("earlier ticks could not be recalled; forecasts begin anew")
        around.wake.now()
        return found

    def _pause_s(self, plan: Plan) -> float:
        if plan.next_event_s is None:
            return self._around.idle_s
        return min(self._around.idle_s, max(0.0, plan.next_event_s - self._around.clock()))

    def _resume(self, past: Past) -> PlannerState:
        """The state that the streams imply; decisions continue their subjects' ids and incarnations."""
        around = self._around
        acks = {m.deployment: m for m, _ in past.heard if isinstance(m, v1.ScalingAck)}
        for decision in past.scaling:
            self._incarnations[decision.deployment] = decision.incarnation
            around.inbox.expect(DeploymentId(decision.deployment), decision.incarnation)
        for power in past.power:
            self._incarnations[power.node] = power.incarnation
        around.inbox.restart(past.heard)
        offset_s = around.clock_offset_s
        last = [wire_in.last_decision(d, acks.get(d.deployment), clock_offset_s=offset_s) for d in past.scaling]
        caps = [wire_in.stored_caps(decision, clock_offset_s=offset_s) for decision in past.power]
        state = initial_state(around.config, self._term.epoch, around.clock(), last, caps)
        log.info(
            "leading",
            extra={"epoch": self._term.epoch, "decisions": len(past.scaling), "nodes": len(past.power)},
        )
        return state

    def _decide(self, state: PlannerState, readings: Readings | None) -> Decided | None:
        """One step (with readings) or one reaction (without); None when the core failed and nothing changed."""
        around = self._around
        now_s = around.clock()
        observation = around.inbox.take(self._counted(readings))
        began = time.perf_counter()
        try:
            decide = react if readings is None else step
            state, plan = decide(state, observation, around.config, now_s)
        except Exception:
            # The state is a value: nothing of it is lost, and the events are asked about again.
            log.exception("the planner's step failed; nothing was decided")
            around.inbox.put_back(observation)
            return None
        took_s = time.perf_counter() - began
        return Decided(observation, plan, state, now_s, readings is not None, self._term.epoch, took_s)

    def _counted(self, readings: Readings | None) -> dict[DeploymentId, DeploymentObservation]:
        if readings is None:
            return {}
        inbox, config = self._around.inbox, self._around.config
        held = holders(inbox.fresh_nodes(STALE_NODE_S))
        return {
            name: with_replicas(seen, name, config.deployments[name].pools, held, inbox.acked_replicas(name))
            for name, seen in readings.items()
            if name in config.deployments
        }

    async def _publish(self, decided: Decided) -> None:
        around = self._around
        messages = self._messages(decided)
        if messages:
            began = time.perf_counter()
            await self._until_stored(messages, around.trace(decided))
            decided = replace(decided, published=len(messages), stored_s=time.perf_counter() - began)
        self._tell(decided)
        self._to_record.put_nowait(decided)

    async def _record(self) -> None:
        """Plan records, beside the decisions: hundreds of them must not hold a reaction up."""
        while True:
            decided = await self._to_record.get()
            try:
                for record in self._records(decided):
                    await self._around.link.record(record)
                    await asyncio.sleep(0)
            except Exception:
                log.exception("a decision could not be recorded")

    async def _until_stored(self, messages: Sequence[v1.Message], traceparent: str | None) -> None:
        """The same batch until it is stored. A bus that refuses for good ends the term; the next reads the truth."""
        for _ in range(PATIENCE):
            try:
                await self._term.publish(messages, traceparent)
            except BusAwayError as error:
                heed_cancellation()
                pause_s = self._backoff.next_s()
                log.warning("the bus did not answer; the same decisions go out again in %.2f s: %s", pause_s, error)
                await asyncio.sleep(pause_s)
            else:
                self._backoff.reset()
                return
        raise LostLead(f"{len(messages)} decisions were not stored in {PATIENCE} attempts; beginning again")

    def _tell(self, decided: Decided) -> None:
        for watcher in self._around.watchers:
            try:
                watcher(decided)
            except Exception:
                # A view that fails must not take the decisions with it.
                log.exception("a watcher of decisions failed")

    def _messages(self, decided: Decided) -> list[v1.Message]:
        """Power first (lowers before raises, as the plan orders them), then scaling: safe at every prefix."""
        around, plan = self._around, decided.plan
        at = wire_out.utc(decided.now_s + around.clock_offset_s)
        epoch = self._term.epoch
        messages: list[v1.Message] = [
            wire_out.power_decision(
                order,
                self._site_of(order.node, plan),
                epoch=epoch,
                incarnation=self._incarnation(order.node),
                at=at,
            )
            for order in plan.power
        ]
        for scaling in plan.scaling:
            incarnation = self._incarnation(scaling.deployment)
            around.inbox.expect(scaling.deployment, incarnation)
            config = around.config.deployments[scaling.deployment]
            messages.append(wire_out.scaling_decision(scaling, config, epoch=epoch, incarnation=incarnation, at=at))
        return messages

    def _site_of(self, node: NodeId, plan: Plan) -> SitePlan | None:
        sites = self._around.config.sites.items()
        return next((plan.sites.get(name) for name, config in sites if belongs(node, config)), None)

    def _incarnation(self, name: str) -> str:
        return self._incarnations.setdefault(name, uuid.uuid4().hex)

    def _records(self, decided: Decided) -> Iterator[v1.PlanRecord]:
        """One record a deployment and tick; and one, from the tick that wanted it, for a decision that had to wait."""
        around, plan = self._around, decided.plan
        self._plans.update(plan.deployments)
        late = {order.deployment for order in plan.scaling} & self._plans.keys()
        for name in (*plan.deployments, *sorted(late - plan.deployments.keys())):
            config, known = around.config.deployments[name], decided.state.deployments[name]
            yield wire_out.plan_record(
                self._plans[name],
                config,
                plan.sites.get(config.site),
                decision_id=known.decision_id,
                scaled_decision_id=known.scaled_decision_id,
                at=wire_out.utc(decided.now_s + around.clock_offset_s),
                journal=self._journal(decided, name),
            )

    def _journal(self, decided: Decided, name: DeploymentId) -> dict[str, Any] | None:
        seen = decided.observation.deployments.get(name)
        if not self._around.journal or seen is None:
            return None
        return journal.entry(seen, decided.now_s, self._around.config.interval_s)

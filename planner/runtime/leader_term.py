"""One term of leadership: observe, decide, publish, record, until the lead is lost.

Owns the planner's state between decisions, and when to decide. Must never let sizing, reading or recording hold up a
reaction: an acknowledgement, a budget and a timer are answered at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeAlias

from bus_schemas import v1
from bus_schemas.jetstream.tasks.backoff import Backoff
from planner.adapters import from_wire, to_wire
from planner.adapters.metrics.replica_counts import holders, with_replicas
from planner.core.intake import initial_state
from planner.core.power_off import release
from planner.core.state import DeploymentState, PlannerState
from planner.core.step import react, step
from planner.domain.config import PlannerConfig
from planner.domain.ids import DeploymentId, NodeId
from planner.domain.observation import DeploymentObservation
from planner.domain.plan import Plan
from planner.ports import Clock, Link, StoredHistory, Term
from planner.runtime.decision_event import DecisionEvent, Watcher
from planner.runtime.decision_publisher import DecisionPublisher
from planner.runtime.inbox import Inbox
from planner.runtime.metrics_ticker import MetricsTicker, Readings
from planner.runtime.recorder import Recorder
from planner.runtime.restore import Restore, joined
from planner.runtime.telemetry.bus_watch import BusProblem
from planner.runtime.wakeup import Wakeup

log = logging.getLogger(__name__)

STALE_NODE_S = 60.0
"""Telemetry older than this no longer shows who holds a GPU."""

Restoring: TypeAlias = asyncio.Task[dict[DeploymentId, DeploymentState]]


@dataclass(slots=True)
class Surroundings:
    """What a term shares with those before and after it."""

    config: PlannerConfig
    link: Link
    inbox: Inbox
    wake: Wakeup
    reader: MetricsTicker
    clock: Clock
    clock_offset_s: float = 0.0
    moved_s: Callable[[], float] = lambda: 0.0
    """How far UTC has been set since the clock began, in seconds, beyond ``clock_offset_s``."""
    idle_s: float = 1.0
    journal: bool = True
    watchers: list[Watcher] = field(default_factory=list)
    trace: Callable[[DecisionEvent], str | None] = lambda decided: None
    """The ``traceparent`` of a decision that is about to be published."""
    published: Callable[[Sequence[v1.Message], Sequence[int]], None] = lambda messages, places: None
    """Told what the bus has stored, with the places in the stream; these are empty where they are not known."""
    problems: Callable[[], Sequence[BusProblem]] = tuple
    """Problems that this planner sees around it."""
    followed_s: float = 0.0
    """The part of ``moved_s`` that is in ``clock_offset_s`` already."""

    def follow_utc(self) -> None:
        """After the wall clock was set: schedules and the wire use the new UTC, nothing else changes."""
        step_s = self.moved_s() - self.followed_s
        if not step_s:
            return
        log.warning("the wall clock was set by %+.1f s: schedules follow it, leases and windows do not", step_s)
        self.followed_s += step_s
        self.clock_offset_s += step_s
        self.inbox.offset_s = self.clock_offset_s
        sites = {n: replace(s, utc_at_zero_s=s.utc_at_zero_s + step_s) for n, s in self.config.sites.items()}
        self.config = replace(self.config, sites=sites, utc_at_zero_s=self.config.utc_at_zero_s + step_s)


class LeaderTerm:
    """The decision loop of one term."""

    def __init__(self, around: Surroundings, term: Term) -> None:
        self._around = around
        self._term = term
        self._backoff = Backoff(first_s=0.05, longest_s=5.0)

    async def run(self) -> None:
        """Until TermEndedError is raised, or cancelled."""
        self._around.inbox.begin()
        try:
            past = await self._term.past()
            found = ((self._around.inbox.plausible(message), sequence) for message, sequence in past.last_messages)
            kept = tuple((message, sequence) for message, sequence in found if message is not None)
            await self._lead(replace(past, last_messages=kept))
        finally:
            self._around.inbox.rest()

    async def _lead(self, past: StoredHistory) -> None:
        around = self._around
        around.follow_utc()
        publisher = DecisionPublisher(self._term, around.config, past, around.inbox.expect, around.inbox.expect_power)
        state = self._resume(past)
        if around.config.release_caps:
            await self._release(past, publisher)
        recorder = Recorder(
            around.link, around.config, lambda: around.clock_offset_s, around.problems, keep_journal=around.journal
        )
        now_s = around.clock()
        restore = Restore(around.config, around.reader.first_s or now_s, self._reread)
        restoring = asyncio.create_task(restore.run(self._term, now_s, around.clock_offset_s), name="restore")
        restoring.add_done_callback(lambda _: around.wake.now())
        recording = asyncio.create_task(recorder.run(), name="record")
        try:
            await self._iterate(state, publisher, recorder, restore, restoring)
        finally:
            restoring.cancel()
            recording.cancel()

    async def _release(self, past: StoredHistory, publisher: DecisionPublisher) -> None:
        """Power is off: lift the caps that earlier decisions set."""
        around = self._around
        now_s, offset_s = around.clock(), around.clock_offset_s
        reports = [m for m, _ in past.last_messages if isinstance(m, v1.NodeTelemetry)]
        nodes = {NodeId(m.node): from_wire.node(m, age_s=0.0) for m in reports}
        stored = [from_wire.stored_caps(decision, clock_offset_s=offset_s) for decision in past.power]
        orders = release(stored, nodes)
        if orders:
            log.warning("power is off: the caps of %d nodes are lifted", len(orders))
            messages = publisher.messages(Plan(power=orders), self._utc(now_s))
            around.published(messages, await publisher.write(messages, None))

    async def _iterate(
        self,
        state: PlannerState,
        publisher: DecisionPublisher,
        recorder: Recorder,
        restore: Restore,
        restoring: Restoring,
    ) -> None:
        """Decide, publish and wait, until cancelled. Sizing waits for what was learned before; reactions do not."""
        around = self._around
        joining = True
        while True:
            around.follow_utc()
            readings: Readings | None = None
            seen_s: float | None = None
            if restoring.done():
                if joining:
                    joining = False
                    for name, old in restoring.result().items():
                        state = joined(state, name, old, around.config.load_time_scale)
                if restore.late:
                    readings, seen_s, restore.late = restore.late, restore.late_s, {}
                else:
                    readings = around.reader.take()
            decided = await self._decide(state, readings, seen_s)
            if decided is None:
                await asyncio.sleep(self._backoff.next_s())
                continue
            self._backoff.reset()
            state = decided.state
            decided = await self._publish(decided, publisher)
            self._notify_watchers(decided)
            recorder.put(decided)
            await around.wake.wait(self._pause_s(decided.plan))

    async def _reread(self, name: DeploymentId, then_s: float) -> DeploymentObservation | None:
        """A tick that fell between two leaders, with the present replicas: no decision was made since."""
        seen = await self._around.reader.reread(name, then_s)
        return None if seen is None else self._counted({name: seen})[name]

    def _utc(self, now_s: float) -> datetime:
        return to_wire.utc(now_s + self._around.clock_offset_s)

    def _pause_s(self, plan: Plan) -> float:
        if plan.next_event_s is None:
            return self._around.idle_s
        return min(self._around.idle_s, max(0.0, plan.next_event_s - self._around.clock()))

    def _resume(self, past: StoredHistory) -> PlannerState:
        """The state that the streams imply."""
        around = self._around
        around.inbox.restart(past.last_messages)
        acks = {m.deployment: m for m, _ in past.last_messages if isinstance(m, v1.ScalingAck)}
        offset_s = around.clock_offset_s
        now_s = around.clock()
        stored = [from_wire.last_decision(d, acks.get(d.deployment), clock_offset_s=offset_s) for d in past.scaling]
        # One that seems to come from the future was written before the wall clock was set back.
        last = [(name, replace(flow, decided_at_s=min(flow.decided_at_s, now_s))) for name, flow in stored]
        caps = [from_wire.stored_caps(decision, clock_offset_s=offset_s) for decision in past.power]
        if past.doubt:
            log.warning("the bus may have been restored from an old copy: %s; what it holds is not trusted", past.doubt)
        state = initial_state(around.config, self._term.epoch, now_s, last, caps, doubted=past.doubt != "")
        log.info(
            "leading",
            extra={"epoch": self._term.epoch, "decisions": len(past.scaling), "nodes": len(past.power)},
        )
        return state

    async def _decide(
        self, state: PlannerState, readings: Readings | None, seen_s: float | None = None
    ) -> DecisionEvent | None:
        """One step (with readings) or one reaction (without); None when the core failed and nothing changed."""
        around = self._around
        now_s = around.clock()
        observation = around.inbox.take(self._counted(readings))
        began = time.perf_counter()
        try:
            if readings is None:
                state, plan = react(state, observation, around.config, around.config.clock(now_s))
            else:
                # Outside the event loop: a tick of hundreds of deployments must not delay the renewal of the lease.
                clock = around.config.clock(now_s, seen_s)
                state, plan = await asyncio.to_thread(step, state, observation, around.config, clock)
        except Exception:
            # The state is a value, so nothing of it is lost, and the events are handled again.
            log.exception("the planner's step failed; nothing was decided")
            around.inbox.put_back(observation)
            return None
        took_s = time.perf_counter() - began
        tick = readings is not None
        return DecisionEvent(
            observation,
            plan,
            state,
            now_s,
            tick,
            self._term.epoch,
            took_s,
            seen_s=seen_s,
            read_ns=around.reader.read_ns if tick and seen_s is None else None,
        )

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

    async def _publish(self, decided: DecisionEvent, publisher: DecisionPublisher) -> DecisionEvent:
        publisher.renew_incarnations(decided.observation.power_acks)
        messages = publisher.messages(decided.plan, self._utc(decided.now_s))
        if not messages:
            return decided
        began = time.perf_counter()
        self._around.published(messages, await publisher.write(messages, self._around.trace(decided)))
        return replace(decided, published=len(messages), stored_s=time.perf_counter() - began)

    def _notify_watchers(self, decided: DecisionEvent) -> None:
        for watcher in self._around.watchers:
            try:
                watcher(decided)
            except Exception:
                # A view that fails must not stop the decisions.
                log.exception("a watcher of decisions failed")

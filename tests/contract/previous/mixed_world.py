"""The proof's world with processes of two releases: today's code, and on the wire only what the previous contract has.

A process of the previous release sends no field that its contract lacks, and sees none; its agents also report before
their pods could be read, as they did. The checker is the proof's own.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from random import Random

from agent.adapters.messages import decision_of
from bus_schemas import codec, v1
from deploy.fault_simulation import proof_run
from deploy.fault_simulation.agent_process import AgentProcess
from deploy.fault_simulation.checker import Failure
from deploy.fault_simulation.faults import Faults
from deploy.fault_simulation.mutations import mutated
from deploy.fault_simulation.planner_process import PlannerProcess
from deploy.fault_simulation.simulated_bus import Batch, SimulatedMessage
from deploy.fault_simulation.world import World
from planner.adapters import to_wire
from planner.domain.config import Covers
from planner.domain.observation import StoredCaps
from planner.domain.plan import PowerDecision
from tests.contract.previous.previous_contract import as_read_before

AT = datetime(2026, 1, 2, tzinfo=UTC)
REPLACED_S = (1.0, 4.0)
"""From the end of a pod to the start of its successor on the same node."""
BETWEEN_S = (4.0, 15.0)
"""From one pod's replacement to the next one's."""


def wire_body(order: PowerDecision, epoch: int, incarnation: str) -> bytes:
    """A decision as a planner of today writes it."""
    return codec.encode(to_wire.power_decision(order, None, epoch=epoch, incarnation=incarnation, at=AT))


def as_written_before(order: PowerDecision) -> PowerDecision:
    """A decision without what the previous contract cannot state."""
    caps = tuple([cap._replace(highest_mw=None, outside=False) for cap in order.caps])
    return replace(order, caps=caps, released=())


class MixedAgent(AgentProcess):
    """An agent of one of the two releases: of which one, is asked when it starts."""

    next_previous = True
    previous = True

    def start(self) -> None:
        self.previous = self.next_previous
        self.counts["agent of before started" if self.previous else "agent of today started"] += 1
        super().start()

    def on_decision(self, message: tuple[int, SimulatedMessage]) -> None:
        if self.previous:
            generation, stored = message
            message = (generation, replace(stored, order=_read_before(stored)))
        super().on_decision(message)

    def _reportable(self) -> bool:
        return self.previous or super()._reportable()


def _read_before(stored: SimulatedMessage) -> PowerDecision:
    """What an agent of the previous release makes of a stored decision: through JSON, by its published contract."""
    body = json.loads(wire_body(stored.order, stored.epoch, stored.incarnation))
    seen = decision_of(codec.decode_as(v1.PowerDecision, json.dumps(as_read_before(body)).encode()))
    order = as_written_before(stored.order)
    plain = decision_of(codec.decode_as(v1.PowerDecision, wire_body(order, stored.epoch, stored.incarnation)))
    assert seen == plain
    return order


class MixedPlanner(PlannerProcess):
    """A planner of one of the two releases."""

    next_previous = True
    previous = True

    def start(self) -> None:
        self.previous = self.next_previous
        self.counts["planner of before started" if self.previous else "planner of today started"] += 1
        super().start()

    def at_bus(self, message: tuple[int, Batch]) -> None:
        generation, batch = message
        if self.previous:
            batch = replace(batch, orders=tuple([as_written_before(order) for order in batch.orders]))
            self.counts["decision of before"] += len(batch.orders)
        super().at_bus((generation, batch))

    def _stored(self, stored: SimulatedMessage) -> StoredCaps:
        read = super()._stored(stored)
        return replace(read, highest_mw={}, outside=frozenset()) if self.previous else read


class MixedWorld(World):
    """A world whose processes all begin with the previous release."""

    agents: list[MixedAgent]  # type: ignore[assignment]
    planners: list[MixedPlanner]  # type: ignore[assignment]

    def _agent(self, rng: Random, index: int) -> AgentProcess:
        cards = [card for card in self.cards if card.node == index]
        agent = MixedAgent(index, cards, self.site, Random(rng.random()))
        agent.reports = self._to_planners
        return agent

    def _planner(self, rng: Random, index: int, *, strict: bool) -> PlannerProcess:
        planner = MixedPlanner(index, self.site, Random(rng.random()), self._is_broken)
        planner.delivered = self._to_nodes  # type: ignore[method-assign]
        planner.strict = strict
        return planner


class RollingUpgrade:
    """Replaces processes one after the other, as Kubernetes replaces pods: each ends before its successor starts.

    ``order``: steps such as ``agents``, ``planners`` and, for a rollback, ``agents back`` or ``planners back``.
    """

    def __init__(self, world: MixedWorld, order: Sequence[str], seed: str) -> None:
        self.world, self.rng, self.done = world, Random(f"rolling {seed}"), 0
        parties: dict[str, Sequence[MixedAgent | MixedPlanner]] = {"agents": world.agents, "planners": world.planners}
        self.steps = deque([(party, "back" in step) for step in order for party in parties[step.split()[0]]])

    def start(self) -> None:
        self.world.timeline.after(self.rng.uniform(*BETWEEN_S), self.replace_one)

    def replace_one(self, _: object) -> None:
        """End one process; the next one is replaced only after this one is back."""
        if not self.steps:
            return
        party, back = self.steps.popleft()
        party.next_previous = back
        if party.up:
            party.crash()
        self.world.timeline.after(self.rng.uniform(*REPLACED_S), self.started, party)

    def started(self, party: MixedAgent | MixedPlanner) -> None:
        """Its successor; a machine that is off, or a process that a fault ended, comes back by itself."""
        if not party.up and getattr(party, "powered", True):
            party.start()
        self.done += 1
        self.start()


@dataclass(frozen=True)
class MixedOutcome:
    """What one rolling upgrade under faults came to. ``steps_left``: replacements that were still to come."""

    failure: Failure | None
    counts: dict[str, int]
    steps_left: int
    trace: tuple[str, ...]


def upgraded(
    seed: str, order: Sequence[str], covers: Covers, mutation: str | None = None, *, planners_previous: bool = True
) -> MixedOutcome:
    """One world under its seed's faults, through all steps of the order and the calm after them."""
    with mutated(mutation):
        world = MixedWorld(seed, mutation, covers)
        for planner in world.planners:
            planner.next_previous = planners_previous
        faults, rolling = Faults(world, frozenset(), None), RollingUpgrade(world, order, seed)
        world.start()
        faults.start()
        rolling.start()
        failure, trace = None, deque[proof_run.Step]()
        while failure is None and rolling.steps:
            _, failure, trace = proof_run._loop(world, 500)
        if failure is None:
            failure, trace = proof_run._calm(world, faults)
    lines = tuple(proof_run._trace_line(step) for step in trace) if failure else ()
    return MixedOutcome(failure, dict(world.counts), len(rolling.steps), lines)

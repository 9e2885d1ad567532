"""One run: the parties, the event loop, and the checker after every event."""

from __future__ import annotations

import gc
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from deploy.prove.agent_process import AgentProcess
from deploy.prove.bus import Bus
from deploy.prove.checker import Budget, Checker, Failure, Parties, Statistics
from deploy.prove.faults import Faults
from deploy.prove.hardware import Card
from deploy.prove.mutations import mutated
from deploy.prove.network import Network, Timeline
from deploy.prove.planner_process import PlannerProcess
from deploy.prove.scenario import Scenario, draw
from planner.core.power.state import free_mw
from planner.domain.ids import GpuId
from planner.domain.plan import PowerOrder

TRACE = 400
Step = tuple[float, str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """What is to be run: one line of a shell reproduces it."""

    seed: str
    events: int
    mutation: str | None = None
    without: frozenset[str] = frozenset()
    only: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run."""

    run: Run
    events: int
    virtual_s: float
    wall_s: float
    failure: Failure | None
    counts: dict[str, int]
    statistics: Statistics
    struck: tuple[tuple[int, str], ...]
    trace: tuple[str, ...] = field(default=(), repr=False)
    picture: tuple[str, ...] = field(default=(), repr=False)


class World:
    """All parties of one seed."""

    def __init__(self, run: Run) -> None:
        self.scenario: Scenario = draw(run.seed)
        scenario, config = self.scenario, self.scenario.config
        rng = Random(f"world {run.seed}")
        self.counts: Counter[str] = Counter()
        self.timeline = Timeline()
        self.network = Network(self.timeline, Random(f"network {run.seed}"), self.counts, scenario.loss)
        self.bus = Bus(self.counts, fencing=run.mutation != "fencing-off")
        self.budget = Budget(config.budget_mw)
        self.struck: deque[tuple[int, str]] = deque(maxlen=100_000)
        self.broken: str | None = None
        self.cards = [self._card(rng, node, n) for node in range(scenario.nodes) for n in range(scenario.gpus_per_node)]
        self.agents = [self._agent(rng, index) for index in range(scenario.nodes)]
        self.planners = [self._planner(rng, index, run) for index in range(scenario.planners)]
        self.checker = Checker(
            self.cards,
            self.budget,
            config.margin_mw,
            config.host_overhead_mw_per_node,
            rise_window_s=config.lease_s * 1.02 + 1.0,
            comply_s=15.0,
            clear_s=2.0 * scenario.reconcile_s + 10.0,
            parties=Parties(self._planner_ok, self._node_ok),
        )
        self.faults = Faults(self, run.without, run.only)

    def _card(self, rng: Random, node: int, number: int) -> Card:
        scenario = self.scenario
        clamp = rng.choice((0, 0, 0, 12_345))
        low = scenario.min_mw
        return Card(GpuId(f"GPU-{node}-{number}"), node, scenario.default_mw, low, low + clamp)

    def _agent(self, rng: Random, index: int) -> AgentProcess:
        cards = [card for card in self.cards if card.node == index]
        own = Random(rng.random())
        agent = AgentProcess(index, cards, self.timeline, self.network, self.bus, self.scenario, own, self.counts)
        agent.reports = self._to_planners
        return agent

    def _planner(self, rng: Random, index: int, run: Run) -> PlannerProcess:
        own = Random(rng.random())
        parts = (index, self.timeline, self.network, self.bus, self.scenario, own, self.counts, self._is_broken)
        planner = PlannerProcess(*parts)
        planner.delivered = self._to_nodes  # type: ignore[method-assign]
        # A mutation must be seen by the hardware's sum alone, so the ledger's own checks stay silent then.
        planner.strict = run.mutation is None
        return planner

    def _is_broken(self, sentence: str) -> None:
        self.broken = self.broken or sentence

    def _to_planners(self, kind: str, message: object) -> None:
        for planner in self.planners:
            if planner.up and planner.state is not None:
                handler = planner.on_ack if kind == "ack" else planner.on_telemetry
                self.network.send(planner, handler, (planner.generation, message))

    def _to_nodes(self, orders: tuple[PowerOrder, ...], epoch: int) -> None:
        for order in orders:
            agent = self.agents[int(order.node.rpartition("-")[2])]
            stored = self.bus.decisions[order.node][-1]
            self.network.send(agent, agent.on_decision, (agent.generation, stored))

    def _planner_ok(self, now_s: float, for_s: float) -> bool:
        since = [max(p.ok_since_s, p.led_since_s) for p in self.planners if p.index == self.bus.lease_holder]
        return bool(since) and now_s - since[0] >= for_s

    def _node_ok(self, node: int, now_s: float, for_s: float) -> bool:
        agent = self.agents[node]
        return now_s - agent.ok_since_s >= for_s

    def second(self, _: object) -> None:
        """Once a second: what others raised counts in full where it could have been undone."""
        self.timeline.after(1.0, self.second)
        self.checker.undisturb(self.timeline.now_s)

    def start(self) -> None:
        """Everything is up, every limit at its default. Where nobody says how many GPUs there are, nodes only join."""
        if self.scenario.config.expected_gpus is None:
            for card in self.cards:
                card.lawful_mw = 0
            for agent in self.agents:
                self.checker.switched(agent.index, 0.0, on=True)
        for agent in self.agents:
            agent.start()
        for planner in self.planners:
            planner.start()
        self.faults.start()
        self.timeline.after(1.0, self.second)


def prove(run: Run) -> Outcome:
    """One run, until its events are over or a promise is broken."""
    started = time.perf_counter()
    with mutated(run.mutation):
        world = World(run)
        world.start()
        collecting = gc.isenabled()
        gc.disable()  # frozen values make no cycles; the collector would only walk them
        try:
            count, failure, trace = _loop(world, run.events)
        finally:
            if collecting:
                gc.enable()
    return Outcome(
        run,
        count,
        world.timeline.now_s,
        time.perf_counter() - started,
        failure,
        dict(sorted(world.counts.items())),
        world.checker.statistics,
        tuple(world.struck),
        tuple(_told(step) for step in trace) if failure else (),
        tuple(picture(world)) if failure else (),
    )


def _loop(world: World, events: int) -> tuple[int, Failure | None, deque[Step]]:
    timeline, check = world.timeline, world.checker.check
    trace: deque[Step] = deque(maxlen=TRACE)
    for count in range(1, events + 1):
        handler, argument = timeline.pop()
        trace.append((timeline.now_s, handler, argument))  # type: ignore[arg-type]
        handler(argument)
        failure = check(timeline.now_s)
        if failure is None and world.broken is not None:
            failure = Failure(timeline.now_s, "ledger", world.broken)
        if failure is not None:
            return count, failure, trace
    return events, None, trace


def _told(step: tuple[float, Any, Any]) -> str:
    """One event as a line."""
    time_s, handler, argument = step
    owner = getattr(getattr(handler, "__self__", None), "name", "world")
    text = repr(argument)
    return f"{time_s:12.4f}  {owner:10} {handler.__name__:16} {text[:400]}"


def picture(world: World) -> Iterator[str]:
    """Hardware beside every ledger, for whoever reads a failure."""
    now_s = world.timeline.now_s
    yield f"at {now_s:.4f}: hardware {world.checker.sum_mw} mW, budget {world.budget.at_mw(now_s)} mW"
    for planner in world.planners:
        if planner.state is not None:
            free = free_mw(planner.state, planner.config, planner.clock_s)
            yield f"{planner.name}: epoch {planner.epoch}, free {free} mW, frozen {planner.state.frozen}"
    for card in world.cards:
        agent = world.agents[card.node]
        line = agent.state.lines.get(card.gpu)
        text = f"{card.gpu} set {card.requested_mw} lawful {card.lawful_mw} ceiling {line.ceiling_mw if line else None}"
        text += f" (agent up={agent.up} id={agent.state.decision_id})"
        for planner in world.planners:
            page = planner.state.nodes.get(agent.node) if planner.state is not None else None
            if page is not None and card.gpu in page.cards.gpus:
                at = page.cards.gpus.index(card.gpu)
                sent = [(s.decision_id, s.caps_mw[at]) for s in page.sent]
                over = "  <-- above its charge" if card.requested_mw > page.cost_mw[at] else ""
                text += f" | {planner.name}: proven {page.hardware_mw[at]} sent {sent} acked {page.acked_id}"
                text += f" cost {page.cost_mw[at]}{over}"
        yield text

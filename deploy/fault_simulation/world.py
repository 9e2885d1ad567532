"""The parties of one seed, with the network between them and the checker over them."""

from __future__ import annotations

from collections import Counter
from random import Random

from deploy.fault_simulation.agent_process import AgentProcess
from deploy.fault_simulation.checker import Budget, Checker, Parties
from deploy.fault_simulation.hardware import Card
from deploy.fault_simulation.network import EventQueue, Network
from deploy.fault_simulation.planner_process import PlannerProcess
from deploy.fault_simulation.scenario import FaultScenario, draw
from deploy.fault_simulation.simulated_bus import SimulatedBus
from deploy.fault_simulation.simulated_site import SimulatedConnector, SimulatedSite
from planner.domain.config import Covers
from planner.domain.ids import GpuId
from planner.domain.plan import PowerDecision


class World:
    """All parties of one seed. ``covers``: what the budget covers; ``holds``: whether profilers hold GPUs; None: as the
    seed has it.
    """

    def __init__(
        self, seed: str, mutation: str | None, covers: Covers | None = None, *, holds: bool | None = None
    ) -> None:
        self.scenario: FaultScenario = draw(seed, covers, holds=holds)
        scenario, config = self.scenario, self.scenario.config
        rng = Random(f"world {seed}")
        self.counts: Counter[str] = Counter()
        self.timeline = EventQueue()
        self.network = Network(self.timeline, Random(f"network {seed}"), self.counts, scenario.loss)
        self.bus = SimulatedBus(self.counts, fencing=mutation != "fencing-off")
        self.site = SimulatedSite(self.timeline, self.network, self.bus, scenario, self.counts)
        self.budget = Budget(config.budget_mw)
        self.broken: str | None = None
        self.cards = [self._card(rng, node, n) for node in range(scenario.nodes) for n in range(scenario.gpus_per_node)]
        self.agents = [self._agent(rng, index) for index in range(scenario.nodes)]
        self.planners = [self._planner(rng, index, strict=mutation is None) for index in range(scenario.planners)]
        self.checker = Checker(
            self.cards,
            self.budget,
            config.margin_mw,
            config.host_overhead_mw_per_node,
            rise_window_s=config.lease_s * 1.02 + 1.0,
            comply_s=15.0,
            clear_s=2.0 * scenario.reconcile_s + 10.0,
            parties=Parties(self._planner_ok, self._node_ok),
            workers=scenario.workers,
        )
        self.connector = SimulatedConnector(
            self.cards,
            self.site,
            Random(f"connector {seed}"),
            self._powered,
            self.checker.started,
            self.checker.ended,
        )

    def _powered(self, node: int) -> bool:
        return self.agents[node].powered

    def _card(self, rng: Random, node: int, number: int) -> Card:
        scenario = self.scenario
        clamp = rng.choice((0, 0, 0, 12_345))
        low = scenario.min_mw
        return Card(GpuId(f"GPU-{node}-{number}"), node, scenario.default_mw, low, low + clamp)

    def _agent(self, rng: Random, index: int) -> AgentProcess:
        cards = [card for card in self.cards if card.node == index]
        own = Random(rng.random())
        agent = AgentProcess(index, cards, self.site, own)
        agent.reports = self._to_planners
        return agent

    def _planner(self, rng: Random, index: int, *, strict: bool) -> PlannerProcess:
        own = Random(rng.random())
        planner = PlannerProcess(index, self.site, own, self._is_broken)
        planner.delivered = self._to_nodes  # type: ignore[method-assign]
        # A mutation must be detected by the hardware's sum alone, so the ledger's own checks are off then.
        planner.strict = strict
        return planner

    def _is_broken(self, sentence: str) -> None:
        self.broken = self.broken or sentence

    def _to_planners(self, kind: str, message: object) -> None:
        for planner in self.planners:
            if planner.up and planner.state is not None:
                handler = planner.on_ack if kind == "ack" else planner.on_telemetry
                self.network.send(planner, handler, (planner.generation, message))

    def _to_nodes(self, decisions: tuple[PowerDecision, ...], epoch: int) -> None:
        for decision in decisions:
            agent = self.agents[int(decision.node.rpartition("-")[2])]
            stored = self.bus.decisions[decision.node][-1]
            self.network.send(agent, agent.on_decision, (agent.generation, stored))

    def _planner_ok(self, now_s: float, for_s: float) -> bool:
        since = [max(p.ok_since_s, p.led_since_s) for p in self.planners if p.index == self.bus.lease_holder]
        return bool(since) and now_s - since[0] >= for_s

    def _node_ok(self, node: int, now_s: float, for_s: float) -> bool:
        agent = self.agents[node]
        return now_s - agent.ok_since_s >= for_s

    def second(self, _: object) -> None:
        """Once a second: count in full what others raised and agents could have undone."""
        self.timeline.after(1.0, self.second)
        self.checker.undisturb(self.timeline.now_s)

    def start(self) -> None:
        """Start everything, with every limit at its default. If the number of GPUs is not configured, nodes join."""
        if self.scenario.config.expected_gpus is None:
            for card in self.cards:
                card.lawful_mw = 0
            for agent in self.agents:
                self.checker.switched(agent.index, 0.0, on=True)
        for agent in self.agents:
            agent.start()
        for planner in self.planners:
            planner.start()
        if self.scenario.workers:
            self.connector.start()
        self.timeline.after(1.0, self.second)

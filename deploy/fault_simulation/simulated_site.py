"""What the simulated processes of one seed share, and how each of them begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from deploy.fault_simulation.hardware import Card, HeldBy
from deploy.fault_simulation.network import EventQueue, Network, Party
from deploy.fault_simulation.scenario import DECODE, PREFILL, FaultScenario
from deploy.fault_simulation.simulated_bus import SimulatedBus
from planner.domain.ids import PoolId
from planner.domain.plan import ScalingDecision


@dataclass(slots=True)
class SimulatedApi:
    """The Kubernetes API: no pod starts or ends while it is away, and an agent that starts then learns of none."""

    away_until_s: float = float("-inf")

    def away(self, now_s: float) -> bool:
        """Whether it does not answer."""
        return now_s < self.away_until_s


@dataclass(frozen=True, slots=True)
class SimulatedSite:
    """One seed's site without its processes. ``counts`` is written by all of them."""

    timeline: EventQueue
    network: Network
    bus: SimulatedBus
    scenario: FaultScenario
    counts: Counter[str]
    api: SimulatedApi = field(default_factory=SimulatedApi)


class SimulatedProcess(Party):
    """A planner or an agent of the site: a party with a name and a number, connected to everything shared."""

    def __init__(self, name: str, index: int, site: SimulatedSite, rng: Random, rate: float = 1.0) -> None:
        super().__init__(site.timeline, rng, rate)
        self.name = name
        self.index = index
        self.network = site.network
        self.bus = site.bus
        self.scenario = site.scenario
        self.counts = site.counts
        self.api = site.api


SIZES = {PREFILL: 2, DECODE: 1}
"""GPUs of one replica, by pool."""


class SimulatedConnector(SimulatedProcess):
    """The deployment's connector with the scheduler behind it: starts replicas on any free GPUs, and ends them.

    ``credit``: how many starts of each pool decisions have asked for. A replica that starts without it is unannounced:
    an HPA, a person or a scheduler that moves it has started it.
    """

    def __init__(
        self,
        cards: list[Card],
        site: SimulatedSite,
        rng: Random,
        powered: Callable[[int], bool],
        started: Callable[[Card, float], None],
        ended: Callable[[Card], None],
    ) -> None:
        super().__init__("connector", 0, site, rng)
        self.cards = cards
        self.powered = powered
        self.started = started
        self.ended = ended
        self.target = dict.fromkeys(SIZES, 0)
        self.credit = dict.fromkeys(SIZES, 0)
        self.other: dict[PoolId, int] = {}
        """Counts that another party has set, until the next decision."""
        self.decision_id = -1
        self.life = -1
        self.pods = 0

    def start(self) -> None:
        """Follow decisions from now on."""
        super().start()
        self.timeline.after(self.rng.uniform(0.0, 1.0), self.tick, self.generation)

    def tick(self, generation: object) -> None:
        """About once a second: read the newest decision, and go on with it."""
        if generation != self.generation or not self.awake(self.tick, generation):
            return
        self.timeline.after(self.rng.uniform(0.3, 1.5), self.tick, generation)
        self.network.send(self, self.ask, generation)
        if not self.api.away(self.timeline.now_s):
            self.work()

    def ask(self, generation: object) -> None:
        """At the bus: the newest decision."""
        if self.bus.scaling is not None:
            self.network.send(self, self.on_decision, (generation, self.bus.scaling_life, self.bus.scaling))

    def on_decision(self, message: tuple[object, int, ScalingDecision]) -> None:
        """Pursue a decision that is newer than the present one."""
        generation, life, order = message
        if generation != self.generation or life < self.life:
            return
        if life == self.life and order.decision_id <= self.decision_id:
            return
        self.life, self.decision_id = life, order.decision_id
        for pool in SIZES:
            count = order.replicas.get(pool, 0)
            lacking = max(0, count - len(self.living(pool)))
            self.credit[pool] = min(lacking, self.credit[pool] + max(0, count - self.target[pool]))
            self.target[pool] = count
        self.other = {}
        if not self.api.away(self.timeline.now_s):
            self.work()

    def living(self, pool: PoolId) -> list[str]:
        """The names of a pool's pods that are not leaving."""
        pods = [card.pod for card in self.cards if card.pod is not None]
        return sorted({pod.name for pod in pods if pod.pool == pool and not pod.terminating})

    def work(self) -> None:
        """One start or one end of each pool; then acknowledge what is complete."""
        complete = True
        for pool in SIZES:
            wanted, names = self.other.get(pool, self.target[pool]), self.living(pool)
            if len(names) > wanted:
                self.end(self.rng.choice(names))
            elif len(names) < wanted:
                self.bring_up(pool)
            complete = complete and len(self.living(pool)) == self.target[pool]
        # As the contract allows, a decision may be acknowledged while replicas that leave still drain.
        if complete and self.decision_id >= 0:
            # A pod that was deleted by force is gone for the connector.
            drained = not any(card.pod.terminating and not card.pod.forced for card in self.cards if card.pod)
            self.network.send(self, self.store_ack, (self.life, self.decision_id, drained))

    def store_ack(self, message: tuple[int, int, bool]) -> None:
        """At the bus."""
        life, decision_id, drained = message
        if life == self.bus.life:
            self.bus.scaled_id = max(self.bus.scaled_id, decision_id)
            self.bus.drained_id = max(self.bus.drained_id, decision_id if drained else -1)

    def bring_up(self, pool: PoolId) -> None:
        """Start a replica on free GPUs of one node; none where there is no room.

        Whichever they are, or those with the highest limits: nothing tells a scheduler to spare the budget.
        """
        nodes: dict[int, list[Card]] = {}
        for card in self.cards:
            if card.pod is None and not card.lost and self.powered(card.node):
                nodes.setdefault(card.node, []).append(card)
        roomy = [free for free in nodes.values() if len(free) >= SIZES[pool]]
        if not roomy:
            return
        self.pods += 1
        pod = HeldBy(f"{pool}-{self.pods}", pool)
        announced = self.credit[pool] > 0
        self.credit[pool] -= announced
        self.counts["replica started"] += 1
        chosen = self.rng.sample(self.rng.choice(roomy), SIZES[pool])
        if self.rng.random() < 0.7:
            dearest = [sorted(free, key=lambda card: -card.requested_mw)[: SIZES[pool]] for free in roomy]
            chosen = max(dearest, key=lambda cards: sum([card.requested_mw for card in cards]))
        for card in chosen:
            card.pod = pod
            if not announced:
                self.started(card, self.timeline.now_s)

    def end(self, name: str, *, forced: bool = False) -> None:
        """Let a replica go: it holds its GPUs until it is gone. ``forced``: and it is forgotten at once."""
        held = [card for card in self.cards if card.pod is not None and card.pod.name == name]
        if not held or held[0].pod is None:
            return
        leaving = replace(held[0].pod, terminating=True, forced=forced)
        self.counts["replica ended"] += 1
        longest_s = (0.2, 1.0, 4.0, 15.0, 60.0) if forced else (0.2, 1.0, 4.0, 15.0)
        for card in held:
            card.pod = leaving
            after_s = self.rng.choice(longest_s) * self.rng.random()
            self.timeline.after(after_s, self.gone, (card, leaving))

    def gone(self, argument: tuple[Card, HeldBy]) -> None:
        """A pod's GPU is free again."""
        card, pod = argument
        if card.pod is pod:
            card.pod = None
            self.ended(card)

    def others_pod(self, card: Card, for_s: float) -> None:
        """A pod that is not ours takes a free GPU for a while."""
        self.pods += 1
        pod = HeldBy(f"other-{self.pods}", None)
        card.pod = pod
        self.timeline.after(for_s, self.gone, (card, pod))

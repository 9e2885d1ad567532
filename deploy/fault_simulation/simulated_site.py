"""What the simulated processes of one seed share, and how each of them begins."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from random import Random

from deploy.fault_simulation.network import EventQueue, Network, Party
from deploy.fault_simulation.scenario import FaultScenario
from deploy.fault_simulation.simulated_bus import SimulatedBus


@dataclass(frozen=True, slots=True)
class SimulatedSite:
    """One seed's site without its processes. ``counts`` is written by all of them."""

    timeline: EventQueue
    network: Network
    bus: SimulatedBus
    scenario: FaultScenario
    counts: Counter[str]


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

"""One run: a policy on a scenario, from the first arrival to the last token."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol

from planner.sim.cluster.orchestrator import Orchestrator
from planner.sim.cluster.plant import Plant
from planner.sim.evaluation.timeline import CountChange, Timeline
from planner.sim.workload.scenario import Scenario

SLICE_S = 600.0
"""Plant seconds between two reports of progress."""
DRAIN_S = 900.0
"""How long requests in flight may take to finish after the load has ended."""


class Policy(Protocol):
    """Something that decides. It plans its own looks on the plant's events."""

    @property
    def name(self) -> str:
        """For the tables."""
        ...

    def start_replicas(self, scenario: Scenario) -> Mapping[str, int]:
        """Replicas by pool that are ready at the start; pools left out start as the scenario says."""
        ...

    def attach(self, run: SimulationRun) -> None:
        """The run begins."""
        ...


class SimulationRun:
    """What a policy may see and touch."""

    def __init__(self, scenario: Scenario, policy: Policy) -> None:
        self.scenario = scenario
        self.policy = policy
        self.plant: Plant = scenario.plant(policy.start_replicas(scenario))
        self.fleet = Orchestrator(self.plant)
        self.timeline = Timeline(self.plant, scenario)
        self.forecasts: list[tuple[float, float]] = []
        """Instants of decisions, and the requests a second that each was sized for."""
        self.wanted_but_held: list[tuple[float, str]] = []
        """Instants at which a policy wanted more than it was granted, and why."""

    @property
    def now_s(self) -> float:
        """The plant's clock."""
        return self.plant.now_s

    @property
    def over(self) -> bool:
        """Whether the load has ended: nothing needs deciding any more."""
        return self.now_s >= self.scenario.end_s

    def changed(self, pool: str, before: int, after: int, reason: str, sentence: str = "") -> None:
        """Write a decision down."""
        if before != after:
            self.timeline.changes.append(CountChange(self.now_s, pool, before, after, reason, sentence))

    def scale(self, targets: Mapping[str, int], reason: str) -> None:
        """Decide: write it down and have it carried out. Nothing happens where nothing changes."""
        changed = {name: count for name, count in targets.items() if count != self.fleet.targets[name]}
        if not changed:
            return
        for name, count in changed.items():
            self.changed(name, self.fleet.targets[name], count, reason)
        self.fleet.aim(changed)


class Progress(Protocol):
    """Told how far a run is, 0 to 1."""

    def __call__(self, share: float, /) -> None:
        """The share that is done."""
        ...


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that is over."""

    run: SimulationRun
    gpu_hours: float
    """Until the end of the load."""
    energy_j: float
    serving_energy_j: float
    wall_s: float


def simulate(scenario: Scenario, policy: Policy, progress: Progress | None = None) -> Ended:
    """Run ``policy`` on ``scenario``: virtual time, as fast as it goes."""
    began_s = time.perf_counter()
    run = SimulationRun(scenario, policy)
    end_s = scenario.end_s
    run.plant.submit(takewhile(lambda request: request.t_s <= end_s, scenario.trace))
    policy.attach(run)
    while run.now_s < end_s:
        run.plant.advance(min(run.now_s + SLICE_S, end_s))
        if progress is not None:
            progress(run.now_s / end_s)
    gpu_hours = run.plant.gpu_hours()
    energy_j, serving_j = run.plant.total_energy_j(), run.plant.serving_energy_j()
    while run.plant.in_flight and run.now_s < end_s + DRAIN_S:
        run.plant.advance(run.now_s + 10.0)
    return Ended(run, gpu_hours, energy_j, serving_j, time.perf_counter() - began_s)

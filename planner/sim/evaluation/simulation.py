"""One run: a policy on a scenario, from the first arrival to the last token."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple, Protocol

from planner.sim.bound.clairvoyant_bound import Bound
from planner.sim.cluster.orchestrator import Orchestrator
from planner.sim.cluster.plant import Plant
from planner.sim.evaluation.timeline import CountChange, Timeline
from planner.sim.workload.scenario import Scenario

SLICE_S = 600.0
"""Plant seconds between two progress reports."""
DRAIN_S = 900.0
"""How long requests in flight may take to finish after the load has ended."""


class Policy(Protocol):
    """Something that decides. It schedules its own decisions on the plant's clock."""

    @property
    def name(self) -> str:
        """Its name in tables."""
        ...

    def start_replicas(self, scenario: Scenario) -> Mapping[str, int]:
        """Replicas by pool that are ready at the start; other pools start as in the scenario."""
        ...

    def attach(self, run: SimulationRun) -> None:
        """Called when the run begins; schedules the first decision."""
        ...


class PhaseShare(NamedTuple):
    """The good share of one phase in the interval before ``t_s``, 0..1: predicted a tick before, and measured."""

    t_s: float
    phase: str
    predicted: float | None
    measured: float | None


class SimulationRun:
    """One run, as far as a policy may read and change it."""

    def __init__(self, scenario: Scenario, policy: Policy) -> None:
        self.scenario = scenario
        self.policy = policy
        self.plant: Plant = scenario.plant(policy.start_replicas(scenario))
        self.fleet = Orchestrator(self.plant)
        self.timeline = Timeline(self.plant, scenario)
        self.forecasts: list[tuple[float, float]] = []
        """(instant, requests per second sized for) of each decision."""
        self.wanted_but_held: list[tuple[float, str]] = []
        """(instant, reason) whenever a policy got less than it wanted."""
        self.shares: list[PhaseShare] = []
        """What a policy predicted at each tick for the next one, beside what was measured then."""
        self.bound: Bound | None = None
        """What the clairvoyant knows of the least cost; None for all other policies."""

    @property
    def now_s(self) -> float:
        """The plant's clock."""
        return self.plant.now_s

    @property
    def over(self) -> bool:
        """Whether the load has ended and no more decisions are needed."""
        return self.now_s >= self.scenario.end_s

    def changed(self, pool: str, before: int, after: int, reason: str, sentence: str = "") -> None:
        """Record the load that a decision was sized for."""
        if before != after:
            self.timeline.changes.append(CountChange(self.now_s, pool, before, after, reason, sentence))

    def scale(self, targets: Mapping[str, int], reason: str) -> None:
        """Publish counts: record the change and let the orchestrator carry it out. No effect if nothing changes."""
        changed = {name: count for name, count in targets.items() if count != self.fleet.targets[name]}
        if not changed:
            return
        for name, count in changed.items():
            self.changed(name, self.fleet.targets[name], count, reason)
        self.fleet.aim(changed)


class Progress(Protocol):
    """Called with the progress of a run, 0 to 1."""

    def __call__(self, share: float, /) -> None:
        """Take the share that is done."""
        ...


@dataclass(frozen=True, slots=True)
class Ended:
    """A finished run."""

    run: SimulationRun
    gpu_hours: float
    """Energy until the end of the load, in joules."""
    energy_j: float
    serving_energy_j: float
    wall_s: float


def simulate(scenario: Scenario, policy: Policy, progress: Progress | None = None) -> Ended:
    """Run ``policy`` on ``scenario`` in virtual time, as fast as possible."""
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

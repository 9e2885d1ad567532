"""Carries out the clairvoyant's plan in the plant: the check that the model's bound can be reached.

A worker is ordered a start-up time before the plan needs it, and a little more, as start-up times vary. Where GPUs or
watts do not allow a start so early, it begins as soon as there is room.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from planner.sim.bound.clairvoyant_bound import Bound, BoundAim, bound
from planner.sim.cluster.sim_gpu import SimGpuReading
from planner.sim.cluster.worker import WorkerState
from planner.sim.evaluation.simulation import SimulationRun
from planner.sim.workload.scenario import DECODE, PREFILL, Scenario

APPLY_EVERY_S = 1.0


class Clairvoyant:
    """The plan with the least cost for a good share, or under a budget with the most good requests."""

    def __init__(self, name: str, share: float, aim: BoundAim) -> None:
        self._name, self._share, self._aim = name, share, aim
        self._bound: Bound | None = None

    @property
    def name(self) -> str:
        return self._name

    def start_replicas(self, scenario: Scenario) -> Mapping[str, int]:
        self._bound = bound(scenario, self._share, self._aim)
        return self._serving(0)

    def attach(self, run: SimulationRun) -> None:
        run.bound = self._found
        every_s = self._found.every_s
        ends = [number * every_s for number in range(len(self._found.plan.steps))]
        times = {at for at in ends if at > 0}
        for lead_s in self._leads(run.scenario).values():
            times |= {at - lead_s for at in ends if at > lead_s}
        for at in sorted(times):
            run.plant.events.at(at, self._order, run)
        if len(self._found.caps_mw[0]) > 1:
            self._cap(run)

    @property
    def _found(self) -> Bound:
        if self._bound is None:
            raise RuntimeError("the plan is made when a run begins")
        return self._bound

    def _leads(self, scenario: Scenario) -> dict[str, float]:
        return {pool.pool: pool.startup_s * (1.0 + 2.0 * pool.startup_cv) for pool in scenario.pools}

    def _step(self, t_s: float) -> int:
        last = len(self._found.plan.steps) - 1
        return min(last, math.floor(t_s / self._found.every_s + 1e-6))

    def _serving(self, number: int) -> dict[str, int]:
        step = self._found.plan.steps[number]
        return {PREFILL: step.prefill, DECODE: step.decode}

    def held(self, scenario: Scenario, t_s: float) -> dict[str, int]:
        """Workers that serve at ``t_s`` or have to start by then, without those for which there is no room yet."""
        now = self._step(t_s)
        serving = self._serving(now)
        early = {
            pool: max(self._serving(number)[pool] for number in range(now, self._step(t_s + lead_s) + 1))
            for pool, lead_s in self._leads(scenario).items()
        }
        return early if self._fits(scenario, t_s, early) else serving

    def _fits(self, scenario: Scenario, t_s: float, counts: Mapping[str, int]) -> bool:
        """Whether ``counts`` fit on the cluster and in the budget, those above what serves at the draw of a start."""
        sizes = {pool.pool: pool.gpus_per_replica for pool in scenario.pools}
        free = scenario.gpus - sum(count * sizes[pool] for pool, count in counts.items())
        if scenario.budget is None or free < 0:
            return free >= 0
        card, caps, serving = scenario.cluster.card, self.caps_mw(t_s), self._serving(self._step(t_s))
        watts = free * card.idle_mw
        for pool, count in counts.items():
            now = min(count, serving[pool])
            watts += sizes[pool] * (now * caps[pool] + (count - now) * card.starting_mw)
        return watts <= scenario.budget.at(t_s)

    def caps_mw(self, t_s: float) -> dict[str, int]:
        """The caps of the plan at ``t_s``."""
        step = self._found.plan.steps[self._step(t_s)]
        prefill, decode = self._found.caps_mw
        return {PREFILL: prefill[step.prefill_cap], DECODE: decode[step.decode_cap]}

    def _order(self, run: SimulationRun) -> None:
        if not run.over:
            run.scale(self.held(run.scenario, run.now_s), self.name)

    def _cap(self, run: SimulationRun) -> None:
        """Set the plan's caps; below them where workers that still drain hold watts of the budget."""
        if run.over:
            return
        card, budget = run.scenario.cluster.card, run.scenario.budget
        caps = self.caps_mw(run.now_s)
        readings = run.plant.readings()
        wanted = {r.gpu: caps[r.pool] if r.pool and _serves(run, r) else card.min_mw for r in readings}
        if budget is not None:
            free = [r.gpu for r in readings if not r.pool]
            held = {gpu: mw - card.min_mw for gpu, mw in wanted.items()}
            lowest = (len(readings) - len(free)) * card.min_mw + len(free) * card.idle_mw
            scale = min(1.0, max(0.0, budget.at(run.now_s) - lowest) / max(1, sum(held.values())))
            wanted = {gpu: card.min_mw + int(above * scale) for gpu, above in held.items()}
        for reading in readings:
            if wanted[reading.gpu] != reading.requested_mw:
                run.plant.set_cap(reading.gpu, wanted[reading.gpu])
        run.plant.events.at(run.now_s + APPLY_EVERY_S, self._cap, run)


def _serves(run: SimulationRun, reading: SimGpuReading) -> bool:
    return run.plant.pools[reading.pool].workers[reading.worker].state is not WorkerState.STARTING

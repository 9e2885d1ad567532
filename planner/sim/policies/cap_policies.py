"""Ways of keeping within a watt budget without planning: by nameplate, evenly, by role, or by reacting to a meter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from planner.sim.evaluation.simulation import SimulationRun
from planner.sim.workload.scenario import Scenario

REACT_EVERY_S = 1.0


class Caps(Protocol):
    """Sets GPU limits, and may refuse replicas."""

    def allowed(self, scenario: Scenario, wanted: Mapping[str, int]) -> Mapping[str, int]:
        """The part of the ``wanted`` counts that this rule allows."""
        ...

    def attach(self, run: SimulationRun) -> None:
        """Called when the run begins; sets the first limits."""
        ...


class NoCaps:
    """No limits but the card's own; ignores the budget."""

    def allowed(self, scenario: Scenario, wanted: Mapping[str, int]) -> Mapping[str, int]:
        del scenario
        return wanted

    def attach(self, run: SimulationRun) -> None:
        """Nothing to set."""


def fed(scenario: Scenario, wanted: Mapping[str, int], gpu_mw: Mapping[str, int]) -> Mapping[str, int]:
    """As many replicas as the smallest budget feeds, one at least, where a GPU of a pool may draw ``gpu_mw``."""
    if scenario.budget is None:
        return wanted
    idle_mw = scenario.cluster.card.idle_mw
    left_mw = min(mw for _, mw in scenario.budget.steps) - scenario.gpus * idle_mw
    sizes = {pool.pool: pool.gpus_per_replica for pool in scenario.pools}
    found = dict(wanted)

    def above_idle_mw() -> int:
        return sum(count * sizes[name] * (gpu_mw[name] - idle_mw) for name, count in found.items())

    while above_idle_mw() > left_mw and max(found.values()) > 1:
        found[max(found, key=lambda name: found[name] * sizes[name])] -= 1
    return found


class TdpProvisioning(NoCaps):
    """As many GPUs as the smallest budget allows at nameplate power; the rest stay idle."""

    def allowed(self, scenario: Scenario, wanted: Mapping[str, int]) -> Mapping[str, int]:
        return fed(scenario, wanted, dict.fromkeys(wanted, scenario.cluster.card.default_mw))


class UniformCaps(NoCaps):
    """The budget divided by the number of GPUs; follows the budget."""

    def attach(self, run: SimulationRun) -> None:
        for t_s, mw in run.scenario.budget.steps if run.scenario.budget else ():
            run.plant.events.at(t_s, lambda budget_mw: _set_all(run, budget_mw // run.scenario.gpus), mw)


class RoleCaps(NoCaps):
    """One cap per role, fixed by the fleet at the start: each role gets the same fraction of its maximum draw."""

    def attach(self, run: SimulationRun) -> None:
        for t_s, mw in run.scenario.budget.steps if run.scenario.budget else ():
            run.plant.events.at(t_s, lambda budget_mw: self._set(run, budget_mw), mw)

    def _set(self, run: SimulationRun, budget_mw: int) -> None:
        specs = {pool.pool: pool for pool in run.scenario.pools}
        readings = run.plant.readings()
        held = [r for r in readings if r.pool]
        card = run.scenario.cluster.card
        free_mw = (len(readings) - len(held)) * card.min_mw
        full_mw = sum(specs[r.pool].curve.p_u_mw for r in held) or 1
        share = min(1.0, (budget_mw - free_mw) / full_mw)
        caps = {name: int(spec.curve.p_u_mw * share) for name, spec in specs.items()}
        for reading in readings:
            run.plant.set_cap(reading.gpu, caps.get(reading.pool, card.min_mw))


class ReactiveCaps(NoCaps):
    """No caps until the meter exceeds the upper threshold; then all step down, and up again below the lower one."""

    UPPER, LOWER, DOWN, UP = 0.97, 0.90, 0.90, 1.03

    def __init__(self) -> None:
        self._cap_mw = 0
        self._energy_j = 0.0

    def attach(self, run: SimulationRun) -> None:
        self._cap_mw = run.scenario.cluster.card.default_mw
        self._energy_j = run.plant.total_energy_j()
        if run.scenario.budget is not None:
            run.plant.events.at(REACT_EVERY_S, self._adjust, run)

    def _adjust(self, run: SimulationRun) -> None:
        if run.over or run.scenario.budget is None:
            return
        energy_j = run.plant.total_energy_j()
        draw_mw = (energy_j - self._energy_j) * 1000 / REACT_EVERY_S
        self._energy_j = energy_j
        budget_mw = run.scenario.budget.at(run.now_s)
        card = run.scenario.cluster.card
        cap_mw = self._cap_mw
        if draw_mw > self.UPPER * budget_mw:
            cap_mw = max(card.min_mw, int(cap_mw * self.DOWN))
        elif draw_mw < self.LOWER * budget_mw:
            cap_mw = min(card.max_mw, int(cap_mw * self.UP))
        if cap_mw != self._cap_mw:
            self._cap_mw = cap_mw
            _set_all(run, cap_mw)
        run.plant.events.at(run.now_s + REACT_EVERY_S, self._adjust, run)


def _set_all(run: SimulationRun, mw: int) -> None:
    for gpu in run.plant.gpus:
        run.plant.set_cap(gpu, mw)

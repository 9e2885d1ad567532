"""The record of a run: rows for the plots, watts in windows of two seconds, and every change of a count."""

from __future__ import annotations

from array import array
from typing import NamedTuple

from planner.sim.cluster.plant import MJ_PER_J, Plant
from planner.sim.workload.scenario import Scenario

WINDOW_S = 2.0
"""Seconds within which a cap acts, and over which draw is compared with the budget."""
ROWS = 240
SHORTEST_ROW_S, LONGEST_ROW_S = 10.0, 60.0
"""Seconds between two rows, at least and at most; within that as many as give ``ROWS`` rows."""


class TimelineRow(NamedTuple):
    """The state of the run at ``t_s``; requests are counted since the row before."""

    t_s: float
    arrived: int
    ready: dict[str, int]
    starting: dict[str, int]
    queued: dict[str, int]
    watts: float
    caps_watts: float
    """Sum of the limits of all GPUs, whose draw ``watts`` is: the highest since the row before."""
    budget_watts: float | None
    kv_usage: float | None


class CountChange(NamedTuple):
    """A decision that changed a pool's wanted count."""

    t_s: float
    pool: str
    before: int
    after: int
    reason: str
    sentence: str


class Timeline:
    """Samples itself on the plant's clock until the end of the load."""

    def __init__(self, plant: Plant, scenario: Scenario) -> None:
        self.rows: list[TimelineRow] = []
        self.changes: list[CountChange] = []
        self.window_watts = array("d")
        """Mean draw of the cluster in each window."""
        self._plant = plant
        self._scenario = scenario
        self._row_s = row_s = min(max(scenario.end_s / ROWS, SHORTEST_ROW_S), LONGEST_ROW_S)
        self._energy_j = plant.total_energy_j()
        self._row_energy_j = self._energy_j
        self._row_caps_watts = self._caps_watts()
        self._arrived = 0
        plant.events.at(WINDOW_S, self._window)
        plant.events.at(row_s, self._row)

    def _window(self, _: None) -> None:
        plant = self._plant
        energy_j = plant.total_energy_j()
        self.window_watts.append((energy_j - self._energy_j) / WINDOW_S)
        self._energy_j = energy_j
        self._row_caps_watts = max(self._row_caps_watts, self._caps_watts())
        if plant.now_s < self._scenario.end_s:
            plant.events.at(plant.now_s + WINDOW_S, self._window)

    def _caps_watts(self) -> float:
        """GPUs without a worker draw too, so their limits count."""
        return sum(gpu.enforced_mw for gpu in self._plant.gpus.values()) / MJ_PER_J

    def _row(self, _: None) -> None:
        plant = self._plant
        energy_j = plant.total_energy_j()
        counts = plant.worker_counts()
        usages = [u for pool in plant.pools.values() if (u := getattr(pool, "kv_usage", lambda: None)()) is not None]
        budget = self._scenario.budget
        self.rows.append(
            TimelineRow(
                t_s=plant.now_s,
                arrived=plant.frontend.started - self._arrived,
                ready={name: count.ready for name, count in counts.items()},
                starting={name: count.starting for name, count in counts.items()},
                queued={name: pool.waiting() for name, pool in plant.pools.items()},
                watts=(energy_j - self._row_energy_j) / self._row_s,
                caps_watts=max(self._row_caps_watts, self._caps_watts()),
                budget_watts=None if budget is None else budget.at(plant.now_s) / MJ_PER_J,
                kv_usage=sum(usages) / len(usages) if usages else None,
            )
        )
        self._arrived, self._row_energy_j = plant.frontend.started, energy_j
        self._row_caps_watts = self._caps_watts()
        if plant.now_s < self._scenario.end_s:
            plant.events.at(plant.now_s + self._row_s, self._row)

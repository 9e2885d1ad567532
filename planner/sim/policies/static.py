"""A fixed fleet: what most operators run. The smallest one that holds the targets needs to know the future."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from planner.sim.run import Run
from planner.sim.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Static:
    """``replicas`` by pool, from the first to the last instant."""

    replicas: Mapping[str, int]
    label: str = "static"

    @property
    def name(self) -> str:
        return self.label

    def start_replicas(self, scenario: Scenario) -> Mapping[str, int]:
        del scenario
        return self.replicas

    def attach(self, run: Run) -> None:
        """Nothing ever changes."""

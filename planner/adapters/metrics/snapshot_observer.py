"""What every way of reading metrics shares: a snapshot becomes an observation, and missing readings get their ages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields, replace

from planner.adapters.metrics.assemble import assemble
from planner.adapters.metrics.metric_table import MetricTable
from planner.adapters.metrics.series_selector import SeriesSelector
from planner.adapters.metrics.snapshot import Snapshot
from planner.domain.ids import DeploymentId
from planner.domain.observation import DeploymentObservation
from planner.domain.reading import Missing, Sample


class Staleness:
    """Stamps ``Missing.age_s``: clock seconds since the quantity's last sample, 0 when there never was one."""

    def __init__(self) -> None:
        self._last_s: dict[str, float] = {}

    def stamp(self, observation: DeploymentObservation, now_s: float) -> DeploymentObservation:
        """The observation with ages, remembering what was read now."""
        changes: dict[str, Missing] = {}
        for field in fields(observation):
            reading = getattr(observation, field.name)
            if isinstance(reading, Sample):
                self._last_s[field.name] = now_s - reading.age_s
            elif isinstance(reading, Missing) and field.name in self._last_s:
                changes[field.name] = Missing(reading.reason, max(0.0, now_s - self._last_s[field.name]))
        return replace(observation, **changes)  # type: ignore[arg-type]


class SnapshotObserver(ABC):
    """An ``Observer`` of one deployment whose subclass reads snapshots. ``last_error``: why the last read failed."""

    def __init__(self, selector: SeriesSelector, table: MetricTable) -> None:
        self._selector = selector
        self._table = table
        self._ages = Staleness()
        self.last_error = ""

    @property
    def deployment(self) -> DeploymentId:
        """The deployment that is read."""
        return self._selector.deployment

    async def observe(self, now_s: float) -> DeploymentObservation:
        """The readings since the last call, as of ``now_s`` of the planner's clock; what cannot be read is Missing."""
        return self._ages.stamp(self._assembled(await self._snapshot(now_s)), now_s)

    def _assembled(self, snapshot: Snapshot) -> DeploymentObservation:
        return assemble(snapshot, self._selector, self._table)

    @abstractmethod
    async def _snapshot(self, now_s: float) -> Snapshot:
        """What is exported as of ``now_s``. Never raises for what a server answers or fails to answer."""

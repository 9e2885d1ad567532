"""Remembers when each quantity was last read, so that a missing one can say for how long it has been missing."""

from __future__ import annotations

from dataclasses import fields, replace

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

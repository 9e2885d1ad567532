"""The few seams the runtime needs: where readings come from, and what time it is."""

from __future__ import annotations

from typing import Protocol

from planner.domain.ids import DeploymentId
from planner.domain.observation import DeploymentObservation


class Observer(Protocol):
    """Reads one deployment's metrics. Never raises for what it reads: what can not be had is Missing, with a reason."""

    @property
    def deployment(self) -> DeploymentId:
        """Whose readings these are."""
        ...

    async def observe(self, now_s: float) -> DeploymentObservation:
        """The readings since the last call, as of ``now_s`` on the planner's clock."""
        ...

    async def close(self) -> None:
        """Let connections go. Called once."""
        ...


class Clock(Protocol):
    """The planner's clock: seconds of UTC in production, anything that rises in tests."""

    def __call__(self) -> float: ...

"""Writes every tick to TensorBoard's event files: observed, forecast, corrected and decided quantities, and watts."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path

from planner.adapters.tensorboard import EventFile
from planner.domain.ids import DeploymentId
from planner.domain.plan import DeploymentPlan, SitePlan
from planner.runtime.decision_event import DecisionEvent

log = logging.getLogger(__name__)


class EventFiles:
    """A watcher of decisions: one folder for each deployment and site below ``folder``.

    A file that cannot be written costs a warning, never a decision.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, EventFile] = {}
        self._ticks = 0

    def watch(self, decided: DecisionEvent) -> None:
        """Write one tick; reactions between ticks are not written."""
        if not decided.tick:
            return
        self._ticks += 1
        for name, plan in decided.plan.deployments.items():
            self._add(name, dict(scalars(plan)))
        for site in decided.plan.sites.values():
            self._add(f"site {site.site}", dict(site_scalars(site)))

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()

    def _add(self, name: DeploymentId | str, values: dict[str, float]) -> None:
        try:
            if name not in self._files:
                self._files[name] = EventFile(self._folder / name.replace("/", "_"), "wattscale")
            self._files[name].add(time.time(), self._ticks, values)
        except OSError as error:
            log.warning("tensorboard_dir %s: cannot be written: %s", self._folder, error.strerror or error)


def scalars(plan: DeploymentPlan) -> Iterator[tuple[str, float]]:
    """Every quantity of one deployment's tick, by tag."""
    found: list[tuple[str, float | None]] = [(f"observed/{name}", value) for name, value in plan.observed.items()]
    for name, forecast in plan.forecasts.items():
        found += [(f"forecast/{name}", forecast.mean), (f"forecast/{name} upper", forecast.upper)]
    found += [(f"correction/{phase}", factor) for phase, factor in plan.corrections.items()]
    for pool in plan.pools.values():
        counts = {"current": pool.current, "wanted": pool.wanted, "granted": pool.granted}
        found += [(f"replicas/{pool.pool} {stage}", float(count)) for stage, count in counts.items()]
        if pool.setpoint is not None:
            found.append((f"watts/{pool.pool} cap of a GPU", pool.setpoint.cap_mw / 1000.0))
    found += [
        ("expected/ttft_ms", plan.expected_ttft_ms),
        ("expected/itl_ms", plan.expected_itl_ms),
        ("watts/expected draw", plan.expected_watts),
        ("shortfall", plan.shortfall),
    ]
    yield from ((tag, value) for tag, value in found if value is not None and math.isfinite(value))


def site_scalars(site: SitePlan) -> Iterator[tuple[str, float]]:
    """A site's watts, by account."""
    for account in ("budget", "charged", "enforced", "draw", "free", "shortfall"):
        value = getattr(site, f"{account}_mw")
        if value is not None:
            yield f"watts/{account}", value / 1000.0

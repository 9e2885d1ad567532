"""The simulated cluster's metrics page: a Dynamo frontend's and its workers', with two gauges of its own."""

from __future__ import annotations

from collections.abc import Sequence

from planner.adapters.metrics.metric_table import MetricTable
from planner.adapters.metrics.scrape import EngineScraper
from planner.adapters.metrics.series_selector import SeriesSelector

LOAD_SECONDS = "wattscale_sim_load_seconds"
"""The load's clock. An accelerated replay is measured by it exactly, where a real interval would be approximate."""

WORKERS = "wattscale_sim_workers"
"""Workers by ``pool`` and ``state`` (ready, starting, terminating, pending)."""

SIMULATED = MetricTable(load_clock=LOAD_SECONDS, worker_counts=WORKERS)


class SimulatedClusterScraper(EngineScraper):
    """One simulated deployment's readings. Arguments as of ``EngineScraper``."""

    def __init__(
        self,
        urls: str | Sequence[str],
        selector: SeriesSelector,
        *,
        load_time_scale: float = 1.0,
        timeout_s: float = 5.0,
        max_gap_s: float = 600.0,
        pull_s: float | None = None,
    ) -> None:
        super().__init__(
            urls,
            selector,
            load_time_scale=load_time_scale,
            timeout_s=timeout_s,
            max_gap_s=max_gap_s,
            pull_s=pull_s,
            table=SIMULATED,
        )

"""Places to read metrics from: a row makes one known, whether it is an engine's names or a new transport."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web

from deploy.compose.core_config import planner_config
from deploy.compose.metric_sources import SOURCES, SharedClients, observers
from deploy.compose.planner_settings import load
from deploy.compose.settings_layers import SettingsError
from planner.adapters.metrics.engine_metrics import SOURCES as ENGINE_SOURCES
from planner.adapters.metrics.engine_metrics import EngineMetric, EngineMetricKind, Quantity, Source
from planner.adapters.metrics.metric_table import MetricTable
from planner.adapters.metrics.scrape import EngineScraper
from planner.adapters.metrics.series_selector import PoolSelector, SeriesSelector
from planner.adapters.metrics.simulated_cluster import SimulatedClusterScraper
from planner.adapters.metrics.snapshot import Snapshot
from planner.adapters.metrics.snapshot_observer import SnapshotObserver
from planner.domain.ids import DeploymentId, PoolId
from planner.domain.pool import Role
from planner.domain.reading import Sample
from planner.ports import Observer
from planner.runtime.config.settings import DeploymentSettings, Settings
from tests.unit.deploy.compose.test_planner_settings import changed, file

__all__ = ["file"]


class FileObserver(SnapshotObserver):
    """A toy transport from outside: a file that holds the number of requests since the last reading."""

    def __init__(self, path: Path, selector: SeriesSelector, table: MetricTable) -> None:
        super().__init__(selector, table)
        self._path = path

    async def _snapshot(self, now_s: float) -> Snapshot:
        count = Sample(float(self._path.read_text()))
        return Snapshot(10.0, {"dynamo_frontend_requests_started_total": count})

    async def close(self) -> None:
        pass


class FileSource:
    """Its row in ``SOURCES``."""

    def problems(self, where: str, block: DeploymentSettings, settings: Settings) -> list[str]:
        return [] if block.metrics.urls else [f"{where}.urls: name the file"]

    def observer(self, name: str, block: DeploymentSettings, settings: Settings, shared: SharedClients) -> Observer:
        return FileObserver(Path(block.metrics.urls[0]), SeriesSelector(DeploymentId(name)), MetricTable())


ROWS = {**SOURCES, "file": FileSource()}


async def test_a_new_transport_is_an_adapter_and_a_row(file: Path) -> None:
    counts = file.parent / "counts"
    counts.write_text("17")
    settings = load(changed(file, metrics={"source": "file", "urls": [str(counts)]}), environ={}).settings
    assert planner_config(settings, sources=ROWS).deployments
    (observer,) = observers(settings, SharedClients(settings), ROWS)
    seen = await observer.observe(10.0)
    assert seen.requests == Sample(17.0)
    await observer.close()


def test_a_rows_own_problems_have_their_place_and_an_unknown_row_is_refused(file: Path) -> None:
    settings = load(changed(file, metrics={"source": "file"}), environ={}).settings
    with pytest.raises(SettingsError, match=r"deployments\.prod-chat\.metrics\.urls: name the file"):
        planner_config(settings, sources=ROWS)
    with pytest.raises(SettingsError, match=r"metrics\.source: no source 'file'; known are scrape, prometheus"):
        planner_config(settings)


TOY = Source(
    "toy engine",
    "model_name",
    {
        Quantity.REQUESTS: (EngineMetric("toy_requests_total", EngineMetricKind.COUNTER),),
        Quantity.TTFT_MS: (EngineMetric("toy_first_token_seconds", EngineMetricKind.HISTOGRAM, 1000.0),),
        Quantity.RUNNING_REQUESTS: (EngineMetric("toy_running", EngineMetricKind.GAUGE),),
    },
    per_worker=True,
)
"""A toy engine from outside: what a row in ``engine_metrics.SOURCES`` would be."""


async def test_a_new_engine_is_a_row_of_names() -> None:
    scrapes = 0

    async def page(_: web.Request) -> web.Response:
        nonlocal scrapes
        scrapes += 1
        labels = 'model_name="m",dynamo_component="decode",worker="w0"'
        return web.Response(
            text=f"# TYPE toy_requests counter\ntoy_requests_total{{{labels}}} {10 * scrapes}\n"
            f"# TYPE toy_running gauge\ntoy_running{{{labels}}} 3\n"
            "# TYPE toy_first_token_seconds histogram\n"
            f'toy_first_token_seconds_bucket{{{labels},le="+Inf"}} {10 * scrapes}\n'
            f"toy_first_token_seconds_count{{{labels}}} {10 * scrapes}\n"
            f"toy_first_token_seconds_sum{{{labels}}} {2 * scrapes}\n"
        )

    app = web.Application()
    app.router.add_get("/metrics", page)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    decode = PoolId("decode")
    selector = SeriesSelector(DeploymentId("d"), model="m", pools={decode: PoolSelector(Role.DECODE)})
    host, port = runner.addresses[0][:2]
    scraper = EngineScraper(f"http://{host}:{port}/metrics", selector, table=MetricTable((*ENGINE_SOURCES, TOY)))
    try:
        await scraper.observe(0.0)
        seen = await scraper.observe(10.0)
    finally:
        await scraper.close()
        await runner.cleanup()
    assert seen.requests == Sample(10.0)
    assert seen.ttft_ms == Sample(200.0)
    assert seen.pools[decode].running_requests == Sample(3.0)
    assert seen.pools[decode].replicas.ready == 1


async def test_the_simulated_cluster_is_a_source_of_its_own(file: Path) -> None:
    block = {"source": "simulated", "urls": ["http://sim:1/metrics"]}
    settings = load(changed(file, metrics=block), environ={}).settings
    planner_config(settings)
    (observer,) = observers(settings, SharedClients(settings))
    assert isinstance(observer, SimulatedClusterScraper)
    await observer.close()

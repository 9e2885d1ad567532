"""Where each deployment's metrics are read. ``SOURCES`` is the list: a new transport is an adapter and a row here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol
from urllib.parse import urlsplit

from deploy.compose.masking import masked
from planner.adapters.metrics.prometheus_client import PrometheusClient, PrometheusSettings
from planner.adapters.metrics.prometheus_observer import PrometheusObserver
from planner.adapters.metrics.scrape import EngineScraper
from planner.adapters.metrics.series_selector import PoolSelector, SeriesSelector
from planner.adapters.metrics.simulated_cluster import SimulatedClusterScraper
from planner.domain.ids import DeploymentId, PoolId
from planner.domain.pool import Role
from planner.ports import Observer
from planner.runtime.config.settings import DeploymentSettings, PoolSettings, PrometheusBlock, Settings

BY_THRESHOLDS = ("load", "sla+load")
"""The sizing modes that compare queues and KV use with thresholds."""


class SharedClients:
    """Connections that several observers use. Close them after the observers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._prometheus: PrometheusClient | None = None

    def prometheus(self) -> PrometheusClient:
        """The one client of the settings' Prometheus server."""
        if self._prometheus is None:
            self._prometheus = PrometheusClient(prometheus_settings(self._settings.prometheus))
        return self._prometheus

    async def close(self) -> None:
        """Close what was opened."""
        if self._prometheus is not None:
            await self._prometheus.close()


class MetricSource(Protocol):
    """One way to read metrics, by the name in ``deployments.*.metrics.source``."""

    def problems(self, where: str, block: DeploymentSettings, settings: Settings) -> list[str]:
        """Why a deployment cannot be read this way; one line each. ``where``: the path of its ``metrics``."""
        ...

    def observer(self, name: str, block: DeploymentSettings, settings: Settings, shared: SharedClients) -> Observer:
        """The observer of the deployment ``name``. Only called when there are no problems."""
        ...


class Scrape:
    """The deployment's own metrics pages."""

    scraper: type[EngineScraper] = EngineScraper

    def problems(self, where: str, block: DeploymentSettings, settings: Settings) -> list[str]:
        """The problems with the address: missing, or not an address."""
        if not block.metrics.urls:
            return [f"{where}.urls: none to scrape"]
        return [f"{where}.urls: {text}" for url in block.metrics.urls if (text := _not_an_address(url))]

    def observer(self, name: str, block: DeploymentSettings, settings: Settings, shared: SharedClients) -> Observer:
        """A scraper with its own connections."""
        return self.scraper(
            block.metrics.urls,
            selector(name, block),
            load_time_scale=settings.load_time_scale,
            timeout_s=block.metrics.timeout_s,
            pull_s=pull_s(block),
        )


class Simulated(Scrape):
    """The page of the simulated cluster, with its load clock and worker counts."""

    scraper = SimulatedClusterScraper


class Prometheus:
    """A Prometheus server that scrapes the deployment."""

    def problems(self, where: str, block: DeploymentSettings, settings: Settings) -> list[str]:
        """No server to ask."""
        return [] if settings.prometheus.url else [f"{where}: no urls to scrape and no prometheus.url to ask"]

    def observer(self, name: str, block: DeploymentSettings, settings: Settings, shared: SharedClients) -> Observer:
        """An observer on the client that all deployments share."""
        return PrometheusObserver(
            shared.prometheus(),
            selector(name, block),
            window_s=block.metrics.window_s or settings.interval_s,
            stale_s=block.metrics.stale_s,
            load_time_scale=settings.load_time_scale,
            pull_s=pull_s(block),
        )


Sources = Mapping[str, MetricSource]
SOURCES: Sources = {"scrape": Scrape(), "prometheus": Prometheus(), "simulated": Simulated()}


def pull_s(block: DeploymentSettings) -> float | None:
    """How often queues and KV use are read, where their means over an interval decide."""
    return block.metrics.pull_s if block.sizing in BY_THRESHOLDS else None


def source_of(block: DeploymentSettings) -> str:
    """The name of a deployment's source: ``scrape`` where there are pages to scrape, else ``prometheus``."""
    return block.metrics.source or ("scrape" if block.metrics.urls else "prometheus")


def metrics_problems(where: str, block: DeploymentSettings, settings: Settings, sources: Sources) -> list[str]:
    """Why a deployment's metrics cannot be read; one line each."""
    name = source_of(block)
    if name not in sources:
        return [f"{where}.metrics.source: no source {name!r}; known are {', '.join(sources)}"]
    return sources[name].problems(f"{where}.metrics", block, settings)


def prometheus_problems(block: PrometheusBlock) -> list[str]:
    """Why Prometheus cannot be asked; one line each."""
    if not block.url:
        return []
    found = [f"prometheus.url: {text}"] if (text := _not_an_address(block.url)) else []
    for name, path in (("bearer_token_file", block.bearer_token_file), ("ca_file", block.ca_file)):
        if path is not None and not path.is_file():
            found.append(f"prometheus.{name}: no file {path}")
    return found


def observers(settings: Settings, shared: SharedClients, sources: Sources = SOURCES) -> Sequence[Observer]:
    """One observer for each deployment, in the settings' order."""
    return [
        sources[source_of(block)].observer(name, block, settings, shared)
        for name, block in settings.deployments.items()
    ]


def selector(name: str, block: DeploymentSettings) -> SeriesSelector:
    """How metrics name a deployment and its pools."""
    pools = {
        PoolId(pool): PoolSelector(role_of(pool, settings), settings.component, settings.labels)
        for pool, settings in pool_blocks(block).items()
        if role_of(pool, settings) is not Role.FRONTEND
    }
    namespace = name if block.namespace is None else block.namespace
    return SeriesSelector(
        DeploymentId(name), block.model, namespace, pools, block.metrics.matchers, block.ttft_ms, block.itl_ms
    )


def pool_blocks(block: DeploymentSettings) -> Mapping[str, PoolSettings]:
    """The deployment's pools: prefill and decode where it names none with GPUs."""
    if any((pool.role or name) != Role.FRONTEND for name, pool in block.pools.items()):
        return block.pools
    return {"prefill": PoolSettings(), "decode": PoolSettings(), **block.pools}


def role_of(name: str, pool: PoolSettings) -> Role:
    """The pool's role: the one that is set, else its name. Raises ValueError."""
    try:
        return Role(pool.role or name)
    except ValueError:
        raise ValueError("its name is not a role; set role: prefill, decode, aggregated or frontend") from None


def prometheus_settings(block: PrometheusBlock) -> PrometheusSettings:
    """The Prometheus client's settings, secrets in the clear."""
    return PrometheusSettings(
        url=block.url,
        bearer_token=block.bearer_token.get_secret_value(),
        bearer_token_file=block.bearer_token_file,
        ca_file=block.ca_file,
        verify_tls=block.verify_tls,
        params=block.params,
        headers={name: value.get_secret_value() for name, value in block.headers.items()},
        timeout_s=block.timeout_s,
        retries=block.retries,
    )


def _not_an_address(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        return f"{masked(repr(url))} is not an address: {error}"
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return f"{masked(repr(url))} is not an address; write http://host:port/path"
    return ""

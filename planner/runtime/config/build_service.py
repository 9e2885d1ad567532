"""What runs around the core: where each deployment's metrics are read, and how the service is set."""

from __future__ import annotations

from collections.abc import Sequence

from planner.adapters.metrics.prometheus_client import PrometheusClient, PrometheusSettings
from planner.adapters.metrics.prometheus_observer import PrometheusObserver
from planner.adapters.metrics.scrape import EngineScraper
from planner.adapters.metrics.series_selector import PoolSelector, SeriesSelector
from planner.domain.ids import DeploymentId, PoolId
from planner.ports import Observer
from planner.runtime.config.build import pool_blocks, role_of
from planner.runtime.config.build_metrics import source_of
from planner.runtime.config.settings import DeploymentSettings, Settings
from planner.runtime.service import ServiceSettings


def target(name: str, block: DeploymentSettings) -> SeriesSelector:
    """How metrics name a deployment and its pools."""
    pools = {
        PoolId(pool): PoolSelector(role_of(pool, settings), settings.component, settings.labels)
        for pool, settings in pool_blocks(block).items()
    }
    namespace = name if block.namespace is None else block.namespace
    return SeriesSelector(DeploymentId(name), block.model, namespace, pools, block.metrics.matchers)


def observers(settings: Settings) -> tuple[Sequence[Observer], Sequence[PrometheusClient]]:
    """One observer a deployment, and the clients they share, to be closed after them."""
    found: list[Observer] = []
    clients: list[PrometheusClient] = []
    for name, block in settings.deployments.items():
        scale, metrics = settings.load_time_scale, block.metrics
        if source_of(block) == "scrape":
            found.append(
                EngineScraper(metrics.urls, target(name, block), load_time_scale=scale, timeout_s=metrics.timeout_s)
            )
            continue
        if not clients:
            clients.append(PrometheusClient(prometheus(settings)))
        window_s = metrics.window_s or settings.interval_s
        aim = target(name, block)
        stale_s = metrics.stale_s
        found.append(PrometheusObserver(clients[0], aim, window_s=window_s, stale_s=stale_s, load_time_scale=scale))
    return found, clients


def prometheus(settings: Settings) -> PrometheusSettings:
    """The Prometheus client's settings, secrets in the clear."""
    block = settings.prometheus
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


def service_settings(settings: Settings) -> ServiceSettings:
    """How the service runs."""
    return ServiceSettings(
        holder=settings.lease.holder,
        lease_ttl_s=settings.lease.ttl_s,
        observe_timeout_s=max(5.0, settings.interval_s / 2),
        journal=settings.journal,
    )

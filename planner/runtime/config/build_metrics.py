"""Whether metrics can be read as the settings say: addresses that are ones, files that are there."""

from __future__ import annotations

from urllib.parse import urlsplit

from planner.runtime.config.settings import DeploymentSettings, PrometheusBlock, Settings


def source_of(block: DeploymentSettings) -> str:
    """Where a deployment's metrics come from."""
    return block.metrics.source or ("scrape" if block.metrics.urls else "prometheus")


def metrics_problems(where: str, block: DeploymentSettings, settings: Settings) -> list[str]:
    """Why a deployment's metrics can not be read; one line each."""
    if source_of(block) == "prometheus":
        asked = settings.prometheus.url
        return [] if asked else [f"{where}.metrics: no urls to scrape and no prometheus.url to ask"]
    if not block.metrics.urls:
        return [f"{where}.metrics.urls: none to scrape"]
    return [f"{where}.metrics.urls: {text}" for url in block.metrics.urls if (text := _not_an_address(url))]


def prometheus_problems(block: PrometheusBlock) -> list[str]:
    """Why Prometheus can not be asked; one line each."""
    if not block.url:
        return []
    found = [f"prometheus.url: {text}"] if (text := _not_an_address(block.url)) else []
    for name, path in (("bearer_token_file", block.bearer_token_file), ("ca_file", block.ca_file)):
        if path is not None and not path.is_file():
            found.append(f"prometheus.{name}: no file {path}")
    return found


def _not_an_address(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        return f"{url!r} is no address: {error}"
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return f"{url!r} is no address; write http://host:port/path"
    return ""

"""Reads the planner's settings, asks its Prometheus, and makes the test decision that `wattscale verify` judges.

Nothing is sent to a connector or an agent: a decision carries the leader's fence, and only the leader may publish one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from deploy.cli.verify.facts import BusFacts, MetricFacts, SeriesGroup, SettingsFacts, Unknown
from planner.adapters.metrics import promql
from planner.adapters.metrics.engine_metrics import NAMESPACE_LABEL, POOL_LABEL, SOURCES, Source
from planner.adapters.metrics.prometheus_client import PrometheusClient, PrometheusError
from planner.adapters.metrics.series_selector import SeriesSelector
from planner.domain.config import PlannerConfig

if TYPE_CHECKING:
    from deploy.compose.settings_loader import Loaded
    from planner.runtime.config.settings import Settings

MOST_GPUS = 10_000
"""Most GPUs for which a test decision is made: it takes seconds beyond them."""


async def settings_facts(found: Loaded[Settings]) -> tuple[SettingsFacts, Settings]:
    """What the settings come to, and the settings with the models that their graphs serve."""
    from deploy.cli.errors import UsageError
    from deploy.compose.core_config import planner_config
    from deploy.compose.planner_service import with_detected_models
    from deploy.compose.settings_layers import SettingsError

    problems: tuple[str, ...] = ()
    config, settings = None, found.settings
    try:
        settings = await with_detected_models(settings)
    except UsageError as error:
        problems = error.lines
    try:
        config = planner_config(settings)
    except SettingsError as error:
        problems += error.problems
    models = {name: block.model for name, block in settings.deployments.items()}
    detected = frozenset(name for name, model in models.items() if model and not found.settings.deployments[name].model)
    return SettingsFacts(problems, config, models, detected), settings


async def metric_facts(settings: Settings) -> MetricFacts | Unknown:
    """What Prometheus has of the deployments that are read from it."""
    from deploy.compose.metric_sources import prometheus_settings, selector, source_of

    names = [name for name, block in settings.deployments.items() if source_of(block) == "prometheus"]
    if not names:
        return Unknown("no deployment's metrics are read from Prometheus")
    url = settings.prometheus.url
    if not url:
        return MetricFacts(url, "no prometheus.url is set")
    client = PrometheusClient(prometheus_settings(settings.prometheus.model_copy(update={"retries": 0})))
    selectors = {name: selector(name, settings.deployments[name]) for name in names}
    facts = MetricFacts(
        url, selectors=selectors, stale_s={name: settings.deployments[name].metrics.stale_s for name in names}
    )
    try:
        await client.query("time()")
        groups = [group for source in SOURCES for group in await _groups(client, source)]
        ages = {name: age for name in names if (age := await _age(client, selectors[name], groups)) is not None}
    except (PrometheusError, OSError) as error:
        return replace(facts, trouble=str(error))
    finally:
        await client.close()
    return replace(facts, series=tuple(groups), ages_s=ages)


def metric_names(source: Source) -> frozenset[str]:
    """Every name under which an exporter's metrics are stored, without buckets."""
    return frozenset(
        name for metrics in source.metrics.values() for metric in metrics for name in promql.series_names(metric)
    )


async def _groups(client: PrometheusClient, source: Source) -> list[SeriesGroup]:
    labels = (NAMESPACE_LABEL, POOL_LABEL, source.model_label)
    pattern = "|".join(sorted(metric_names(source)))
    rows = await client.query(f'count by (__name__, {", ".join(labels)}) ({{__name__=~"{pattern}"}})')
    return [
        SeriesGroup(
            row.labels.get("__name__", ""),
            {name: row.labels[name] for name in labels if row.labels.get(name)},
            source.model_label,
            int(row.value),
        )
        for row in rows
    ]


async def _age(client: PrometheusClient, selector: SeriesSelector, groups: Iterable[SeriesGroup]) -> float | None:
    """Seconds since the newest sample of one of the deployment's metrics, a frontend's first; None without series."""
    ours = {one.name for one in groups if one.has_model(selector) and one.has_namespace(selector)}
    for source in SOURCES:
        for name in sorted(metric_names(source) & ours):
            rows = await client.query(promql.age(name, promql.selector(selector, source)))
            if rows:
                return rows[0].value
    return None


def trial_decisions(config: PlannerConfig, bus: BusFacts | Unknown) -> Mapping[str, str] | Unknown:
    """By deployment, the counts that these settings give for its newest readings on the bus, as text.

    In advisory mode: decided by the planner's own code and sent to no one. A deployment without readings is left out.
    """
    from planner.domain.ids import DeploymentId
    from planner.runtime.offline import FIELDS, BadIntervalError, OfflinePlanner

    if isinstance(bus, Unknown):
        return bus
    found = {}
    for name, view in bus.view.deployments.items():
        deployment, record = config.deployments.get(DeploymentId(name)), view.record
        if deployment is None or record is None or not record.observed.get("interval_s"):
            continue
        if sum(pool.max_replicas * pool.gpus_per_replica for pool in deployment.pools.values()) > MOST_GPUS:
            continue
        readings = {key: record.observed[field] for key, field in FIELDS.items() if field in record.observed}
        alone = replace(config, interval_s=record.observed["interval_s"], load_time_scale=1.0)
        try:
            decided = OfflinePlanner(alone, deployment.deployment).decide(readings)
        except BadIntervalError as error:
            return Unknown(str(error))
        counts = decided["replicas"]
        found[name] = " ".join(f"{pool}={n}" for pool, n in counts.items()) if isinstance(counts, dict) else ""
    return found

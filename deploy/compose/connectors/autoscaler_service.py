"""Composes the autoscaler connector from its settings, runs it, and stops it in order."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

from agent.adapters.kubernetes.access import NoAccessError, find_access
from agent.adapters.kubernetes.api import KubernetesApi
from agent.connectors.autoscaler.autoscaler_file import AutoscalerFile
from agent.connectors.autoscaler.autoscaler_reader import AutoscalerReader
from agent.connectors.autoscaler.external_metrics_api import ExternalMetricsApi
from agent.connectors.autoscaler.metric_listener import MetricListener
from agent.connectors.autoscaler.metrics_api import MetricsApi
from agent.connectors.autoscaler.newest_decision import NewestDecision
from agent.connectors.bus_claims import claimed
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.tasks.task_group import run_together
from bus_schemas.subjects import BadNameError, encode_name
from deploy.cli.errors import UsageError
from deploy.compose.connectors.connector_process import (
    connected,
    log_to_stderr,
    metrics_page,
    pages,
    run_until_signal,
    this_process,
)

log = logging.getLogger("wattscale.connector")


def run_autoscaler(settings: AutoscalerFile) -> int:
    """Run until SIGTERM or SIGINT. Raises UsageError for settings that cannot work here."""
    log_to_stderr(settings.log_level)
    for name in settings.served():
        try:
            encode_name(name)
        except BadNameError as error:
            raise UsageError(f"deployment: {error}") from error
    if settings.external_scaler.port is not None and find_spec("grpc") is None:
        raise UsageError("external_scaler.port is set and grpcio is not installed: pip install 'wattscale[keda]'")
    return asyncio.run(_run(settings, _api(settings)))


def _api(settings: AutoscalerFile) -> KubernetesApi | None:
    """The API server; None where none is at hand and none is needed. Raises UsageError."""
    try:
        return KubernetesApi(find_access(settings.kubeconfig))
    except NoAccessError as error:
        if settings.external_metrics.port is not None or settings.kubeconfig is not None:
            raise UsageError(str(error)) from error
        log.info("no API server is at hand, so autoscalers are not read back: %s", error)
        return None


@dataclass(slots=True, eq=False)
class AutoscalerView:
    """What the pages show."""

    decisions: dict[str, NewestDecision] = field(default_factory=dict)
    listening: dict[str, asyncio.Event] = field(default_factory=dict)
    """Of each server of counts: set once its address can be reached."""
    reader: AutoscalerReader | None = None
    external: ExternalMetricsApi | None = None

    @property
    def not_ready(self) -> str:
        """Why autoscalers get an error now; empty where they get values."""
        if not self.decisions:
            return "the bus has not been reached yet"
        missing = self._missing
        if len(missing) == len(self.decisions):
            return "; ".join(missing)  # With one that is known this process must stay reachable.
        return self._closed or (self.external.trouble if self.external is not None else "")

    @property
    def _closed(self) -> str:
        return "; ".join(f"the {name} does not listen yet" for name, one in self.listening.items() if not one.is_set())

    @property
    def _missing(self) -> tuple[str, ...]:
        return tuple(f"{name}: {one.missing}" for name, one in self.decisions.items() if one.missing)

    @property
    def notes(self) -> tuple[str, ...]:
        """What operators should know: counts that are not known, autoscalers that lose steps or cannot be read."""
        return (*self._missing, *(() if self.reader is None else self.reader.notes))

    def notes_of(self, deployment: str) -> tuple[str, ...]:
        """What operators should correct of one deployment's autoscalers."""
        return () if self.reader is None else self.reader.notes_of(deployment)

    def collect(self) -> Iterator[Metric]:
        """The metrics, read when the page is made. A value that is not known is left out."""
        known = GaugeMetricFamily(
            "wattscale_connector_counts_known", "1 while counts are served, 0 while errors are.", labels=["deployment"]
        )
        wanted = GaugeMetricFamily(
            "wattscale_connector_wanted_replicas", "The count that is served.", labels=["deployment", "pool"]
        )
        for name, one in self.decisions.items():
            known.add_metric([name], 0.0 if one.missing else 1.0)
            for count in () if one.missing else one.counts():
                wanted.add_metric([name, count.pool], float(count.replicas))
        lost = GaugeMetricFamily(
            "wattscale_connector_steps_lost_from",
            "From which count on this HorizontalPodAutoscaler ignores single steps; absent: from none.",
            labels=["deployment", "pool", "autoscaler"],
        )
        for found in self.reader.found if self.reader is not None else ():
            if found.from_replicas is not None:
                lost.add_metric([found.deployment, found.pool, found.autoscaler], float(found.from_replicas))
        yield from (known, wanted, lost)

    def metrics(self) -> bytes:
        """The metrics as text in Prometheus' format."""
        return metrics_page(self)


async def _run(settings: AutoscalerFile, api: KubernetesApi | None) -> int:
    view = AutoscalerView()
    shown = pages(settings.http, view, view.metrics, lambda: view.notes)
    return await run_until_signal({"connector": serve(settings, api, view), **shown})


async def serve(settings: AutoscalerFile, api: KubernetesApi | None, view: AutoscalerView) -> None:
    """Serve counts until cancelled. Raises SecondConnectorError, and OSError for an address that is taken."""
    name = settings.name or f"autoscaler on {socket.gethostname()}"
    async with AsyncExitStack() as stack:
        if api is not None:
            await stack.enter_async_context(api)
        bus = await connected(settings.nats.model_copy(update={"name": "wattscale-connector-autoscaler"}))
        stack.push_async_callback(bus.close)
        served = settings.served()
        targets: dict[str, dict[str, str]] = {one: {} for one in served}
        claims = await stack.enter_async_context(
            claimed(bus, this_process(name), targets, settings.claim_ttl_s, view.notes_of, acknowledges=False)
        )
        await run_together({**_parts(settings, bus, api, view), "claims": claims.keep()})


def _parts(
    settings: AutoscalerFile, bus: Bus, api: KubernetesApi | None, view: AutoscalerView
) -> dict[str, Coroutine[Any, Any, None]]:
    """Everything that runs once the deployments are ours."""
    for name, namespace in settings.served().items():
        view.decisions[name] = NewestDecision(bus, name, namespace, settings.max_age_s)
    parts = {f"decisions of {name}": one.run() for name, one in view.decisions.items()}
    if settings.metrics_api.port is not None:
        answers = MetricsApi(view.decisions, lambda: view.notes)
        host, port = settings.metrics_api.host, settings.metrics_api.port
        listener = MetricListener(answers.answer, "metrics-api", host, port)
        view.listening["metrics API"] = listener.listening
        parts["metrics-api"] = listener.run()
    if settings.external_scaler.port is not None:
        parts["external scaler"] = _external_scaler(settings, view)
    if api is not None:
        view.reader = AutoscalerReader(api, tuple(view.decisions.values()), settings.read_back_s)
        parts["reader"] = view.reader.run()
    external = settings.external_metrics
    if api is not None and external.port is not None and external.files is not None:
        address = (external.host, external.port)
        view.external = ExternalMetricsApi(api, view.decisions, external.files, address, external.reload_s)
        parts["external metrics"] = view.external.run()
    return parts


def _external_scaler(settings: AutoscalerFile, view: AutoscalerView) -> Coroutine[Any, Any, None]:
    # gRPC is 20 MB that only this needs.
    from agent.connectors.autoscaler.keda.external_scaler import ExternalScaler
    from agent.connectors.autoscaler.keda.scaler_server import serve_scaler

    listening = view.listening["external scaler"] = asyncio.Event()
    return serve_scaler(settings.external_scaler, ExternalScaler(view.decisions), listening)

"""One planner put together from its settings: the service, its metrics and health pages, its traces.

``wattscale planner run`` and ``wattscale up`` both use it; they differ in the bus, the settings and who stops it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from agent.adapters.kubernetes.access import Access, NoAccessError, find_access
from agent.adapters.kubernetes.api import ApiError, KubernetesApi
from bus_schemas.jetstream.connect import Bus, unopened
from bus_schemas.jetstream.consumers import maintain
from bus_schemas.jetstream.tasks.backoff import Backoff
from bus_schemas.jetstream.tasks.task_group import run_together
from deploy.cli.errors import UsageError
from deploy.collector import collect_seldom
from deploy.compose.connectors.beside_planner import OWN_GRAPH, SideConnector
from deploy.compose.metric_sources import SharedClients, observers
from deploy.dashboard.feed import Feed
from deploy.dashboard.page_server import DashboardServer
from deploy.dashboard.planner_steering import PlannerSteering
from deploy.event_loop import until_signal
from planner.adapters.graph_model import GraphModel, detect
from planner.domain.config import PlannerConfig
from planner.ports import Clock
from planner.runtime.clock import SteadyClock
from planner.runtime.config.settings import DeploymentSettings, KubernetesBlock, Settings
from planner.runtime.decision_event import DecisionEvent, Watcher
from planner.runtime.service import PlannerService, ServiceSettings
from planner.runtime.telemetry.decision_log import DecisionLog
from planner.runtime.telemetry.event_files import EventFiles
from planner.runtime.telemetry.health import NODE_TERM_S, HealthServer
from planner.runtime.telemetry.instruments import Instruments
from planner.runtime.telemetry.interval_log import IntervalLog
from planner.runtime.telemetry.tracing import tracing

log = logging.getLogger("wattscale.planner")

DETECT_WITHIN_S = 10.0
"""The longest that a start waits for an API server that does not answer."""


async def run_planner(settings: Settings, config: PlannerConfig, beside: Sequence[SideConnector] = ()) -> None:
    """Run until SIGINT or SIGTERM, whatever the planner waits for at that moment. ``beside``: run while it leads.

    Waits for a bus that is not there yet, and is not ready until then. Raises OSError where the health port is taken.
    """
    collect_seldom()
    await until_signal(_serve(settings, config, beside))


async def _serve(settings: Settings, config: PlannerConfig, beside: Sequence[SideConnector]) -> None:
    settings = await with_detected_models(settings)
    traces = tracing(settings.otlp.endpoint)
    try:
        bus = unopened(settings.bus)
        try:
            models = {name: block.model for name, block in settings.deployments.items()}
            watchers: list[Watcher] = [IntervalLog(config, models), DecisionLog().watch, traces.watch]
            await Planner(settings, config, bus, watchers=watchers, trace=traces.begin, beside=beside).run()
        finally:
            await bus.close()
    finally:
        await asyncio.to_thread(traces.close)


async def with_detected_models(settings: Settings, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings, with ``model`` read from each deployment's graph where it is not set and Kubernetes is at hand.

    A model that cannot be read is a warning with its cause, and metrics of any model are taken, as without Kubernetes.
    Raises UsageError for ``kubernetes.mode: on`` without a way to reach the API server.
    """
    access = _kubernetes(settings.kubernetes, environ)
    if access is None:
        return settings
    graph = environ.get(OWN_GRAPH, "") if len(settings.deployments) == 1 else ""
    async with KubernetesApi(access, timeout_s=DETECT_WITHIN_S) as api:
        found = await asyncio.gather(*(_detected(api, name, graph) for name in settings.deployments))
    blocks = {
        name: _served(name, block, model)
        for (name, block), model in zip(settings.deployments.items(), found, strict=True)
    }
    return settings.model_copy(update={"deployments": blocks})


def _kubernetes(block: KubernetesBlock, environ: Mapping[str, str]) -> Access | None:
    inside = "KUBERNETES_SERVICE_HOST" in environ
    if block.mode == "off" or (block.mode == "auto" and block.kubeconfig is None and not inside):
        return None
    try:
        return find_access(block.kubeconfig, environ)
    except NoAccessError as error:
        raise UsageError(f"kubernetes: {error}") from error


async def _detected(api: KubernetesApi, name: str, graph: str) -> GraphModel:
    async def read(path: str) -> Mapping[str, Any] | None:
        try:
            return await api.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    backoff, cause = Backoff(0.5, 4.0), "it does not answer"
    try:
        async with asyncio.timeout(DETECT_WITHIN_S):
            while True:
                try:
                    return await detect(name, api.access.namespace, read, graph)
                except ApiError as error:
                    cause = str(error)
                    if error.status == 403:
                        return GraphModel(why=f"{cause}; allow get on dynamographdeployments.nvidia.com")
                    if error.status == 401:
                        return GraphModel(why=f"the Kubernetes API: {cause}; renew the token or kubeconfig")
                await asyncio.sleep(backoff.next_s())
    except TimeoutError:
        return GraphModel(why=f"the Kubernetes API: {cause}")


def _served(name: str, block: DeploymentSettings, found: GraphModel) -> DeploymentSettings:
    """The deployment's settings with the model that was found, where none is set; what differs is logged."""
    extra = {"deployment": name}
    if found.name:
        log.info("Detected model name from deployment: %s", found.name, extra=extra)
        if not block.model:
            return block.model_copy(update={"model": found.name})
        if block.model.casefold() != found.name.casefold():
            log.warning("model %s is set, and the deployment serves %s: set one", block.model, found.name, extra=extra)
    elif not block.model:
        log.warning("No model name from deployment: %s; metrics of any model are taken", found.why, extra=extra)
    return block


class Planner:
    """A planner's service with its health and metrics pages. Raises UsageError for tokens that cannot be used.

    ``health`` and ``dashboard`` are None where the settings turn them off. ``bus`` is opened here where it is not open
    yet; closed by whoever made it.
    """

    def __init__(
        self,
        settings: Settings,
        config: PlannerConfig,
        bus: Bus,
        *,
        watchers: Sequence[Watcher] = (),
        trace: Callable[[DecisionEvent], str | None] = lambda event: None,
        beside: Sequence[SideConnector] = (),
    ) -> None:
        clock = SteadyClock()
        self._settings = settings
        self._bus = bus
        self._shared = SharedClients(settings)
        self.service = PlannerService(
            config,
            bus,
            observers(settings, self._shared),
            service_settings(settings),
            clock,
            watchers=watchers,
            trace=trace,
            while_leading={each.name: each.run for each in beside},
        )
        models = {name: block.model for name, block in settings.deployments.items()}
        self._event_files = None if settings.tensorboard_dir is None else EventFiles(settings.tensorboard_dir)
        if self._event_files is not None:
            self.service.watch(self._event_files.watch)
        self._instruments = Instruments(config, self.service.vitals, models, self.service.bus_watch.problems)
        self.service.watch(self._instruments.watch)
        self.health = self._health(config, clock)
        steering = settings.dashboard.steering
        self._steering = None if steering is None else PlannerSteering(settings, steering)
        self.dashboard = self._dashboard()

    def _health(self, config: PlannerConfig, clock: Clock) -> HealthServer | None:
        block = self._settings.health
        if block.port is None:
            return None
        health = HealthServer(
            self.service.vitals,
            lambda: self._bus.connected,
            self._instruments.page,
            host=block.host,
            port=block.port,
            interval_s=config.interval_s,
            live_within_s=block.live_within_s,
            clock=clock,
            bus_watch=self.service.bus_watch,
            trouble=lambda: self._bus.trouble,
            unserved=self._unserved,
            node_term_s=min((site.stale_s for site in config.sites.values()), default=NODE_TERM_S),
        )
        self.service.watch(health.watch)
        return health

    def _unserved(self) -> str:
        return "" if self.dashboard is None or self.dashboard.serving.is_set() else "the dashboard"

    def _dashboard(self) -> DashboardServer | None:
        block = self._settings.dashboard
        if block.port is None:
            return None
        return DashboardServer(
            Feed(self._bus, share=self.service.listener.shared_with),
            host=block.host,
            port=block.port,
            path_prefix=block.path_prefix,
            host_names=block.host_names,
            steering=None if self._steering is None else self._steering.steering,
        )

    async def run(self) -> None:
        """Run until cancelled, or until a part fails; connections to metrics are closed on the way out."""
        parts: dict[str, Coroutine[Any, Any, None]] = {"service": self.service.run()}
        if self._settings.provision:
            parts["maintain"] = maintain(self._bus)
        if self.health is not None:
            parts["health"] = self.health.run()
        if self.dashboard is not None:
            parts["dashboard"] = self.dashboard.run()
        if self._steering is not None:
            parts["steering"] = self._steering.run()
        try:
            await run_together(parts)
        finally:
            self._instruments.close()
            if self._event_files is not None:
                self._event_files.close()
            await self._shared.close()


def service_settings(settings: Settings) -> ServiceSettings:
    """How the service runs."""
    return ServiceSettings(
        holder=settings.lease.holder,
        lease_ttl_s=settings.lease.ttl_s,
        observe_timeout_s=max(5.0, settings.interval_s / 2),
        journal=settings.journal,
    )

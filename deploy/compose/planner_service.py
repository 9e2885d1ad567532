"""One planner put together from its settings: the service, its metrics and health pages, its traces.

``wattscale planner run`` and ``wattscale up`` both use it; they differ in the bus, the settings and who stops it.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from bus_schemas.jetstream.connect import Bus, unopened
from bus_schemas.jetstream.consumers import maintain
from bus_schemas.jetstream.tasks.task_group import ended, run_together
from deploy.compose.metric_sources import SharedClients, observers
from planner.domain.config import PlannerConfig
from planner.ports import Clock
from planner.runtime.clock import SteadyClock
from planner.runtime.config.settings import Settings
from planner.runtime.decision_event import DecisionEvent, Watcher
from planner.runtime.service import PlannerService, ServiceSettings
from planner.runtime.telemetry.decision_log import log_decision
from planner.runtime.telemetry.event_files import EventFiles
from planner.runtime.telemetry.health import NODE_TERM_S, HealthServer
from planner.runtime.telemetry.instruments import Instruments
from planner.runtime.telemetry.interval_log import IntervalLog
from planner.runtime.telemetry.tracing import tracing


async def run_planner(settings: Settings, config: PlannerConfig) -> None:
    """Run until SIGINT or SIGTERM, whatever the planner waits for at that moment.

    Waits for a bus that is not there yet, and is not ready until then. Raises OSError where the health port is taken.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    serving = asyncio.create_task(_serve(settings, config), name="planner")
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        await ended(serving, stopping)
    if not (stop.is_set() and serving.cancelled()):
        serving.result()


async def _serve(settings: Settings, config: PlannerConfig) -> None:
    traces = tracing(settings.otlp.endpoint)
    try:
        bus = unopened(settings.bus)
        try:
            models = {name: block.model for name, block in settings.deployments.items()}
            watchers: list[Watcher] = [IntervalLog(config, models), log_decision, traces.watch]
            await Planner(settings, config, bus, watchers=watchers, trace=traces.begin).run()
        finally:
            await bus.close()
    finally:
        await asyncio.to_thread(traces.close)


class Planner:
    """A planner's service with its health and metrics pages.

    ``health`` is None where the settings turn the pages off. ``bus`` is opened here where it is not open yet; closed by
    whoever made it.
    """

    def __init__(
        self,
        settings: Settings,
        config: PlannerConfig,
        bus: Bus,
        *,
        watchers: Sequence[Watcher] = (),
        trace: Callable[[DecisionEvent], str | None] = lambda event: None,
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
        )
        models = {name: block.model for name, block in settings.deployments.items()}
        self._event_files = None if settings.tensorboard_dir is None else EventFiles(settings.tensorboard_dir)
        if self._event_files is not None:
            self.service.watch(self._event_files.watch)
        self._instruments = Instruments(config, self.service.vitals, models, self.service.bus_watch.problems)
        self.service.watch(self._instruments.watch)
        self.health = self._health(config, clock)

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
            node_term_s=min((site.stale_s for site in config.sites.values()), default=NODE_TERM_S),
        )
        self.service.watch(health.watch)
        return health

    async def run(self) -> None:
        """Run until cancelled, or until a part fails; connections to metrics are closed on the way out."""
        parts: dict[str, Coroutine[Any, Any, None]] = {"service": self.service.run()}
        if self._settings.provision:
            parts["maintain"] = maintain(self._bus)
        if self.health is not None:
            parts["health"] = self.health.run()
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

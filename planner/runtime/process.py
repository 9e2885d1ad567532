"""One planner process: connect, provision, serve until told to stop, and leave in order."""

from __future__ import annotations

import asyncio
import signal

from bus_schemas.jetstream.connect import connect
from bus_schemas.jetstream.consumers import maintain
from bus_schemas.jetstream.tasks.task_group import ended, run_together
from planner.domain.config import PlannerConfig
from planner.runtime.clock import SteadyClock
from planner.runtime.config.build_service import observers, service_settings
from planner.runtime.config.settings import Settings
from planner.runtime.service import PlannerService
from planner.runtime.telemetry.decision_log import log_decision
from planner.runtime.telemetry.health import HealthServer
from planner.runtime.telemetry.instruments import Instruments
from planner.runtime.telemetry.tracing import tracing


async def run_planner(settings: Settings, config: PlannerConfig) -> None:
    """Until SIGINT or SIGTERM, whatever it is at then.

    Raises BusUnreachableError where no server answers at the start.
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
    """Until cancelled, or until a part of it fails."""
    clock = SteadyClock()
    traces = tracing(settings.otlp.endpoint)
    bus = await connect(settings.bus)
    read, clients = observers(settings)
    try:
        how = service_settings(settings)
        service = PlannerService(
            config, bus, read, how, clock, watchers=[log_decision, traces.watch], trace=traces.begin
        )
        models = {name: block.model for name, block in settings.deployments.items()}
        instruments = Instruments(config, service.vitals, models)
        service.watch(instruments.watch)
        parts = {"service": service.run()}
        if settings.provision:
            parts["maintain"] = maintain(bus)
        if settings.health.port is not None:
            health = HealthServer(
                service.vitals,
                lambda: bus.connected,
                instruments.page,
                host=settings.health.host,
                port=settings.health.port,
                interval_s=config.interval_s,
                live_within_s=settings.health.live_within_s,
                clock=clock,
            )
            service.watch(health.watch)
            parts["health"] = health.run()
        try:
            await run_together(parts)
        finally:
            instruments.close()
    finally:
        for client in clients:
            await client.close()
        await bus.close()
        await asyncio.to_thread(traces.close)

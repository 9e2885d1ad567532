"""One planner process: connect, provision, serve until told to stop, and leave in order."""

from __future__ import annotations

import asyncio
import signal

from bus_schemas.jetstream.connect import connect
from bus_schemas.jetstream.tend import tend
from planner.domain.config import PlannerConfig
from planner.runtime.clock import SteadyClock
from planner.runtime.compose_service import observers, service_settings
from planner.runtime.health import HealthServer
from planner.runtime.instruments import Instruments
from planner.runtime.service import PlannerService
from planner.runtime.settings import Settings
from planner.runtime.telling import tell
from planner.runtime.tracing import tracing


async def run_planner(settings: Settings, config: PlannerConfig) -> None:
    """Until SIGINT or SIGTERM. Raises BusUnreachable where no server answers at the start."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    clock = SteadyClock()
    bus = await connect(settings.bus)
    read, clients = observers(settings)
    traces = tracing(settings.otlp.endpoint)
    try:
        how = service_settings(settings)
        service = PlannerService(config, bus, read, how, clock, watchers=[tell, traces.watch], trace=traces.begin)
        models = {name: block.model for name, block in settings.deployments.items()}
        instruments = Instruments(config, service.vitals, models)
        service.watch(instruments.watch)
        running = [service.run()]
        if settings.provision:
            running.append(tend(bus))
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
            running.append(health.run())
        tasks: list[asyncio.Task[object]] = [asyncio.create_task(work) for work in running]
        tasks.append(asyncio.create_task(stop.wait()))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            instruments.close()
    finally:
        for client in clients:
            await client.close()
        await asyncio.to_thread(traces.close)
        await bus.close()

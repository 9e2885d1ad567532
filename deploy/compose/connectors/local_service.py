"""Composes the connector of local workers from its settings, runs it, and stops it in order."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.connectors.local.local_connector import LocalConnector, actuator_name
from agent.connectors.local.local_file import LocalConnectorFile
from agent.connectors.local.worker_records import StateFolderError
from agent.connectors.scaling_channel import ScalingChannel
from bus_schemas.errors import BusError
from bus_schemas.jetstream.connect import Bus, connect
from bus_schemas.jetstream.settings import BusSettings
from bus_schemas.jetstream.tasks.backoff import Backoff
from bus_schemas.subjects import BadNameError, scaling_consumer
from bus_schemas.visible_text import visible_handler
from deploy.cli.errors import UsageError
from deploy.compose.settings_layers import Merged
from deploy.compose.settings_loader import Loaded, validated
from deploy.compose.settings_sources import read_file
from deploy.event_loop import limit_repeats

log = logging.getLogger("wattscale.connector")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0


def load_local(file: Path, flags: Mapping[str, Any]) -> Loaded[LocalConnectorFile]:
    """The settings of a file, with flags before it. Raises SettingsError."""
    merged = Merged()
    merged.put((), read_file(LocalConnectorFile, file), str(file))
    for name, value in flags.items():
        if value is not None:
            merged.put(name.split("."), value, f"flag for {name}")
    return validated(LocalConnectorFile, merged)


def run_local(settings: LocalConnectorFile) -> int:
    """Run until SIGTERM or SIGINT. Raises UsageError for settings that cannot work here."""
    handler = visible_handler("%(levelname)s %(name)s: %(message)s")
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    try:
        scaling_consumer(settings.deployment)
    except BadNameError as error:
        raise UsageError(f"deployment: {error}") from error
    with _only_one(settings.state_folder):
        return asyncio.run(_run(settings))


async def carry_out(settings: LocalConnectorFile) -> None:
    """Carry decisions out until cancelled; workers stay. Raises UsageError for a state folder that is in use."""
    stop = asyncio.Event()
    with _only_one(settings.state_folder):
        running = asyncio.create_task(_serve(settings, stop))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            stop.set()
            await running
            raise


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the state folder. The kernel releases it when the process ends, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UsageError(f"state_folder: {error.filename}: {error.strerror}") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(held, 0)
        os.write(held, f"{os.getpid()}\n".encode())
        yield
    except BlockingIOError as error:
        holder = os.pread(held, 20, 0).decode(errors="replace").strip()
        raise UsageError(f"state_folder: {folder} is in use by another connector (process {holder})") from error
    finally:
        os.close(held)


async def _run(settings: LocalConnectorFile) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    limit_repeats(loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await _serve(settings, stop)
    return 0


async def _serve(settings: LocalConnectorFile, stop: asyncio.Event) -> None:
    bus = await _connected(settings.nats.model_copy(update={"name": f"connector-{settings.deployment}"}), stop)
    if bus is None:
        return
    try:
        channel = ScalingChannel(bus, settings.deployment, actuator_name())
        await LocalConnector(settings, channel).run(stop)
    except StateFolderError as error:
        raise UsageError(str(error)) from error
    finally:
        await bus.close()


async def _connected(settings: BusSettings, stop: asyncio.Event) -> Bus | None:
    """A connection, however long the server is away; None where the process is asked to stop before."""
    backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
    while not stop.is_set():
        try:
            return await connect(settings)
        except BusError as error:
            pause_s = backoff.next_s()
            log.warning("%s; trying again in %.1f s", error, pause_s)
            await asyncio.sleep(pause_s)
    return None

"""Composes the connector of local workers from its settings, runs it, and stops it in order."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.connectors.bus_claims import SecondConnectorError, claimed
from agent.connectors.local.local_connector import LocalConnector, actuator_name
from agent.connectors.local.local_file import LocalConnectorFile
from agent.connectors.local.worker_records import StateFolderError
from agent.connectors.scaling_channel import ScalingChannel
from bus_schemas.jetstream.tasks.task_group import ended, run_together
from bus_schemas.subjects import BadNameError, scaling_consumer
from deploy.cli.errors import UsageError
from deploy.compose.connectors.connector_metrics import ChannelMetrics
from deploy.compose.connectors.connector_process import connected, log_to_stderr, metrics_page, pages, this_process
from deploy.compose.settings_layers import Merged
from deploy.compose.settings_loader import Loaded, validated
from deploy.compose.settings_sources import read_file
from deploy.event_loop import limit_repeats


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
    log_to_stderr(settings.log_level)
    try:
        scaling_consumer(settings.deployment)
    except BadNameError as error:
        raise UsageError(f"deployment: {error}") from error
    with only_one_connector(settings.state_folder):
        return asyncio.run(_run(settings))


async def carry_out(settings: LocalConnectorFile) -> None:
    """Carry decisions out until cancelled; workers stay.

    Raises UsageError for a state folder that is in use, and SecondConnectorError.
    """
    stop, view = asyncio.Event(), LocalView()
    with only_one_connector(settings.state_folder):
        running = asyncio.create_task(_serve(settings, view, stop))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            _end(running, view, stop)
            await asyncio.gather(running, return_exceptions=True)
            raise


@contextmanager
def only_one_connector(folder: Path) -> Iterator[None]:
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


@dataclass(slots=True)
class LocalView:
    """What the pages show. ``channel`` is None until the bus was reached."""

    channel: ScalingChannel | None = None

    @property
    def not_ready(self) -> str:
        """Why decisions cannot be carried out now; empty where they can."""
        if self.channel is None or not self.channel.started.is_set():
            return "the bus has not been reached yet"
        return "" if self.channel.connected else "the bus is away"

    def page(self) -> bytes:
        """The metrics as text in Prometheus' format."""
        return metrics_page(*([ChannelMetrics(self.channel)] if self.channel is not None else []))


async def _run(settings: LocalConnectorFile) -> int:
    stop, view = asyncio.Event(), LocalView()
    loop = asyncio.get_running_loop()
    limit_repeats(loop)
    working = asyncio.create_task(_serve(settings, view, stop), name="connector")
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _end, working, view, stop)
    try:
        await _until_done(working, pages(settings.http, view, view.page))
    except (SecondConnectorError, OSError) as error:
        raise UsageError(str(error)) from error
    return 0


def _end(working: asyncio.Task[None], view: LocalView, stop: asyncio.Event) -> None:
    """Ask for an orderly stop."""
    stop.set()
    if view.channel is None:
        working.cancel()  # It still waits for the bus, or for the claim of a connector that was killed.


async def _serve(settings: LocalConnectorFile, view: LocalView, stop: asyncio.Event) -> None:
    name = settings.name or actuator_name()
    bus = await connected(settings.nats.model_copy(update={"name": f"connector-{settings.deployment}"}))
    try:
        # The lock of the state folder is the claim on its workers: no other machine has them.
        async with claimed(bus, this_process(name), {settings.deployment: {}}, settings.claim_ttl_s) as claims:
            view.channel = ScalingChannel(bus, settings.deployment, name)
            work = asyncio.create_task(LocalConnector(settings, view.channel).run(stop), name="workers")
            await _until_done(work, {"claims": claims.keep()})
    except StateFolderError as error:
        raise UsageError(str(error)) from error
    finally:
        await bus.close()


async def _until_done(work: asyncio.Task[None], parts: Mapping[str, Coroutine[Any, Any, None]]) -> None:
    """Wait for ``work`` to end, with ``parts`` beside it. Raises the error of whatever fails first."""
    beside = [asyncio.create_task(run_together(parts))] if parts else []
    try:
        await asyncio.wait({work, *beside}, return_when=asyncio.FIRST_COMPLETED)
        for task in (work, *beside):
            if task.done() and not task.cancelled():
                task.result()
                return
    finally:
        await ended(work, *beside)

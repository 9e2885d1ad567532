"""The workers of a local request, in the records of `wattscale connector local`, which adopts them when it starts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

from agent.connectors.local.local_file import LocalConnectorFile
from agent.connectors.local.worker_calls import WorkerCalls
from agent.connectors.local.worker_records import StateFolderError, WorkerRecords
from agent.connectors.local.worker_set import LocalWorkers
from agent.core.scaling.scaling_types import SetReplicas
from agent.core.scaling.worker_lifecycle import WorkerStage
from agent.drivers.procfs import ProcFs
from agent.runtime.boot import boot_id
from deploy.cli.errors import CliError, UsageError
from deploy.compose.connectors.local_service import load_local, only_one_connector
from deploy.compose.settings_layers import SettingsError
from planner.profiler.requests.lifecycle import DeploymentProgress, DeploymentSeen

FAILS_AFTER_S = 10.0
"""Workers that end by themselves again and again for this long are not tried any more."""


class LocalDeployment:
    """The workers that a connector's settings file describes."""

    def __init__(self, settings_file: Path) -> None:
        self._file = settings_file
        self._failed = ""

    def seen(self) -> DeploymentSeen:
        """What runs, by the records and the processes. Raises UsageError."""
        if self._failed:
            return DeploymentSeen(DeploymentProgress.FAILED, self._failed)
        if not self._file.exists():
            if (records := self._file.with_name("workers.json")).exists():
                raise UsageError(
                    f"{self._file}: missing, and {records} has workers: put it back, or end them and remove the folder"
                )
            return DeploymentSeen()
        settings = self._settings()
        if not (settings.state_folder / "workers.json").exists():
            return DeploymentSeen()
        try:
            book = WorkerRecords(settings.state_folder).open(boot_id())
        except StateFolderError as error:
            raise UsageError(str(error)) from error
        wanted, ticks = sum(book.wanted.values()), ProcFs().start_ticks
        if not wanted and not book.workers:
            return DeploymentSeen()
        ready = sum(
            one.stage is WorkerStage.READY and one.pid > 0 and ticks(one.pid) == one.start_ticks for one in book.workers
        )
        if wanted and ready >= wanted:
            return DeploymentSeen(DeploymentProgress.READY)
        return DeploymentSeen(DeploymentProgress.STARTING, f"{ready} of {wanted} workers serve")

    def start(self, replicas: Mapping[str, int] | None, within_s: float) -> None:
        """Keep workers until all serve, at most ``within_s``. ``replicas``: the wanted counts; None: those that are.

        Raises UsageError where a connector keeps them already.
        """
        settings = self._settings()
        with only_one_connector(settings.state_folder):
            self._failed = asyncio.run(_served(settings, replicas, within_s))

    def drain(self, within_s: float) -> None:
        """Let all workers finish and end. Raises UsageError as above, and CliError where they do not end."""
        settings = self._settings()
        with only_one_connector(settings.state_folder):
            if not asyncio.run(_drained(settings, within_s)):
                raise CliError(f"workers still run after {within_s:g} s; see {settings.state_folder}")

    def _settings(self) -> LocalConnectorFile:
        try:
            return load_local(self._file, {}).settings
        except SettingsError as error:
            problems = "; ".join(error.problems)
            where = "" if str(self._file) in problems else f"{self._file}: "
            raise UsageError(f"{where}{problems}") from error


async def _served(settings: LocalConnectorFile, replicas: Mapping[str, int] | None, within_s: float) -> str:
    """Why they cannot serve; empty where they do, or where the time is over."""
    began_s = last_well_s = time.monotonic()
    async with WorkerCalls() as calls:
        workers = _workers(settings, calls)
        seen = workers.seen()
        for pool, count in (replicas or {}).items():
            if seen[pool].wanted != count:
                workers.want(SetReplicas(pool, count, seen[pool].wanted or 0))
        while time.monotonic() - began_s < within_s:
            await workers.step()
            seen = workers.seen()
            if all(one.ready >= (one.wanted or 0) for one in seen.values()):
                return ""
            problems = [one.problem.reason for one in seen.values() if one.problem is not None]
            if not problems:
                last_well_s = time.monotonic()
            elif time.monotonic() - last_well_s > FAILS_AFTER_S:
                return problems[0]
            await asyncio.sleep(settings.interval_s)
    return ""


async def _drained(settings: LocalConnectorFile, within_s: float) -> bool:
    began_s = time.monotonic()
    async with WorkerCalls() as calls:
        workers = _workers(settings, calls)
        for pool, seen in workers.seen().items():
            workers.want(SetReplicas(pool, 0, seen.wanted or 0))
        await workers.step()
        while not workers.empty:
            if time.monotonic() - began_s > within_s:
                return False
            await asyncio.sleep(settings.interval_s)
            await workers.step()
    return True


def _workers(settings: LocalConnectorFile, calls: WorkerCalls) -> LocalWorkers:
    records = WorkerRecords(settings.state_folder)
    try:
        book = records.open(boot_id())
    except StateFolderError as error:
        raise UsageError(str(error)) from error
    workers = LocalWorkers(settings, records, book, calls, time.monotonic)
    workers.adopt()
    return workers

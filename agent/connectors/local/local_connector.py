"""The connector of one machine: decisions from the bus, workers as processes."""

from __future__ import annotations

import asyncio
import logging
import platform
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from agent.connectors.local.local_file import LocalConnectorFile
from agent.connectors.local.worker_calls import WorkerCalls
from agent.connectors.local.worker_records import WorkerRecords
from agent.connectors.local.worker_set import LocalWorkers
from agent.core.scaling.counts import compare
from agent.core.scaling.scaling_types import (
    ReplicaDecision,
    ScalingProblem,
    ScalingProgress,
    ScalingState,
    SetReplicas,
)
from agent.runtime.boot import boot_id
from bus_schemas.jetstream.tasks.task_group import run_together

log = logging.getLogger(__name__)


class ScalingDesk(Protocol):
    """Where decisions come from and acknowledgements go: `agent.connectors.scaling_channel.ScalingChannel`."""

    state: ScalingState
    changed: asyncio.Event

    async def run(self) -> None:
        """Receive decisions until cancelled."""
        ...

    async def report(self, progress: ScalingProgress) -> None:
        """Acknowledge an observation where that is news; returns when it is stored."""
        ...


def actuator_name() -> str:
    """Who acknowledges, for people."""
    return f"local on {platform.node()}"


def refused(decision: ReplicaDecision, unknown: Sequence[str], known: Sequence[str]) -> ScalingProgress:
    """The progress of a decision for pools that are not configured here."""
    reason = f"no such pool here: {', '.join(unknown)}; there are: {', '.join(known)}"
    return ScalingProgress(decision.key, complete=False, problem=ScalingProblem(reason, retryable=False))


class LocalConnector:
    """One deployment on one machine."""

    def __init__(self, file: LocalConnectorFile, desk: ScalingDesk) -> None:
        self._file = file
        self._desk = desk
        self._news: asyncio.Queue[ScalingProgress] = asyncio.Queue(maxsize=1)

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the workers until ``stop`` is set. Raises StateFolderError, and OSError where the folder is lost."""
        records = WorkerRecords(self._file.state_folder)
        book = records.open(boot_id())
        async with WorkerCalls() as calls:
            workers = LocalWorkers(self._file, records, book, calls, time.monotonic)
            workers.adopt()
            parts = {
                "decisions": self._desk.run(),
                "acknowledgements": self._acknowledge(),
                "workers": self._keep(workers),
            }
            running = asyncio.create_task(run_together(parts))
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not running.done():
                running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            if self._file.on_exit == "drain":
                await self._drain_all(workers)

    async def _keep(self, workers: LocalWorkers) -> None:
        while True:
            decision = self._desk.state.pursued
            unknown = sorted(set(decision.replicas) - set(self._file.pools)) if decision is not None else []
            if decision is not None and not unknown:
                self._pursue(workers, decision)
            await workers.step()
            if decision is not None and unknown:
                self._leave(refused(decision, unknown, sorted(self._file.pools)))
            elif decision is not None and decision == self._desk.state.pursued:
                self._observed(workers, decision)
            await self._woken()

    def _pursue(self, workers: LocalWorkers, decision: ReplicaDecision) -> None:
        seen = workers.seen()
        # No second writer: the counts are this connector's own, so what is seen was written by it.
        written = {pool: one.wanted for pool, one in seen.items() if one.wanted is not None}
        for change in compare(decision, seen, written).actions:
            workers.want(change)

    def _observed(self, workers: LocalWorkers, decision: ReplicaDecision) -> None:
        """Leave the newest observation for the acknowledgements: workers are kept also while the bus is away."""
        seen = workers.seen()
        written = {pool: one.wanted for pool, one in seen.items() if one.wanted is not None}
        self._leave(compare(decision, seen, written).progress)

    def _leave(self, progress: ScalingProgress) -> None:
        if self._news.full():
            self._news.get_nowait()
        self._news.put_nowait(progress)

    async def _acknowledge(self) -> None:
        while True:
            await self._desk.report(await self._news.get())

    async def _woken(self) -> None:
        """Wait for a decision, or for the time of the next check."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._file.interval_s):
                await self._desk.changed.wait()
        self._desk.changed.clear()

    async def _drain_all(self, workers: LocalWorkers) -> None:
        """End every worker in order; the longest drain time bounds it."""
        for pool, seen in workers.seen().items():
            workers.want(SetReplicas(pool, 0, seen.wanted or 0))
        await workers.step()
        while not workers.empty:
            await asyncio.sleep(self._file.interval_s)
            await workers.step()

"""One machine's workers: starts, checks, drains and ends them as `agent.core.scaling.worker_lifecycle` says.

A start and a stage are in the record before they are acted on, a call or signal to leave after it: a connector that is
killed at any point is followed by one that repeats at most the call.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Callable, Collection, Mapping

from agent.connectors.local.local_file import LocalConnectorFile
from agent.connectors.local.worker_calls import WorkerCalls
from agent.connectors.local.worker_process import WorkerProcesses, WorkerStartError, environment_of, filled
from agent.connectors.local.worker_records import WorkerBook, WorkerRecord, WorkerRecords
from agent.core.scaling.scaling_types import PoolSeen, SetReplicas
from agent.core.scaling.worker_lifecycle import (
    DrainWorker,
    Failures,
    ForgetWorker,
    KillWorker,
    StartWorker,
    WorkerAction,
    WorkerSeen,
    WorkerStage,
    next_steps,
    pool_seen,
)

log = logging.getLogger(__name__)
MISSES = 3
"""Checks in a row without an answer until a ready worker counts as not ready: one may be late on a busy machine."""


class LocalWorkers:
    """The workers of one deployment on this machine. ``clock``: monotonic seconds of this boot."""

    def __init__(
        self,
        file: LocalConnectorFile,
        records: WorkerRecords,
        book: WorkerBook,
        calls: WorkerCalls,
        clock: Callable[[], float],
        processes: WorkerProcesses | None = None,
    ) -> None:
        self._file = file
        self._records = records
        self._book = book
        self._calls = calls
        self._clock = clock
        self._processes = processes or WorkerProcesses()
        self._rules = {name: pool.rules() for name, pool in file.pools.items()}
        self._failures: Mapping[str, Failures] = {}
        self._problems: Mapping[str, str] = {}
        self._placements: dict[str, tuple[tuple[str, ...], ...]] = {}
        self._misses: dict[str, int] = {}

    @property
    def empty(self) -> bool:
        """Whether no worker's process is left."""
        return not self._book.workers

    def adopt(self) -> None:
        """Take over what the last connector left. Workers of pools that are no longer configured are drained."""
        for record in list(self._book.workers):
            if not record.pid and (found := self._processes.find(record.mark)) is not None:
                record.pid, record.start_ticks = found
            if not record.pid:
                log.info("%s had not been started yet", record.worker)
                self._book.workers.remove(record)
                continue
            if record.pool not in self._file.pools:
                log.warning("%s: pool %s is not configured any more: it is ended", record.worker, record.pool)
                self._processes.terminate(record.pid, record.start_ticks)
                self._book.workers.remove(record)
                continue
            log.info("adopted %s (process %d, %s)", record.worker, record.pid, record.stage)
        self._book.wanted = {name: self._book.wanted.get(name, 0) for name in self._file.pools}
        self._records.store(self._book)

    def want(self, change: SetReplicas) -> None:
        """Make a count the wanted one of its pool; `step` brings it about."""
        self._book.wanted[change.pool] = change.replicas
        self._placements[change.pool] = change.placements
        self._records.store(self._book)
        log.info("%s: %d workers wanted, %d before", change.pool, change.replicas, change.was)

    def seen(self) -> dict[str, PoolSeen]:
        """Every pool as it was at the last `step`."""
        workers = self._workers({})
        return {
            name: pool_seen(name, self._book.wanted[name], workers, self._problems.get(name))
            for name in self._file.pools
        }

    async def step(self) -> None:
        """Check every worker, and do what has to be done now."""
        ended = {one.worker: self._processes.ended(one.pid, one.start_ticks) for one in self._book.workers}
        await asyncio.gather(*(self._check(one) for one in self._book.workers if not ended[one.worker]))
        steps = next_steps(
            self._book.wanted,
            self._workers({worker: how for worker, how in ended.items() if how}),
            self._rules,
            self._failures,
            self._file.gpus,
            self._clock(),
            self._placements,
        )
        for pool, failures in steps.failures.items():
            if failures.reason and failures != self._failures.get(pool):
                log.warning("%s: %s", pool, failures.reason)
        self._failures, self._problems = steps.failures, steps.problems
        leaving = [action for action in steps.actions if isinstance(action, DrainWorker)]
        for one in leaving:
            self._enter(self._record(one.worker), WorkerStage.DRAINING)
        if steps.actions:
            self._records.store(self._book)
        # Whoever routes requests knows it first; a request that comes all the same is refused by the worker.
        self._serve({worker for worker, how in ended.items() if how})
        for action in steps.actions:
            self._carry_out(action)
        await asyncio.gather(*(self._drain(one) for one in self._book.workers if one.stage is WorkerStage.DRAINING))
        if steps.actions:
            self._records.store(self._book)

    def _workers(self, ended: Mapping[str, str]) -> list[WorkerSeen]:
        return [
            WorkerSeen(
                one.worker,
                one.pool,
                one.stage,
                one.since_s,
                one.gpus,
                alive=one.worker not in ended,
                killed=one.killed,
                how_it_ended=f"{ended[one.worker]}; see {self._records.log_file(one.worker)}"
                if one.worker in ended
                else "",
            )
            for one in self._book.workers
        ]

    async def _check(self, record: WorkerRecord) -> None:
        if record.stage is WorkerStage.DRAINING or record.killed:
            return
        if await self._calls.serves(record.url + self._file.pools[record.pool].health_path):
            self._misses[record.worker] = 0
            if record.stage is WorkerStage.STARTING:
                self._enter(record, WorkerStage.READY)
                self._records.store(self._book)
                log.info("%s is ready on %s", record.worker, record.url)
            return
        if record.stage is WorkerStage.READY:
            self._misses[record.worker] = self._misses.get(record.worker, 0) + 1
            if self._misses[record.worker] >= MISSES:
                log.warning("%s does not answer any more: no requests are sent there", record.worker)
                self._enter(record, WorkerStage.STARTING)
                self._records.store(self._book)

    def _enter(self, record: WorkerRecord, stage: WorkerStage) -> None:
        record.stage, record.since_s = stage, self._clock()

    def _carry_out(self, action: WorkerAction) -> None:
        match action:
            case StartWorker():
                self._start(action)
            case KillWorker():
                record = self._record(action.worker)
                log.warning("%s: ended by SIGKILL", action.reason)
                record.killed = True
                self._records.store(self._book)
                self._processes.kill(record.pid, record.start_ticks)
            case ForgetWorker():
                record = self._record(action.worker)
                self._processes.forget(record.pid)
                self._book.workers.remove(record)
                self._misses.pop(record.worker, None)
                log.info("%s is gone", record.worker)
            case DrainWorker():
                record = self._record(action.worker)
                # One that never served has no request to finish, and perhaps no server to ask.
                if not action.was_ready or self._file.role_of(record.pool) == "prefill":
                    self._terminate(record)

    async def _drain(self, record: WorkerRecord) -> None:
        """Ask a worker to finish and end, until it has taken the call."""
        path = self._file.pools[record.pool].drain_path
        if record.drain_called or record.killed:
            return
        if path is None or not await self._calls.drains(record.url + path):
            if path is not None:
                log.warning("%s does not take the call to %s: it gets a SIGTERM instead", record.worker, path)
            self._terminate(record)
            return
        record.drain_called = True
        self._records.store(self._book)

    def _terminate(self, record: WorkerRecord) -> None:
        # Noted after it: a connector that is killed in between repeats the signal. One that was noted and never sent
        # would end in a SIGKILL.
        self._processes.terminate(record.pid, record.start_ticks)
        record.drain_called = True
        self._records.store(self._book)

    def _start(self, action: StartWorker) -> None:
        pool = self._file.pools[action.pool]
        mark = uuid.uuid4().hex
        worker = f"{action.pool}-{mark[:8]}"
        port = self._free_port()
        if port is None:
            log.warning(
                "%s: none of the %d ports from %d on is free", action.pool, self._file.ports, self._file.first_port
            )
            return
        record = WorkerRecord(worker, action.pool, port, action.gpus, mark, self._clock())
        self._book.workers.append(record)
        self._records.store(self._book)
        values = {
            "port": str(port),
            "worker": worker,
            "pool": action.pool,
            "gpus": ",".join(action.gpus),
            "model": self._file.model,
        }
        own = {name: filled(text, values) for name, text in pool.environment.items()}
        environment = environment_of(os.environ, own, action.gpus, mark)
        command = [filled(text, values) for text in pool.command]
        try:
            record.pid, record.start_ticks = self._processes.start(
                command, environment, pool.folder, self._records.log_file(worker)
            )
        except WorkerStartError as error:
            self._records.log_file(worker).write_text(f"{error}\n")
            # Its record is that of a process which has ended already; the next step counts the failure.
            record.pid = -1
            log.warning("%s: %s", worker, error)
            return
        log.info("%s started (process %d, port %d, GPUs %s)", worker, record.pid, port, values["gpus"] or "none")

    def _free_port(self) -> int | None:
        taken = {one.port for one in self._book.workers}
        for port in range(self._file.first_port, self._file.first_port + self._file.ports):
            if port in taken:
                continue
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
            return port
        return None

    def _record(self, worker: str) -> WorkerRecord:
        return next(one for one in self._book.workers if one.worker == worker)

    def _serve(self, ended: Collection[str]) -> None:
        """Name the workers that take requests. ``ended``: those whose process is gone."""
        serving = [one for one in self._book.workers if one.stage is WorkerStage.READY and not one.killed]
        ready = [one for one in serving if one.worker not in ended]
        self._records.serve(
            self._file.deployment,
            [
                {"worker": one.worker, "pool": one.pool, "role": self._file.role_of(one.pool), "url": one.url}
                for one in ready
            ],
        )

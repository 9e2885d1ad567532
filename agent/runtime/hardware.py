"""The newest readings of the node's GPUs, and the writes to them.

Owns the off-loop driver and turns its errors into health per GPU: the failure of one GPU is a value, never an
exception that stops the others, and a slow reading is taken in later. Never decides a limit, and never blocks its
caller for longer than the patience: the dead-man runs there. A GPU that was once seen is never forgotten, because its
watts do not go away when it stops answering.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from agent.core.caps import Health, SetLimit, WriteResult, health_of
from agent.core.caps import LimitReading as CapReading
from agent.drivers.off_loop import OffLoopDriver
from agent.ports import DRIVER_WIDE_KINDS, DriverError, DriverErrorKind, GpuInfo, GpuReading

log = logging.getLogger(__name__)

PATIENCE_S = 0.5
"""How long slow GPUs may delay a caller. Normally a limit is written in milliseconds."""


@dataclass(frozen=True, slots=True)
class HardwareSnapshot:
    """The newest state of one GPU. With an error, ``reading`` is the last good one, if there was one."""

    info: GpuInfo
    reading: GpuReading | None = None
    error: DriverError | None = None

    @property
    def health(self) -> Health:
        """What can be done with the GPU."""
        return health_of(self.error.kind.value if self.error else None)

    def for_caps(self) -> CapReading:
        """The core's form: after an error the limits are unknown, because an old value is not a readback."""
        known = self.reading if self.error is None else None
        return CapReading(
            gpu=self.info.gpu,
            requested_mw=known.requested_mw if known else None,
            enforced_mw=known.enforced_mw if known else None,
            default_mw=self.info.default_mw,
            min_mw=self.info.min_mw,
            max_mw=self.info.max_mw,
            health=self.health,
            resets=self.reading.resets if self.reading else 0,
        )


class Hardware:
    """All GPUs ever seen by this process, by UUID."""

    def __init__(
        self, driver: OffLoopDriver, *, dry_run: bool = False, on_late: Callable[[], None] = lambda: None
    ) -> None:
        self._driver = driver
        self._dry_run = dry_run
        self._on_late = on_late
        self.read_patience_s = self.write_patience_s = PATIENCE_S
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self.snapshots: dict[str, HardwareSnapshot] = {}
        self.unidentified: Mapping[str, DriverError] = {}
        """GPUs that fail before their UUID is known, by index."""
        self.driver_error: DriverError | None = None
        """Why the driver as a whole does not answer; None if it does."""

    async def discover(self) -> None:
        """Enumerate the GPUs again. If the driver does not answer, all GPUs stay known and get its error."""
        try:
            found = {info.gpu: info for info in await self._driver.enumerate()}
        except DriverError as error:
            self._doubt(error)
            return
        self.driver_error = None
        failed = self._driver.failed()
        self.unidentified = {name: error for name, error in failed.items() if name not in self.snapshots}
        for gpu, snapshot in self.snapshots.items():
            if gpu not in found:
                gone = DriverError(DriverErrorKind.NO_SUCH_GPU, "no longer enumerated", call="enumerate", gpu=gpu)
                self.snapshots[gpu] = replace(snapshot, error=failed.get(gpu, gone))
        for gpu, info in found.items():
            before = self.snapshots.get(gpu)
            self.snapshots[gpu] = HardwareSnapshot(info) if before is None else replace(before, info=info)

    def _doubt(self, error: DriverError) -> None:
        if self.driver_error is None or self.driver_error.kind is not error.kind:
            log.error("the GPU driver does not answer: %s", error)
        self.driver_error = error
        self.snapshots = {gpu: replace(snapshot, error=error) for gpu, snapshot in self.snapshots.items()}

    async def read(self) -> None:
        """Read all GPUs concurrently. One that takes longer keeps its last snapshot until it answers or times out."""
        free = [gpu for gpu in self.snapshots if gpu not in self._under_way]
        await self._in_time({gpu: self._read_one(gpu) for gpu in free}, self.read_patience_s)

    async def _read_one(self, gpu: str) -> None:
        before = self.snapshots[gpu]
        try:
            reading = await self._driver.read(gpu)
        except DriverError as error:
            if before.error is None or before.error.kind is not error.kind:
                log.warning("GPU %s: %s", gpu, error)
            if error.kind in DRIVER_WIDE_KINDS:
                self.driver_error = error
            self.snapshots[gpu] = replace(self.snapshots[gpu], error=error)
            return
        if before.error is not None:
            log.info("GPU %s answers again", gpu)
        self.snapshots[gpu] = HardwareSnapshot(self.snapshots[gpu].info, reading)

    async def write(self, orders: Sequence[SetLimit]) -> list[WriteResult]:
        """Set limits concurrently and read each back. Errors are in the results.

        A GPU whose write takes longer than ``write_patience_s`` is unknown until the call returns.
        """
        if self._dry_run:
            for order in orders:
                log.info("dry run: would set GPU %s to %.3f W", order.gpu, order.mw / 1000)
            return [WriteResult(order.gpu, order.mw) for order in orders]
        free = [order for order in orders if order.gpu not in self._under_way]
        errors: dict[str, str | None] = {}
        late = await self._in_time({order.gpu: self._write(order, errors) for order in free}, self.write_patience_s)
        for gpu in late:
            message = f"set_limit: still under way after {self.write_patience_s:g} s"
            slow = DriverError(DriverErrorKind.TIMEOUT, message, call="set_limit", gpu=gpu)
            self.snapshots[gpu] = replace(self.snapshots[gpu], error=slow)
            errors[gpu] = slow.kind.value
        return [WriteResult(order.gpu, order.mw, errors.get(order.gpu)) for order in free]

    async def _write(self, order: SetLimit, errors: dict[str, str | None]) -> None:
        try:
            await self._driver.set_limit(order.gpu, order.mw)
        except DriverError as error:
            log.warning("GPU %s refused %.3f W: %s", order.gpu, order.mw / 1000, error)
            errors[order.gpu] = error.kind.value
        await self._read_one(order.gpu)

    async def _in_time(self, work: Mapping[str, Coroutine[Any, Any, None]], patience_s: float) -> list[str]:
        """Run all of ``work``; what is not done in time, or at a cancellation, continues in the background.

        Returns the GPUs that are late. A write that was started is never forgotten: its outcome is read.
        """
        tasks = {gpu: asyncio.create_task(one, name=f"gpu {gpu}") for gpu, one in work.items()}
        try:
            if tasks:
                await asyncio.wait(tasks.values(), timeout=patience_s)
        finally:
            late = [gpu for gpu, task in tasks.items() if not task.done()]
            for gpu in late:
                self._under_way[gpu] = tasks[gpu]
                tasks[gpu].add_done_callback(partial(self._came_back, gpu))
        for task in tasks.values():
            if task.done():
                task.result()
        return late

    async def settle(self, timeout_s: float) -> None:
        """Wait up to ``timeout_s`` for calls in progress."""
        if self._under_way:
            await asyncio.wait(list(self._under_way.values()), timeout=timeout_s)

    def _came_back(self, gpu: str, _: asyncio.Task[None]) -> None:
        self._under_way.pop(gpu, None)
        self._on_late()

    def for_caps(self) -> dict[str, CapReading]:
        """All GPUs in the core's form."""
        return {gpu: snapshot.for_caps() for gpu, snapshot in self.snapshots.items()}

    async def close(self) -> None:
        """Release the driver; limits stay."""
        for task in list(self._under_way.values()):
            task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)
        await self._driver.close()

"""What the node's GPUs were when last looked at, and the writes to them.

Owns the off-loop driver and turns its errors into health, GPU by GPU: one GPU's failure is a value, never an
exception that stops the others. Must never decide a limit. A GPU that was once seen is never forgotten, because its
watts do not go away when it stops answering.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from agent.core.caps import GpuReading as CapReading
from agent.core.caps import Health, SetLimit, WriteResult, health_of
from agent.drivers.off_loop import OffLoopDriver
from agent.ports import DRIVER_WIDE_KINDS, DriverError, DriverErrorKind, GpuInfo, GpuReading

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Look:
    """The newest look at one GPU. With an error, ``reading`` is the last good one, if there ever was one."""

    info: GpuInfo
    reading: GpuReading | None = None
    error: DriverError | None = None

    @property
    def health(self) -> Health:
        """What can be done with the GPU."""
        return health_of(self.error.kind.value if self.error else None)

    def for_caps(self) -> CapReading:
        """As the core sees it: after an error the limits are unknown, for an old value is no readback."""
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

    def __init__(self, driver: OffLoopDriver, *, dry_run: bool = False) -> None:
        self._driver = driver
        self._dry_run = dry_run
        self.looks: dict[str, Look] = {}
        self.unidentified: Mapping[str, DriverError] = {}
        """GPUs that fail before they tell their UUID, by index."""
        self.driver_error: DriverError | None = None
        """Why the driver as a whole does not answer; None: it does."""

    async def discover(self) -> None:
        """Enumerate anew. A driver that does not answer leaves all GPUs known and their health in doubt."""
        try:
            found = {info.gpu: info for info in await self._driver.enumerate()}
        except DriverError as error:
            self._doubt(error)
            return
        self.driver_error = None
        failed = self._driver.failed()
        self.unidentified = {name: error for name, error in failed.items() if name not in self.looks}
        for gpu, look in self.looks.items():
            if gpu not in found:
                gone = DriverError(DriverErrorKind.NO_SUCH_GPU, "no longer enumerated", call="enumerate", gpu=gpu)
                self.looks[gpu] = replace(look, error=failed.get(gpu, gone))
        for gpu, info in found.items():
            before = self.looks.get(gpu)
            self.looks[gpu] = Look(info) if before is None else replace(before, info=info)

    def _doubt(self, error: DriverError) -> None:
        if self.driver_error is None or self.driver_error.kind is not error.kind:
            log.error("the GPU driver does not answer: %s", error)
        self.driver_error = error
        self.looks = {gpu: replace(look, error=error) for gpu, look in self.looks.items()}

    async def read(self, gpus: Iterable[str] | None = None) -> None:
        """Read ``gpus`` (default: all) side by side."""
        wanted = list(self.looks if gpus is None else gpus)
        looks = await asyncio.gather(*(self._look(gpu) for gpu in wanted))
        self.looks.update(zip(wanted, looks, strict=True))

    async def _look(self, gpu: str) -> Look:
        before = self.looks[gpu]
        try:
            reading = await self._driver.read(gpu)
        except DriverError as error:
            if before.error is None or before.error.kind is not error.kind:
                log.warning("GPU %s: %s", gpu, error)
            if error.kind in DRIVER_WIDE_KINDS:
                self.driver_error = error
            return replace(before, error=error)
        if before.error is not None:
            log.info("GPU %s answers again", gpu)
        return Look(before.info, reading)

    async def write(self, orders: Iterable[SetLimit]) -> list[WriteResult]:
        """Set limits side by side and read each back. Errors are in the results."""
        return list(await asyncio.gather(*(self._write(order) for order in orders)))

    async def _write(self, order: SetLimit) -> WriteResult:
        if self._dry_run:
            log.info("dry run: would set GPU %s to %.3f W", order.gpu, order.mw / 1000)
            return WriteResult(order.gpu, order.mw)
        kind: str | None = None
        try:
            await self._driver.set_limit(order.gpu, order.mw)
        except DriverError as error:
            log.warning("GPU %s refused %.3f W: %s", order.gpu, order.mw / 1000, error)
            kind = error.kind.value
        self.looks[order.gpu] = await self._look(order.gpu)
        return WriteResult(order.gpu, order.mw, kind)

    def for_caps(self) -> dict[str, CapReading]:
        """All GPUs as the core sees them."""
        return {gpu: look.for_caps() for gpu, look in self.looks.items()}

    async def close(self) -> None:
        """Let go of the driver; limits stay."""
        await self._driver.close()

"""Runs GPU calls off the event loop, each with a time-out.

Owns a few daemon threads. A call that hangs is reported as a time-out and its GPU is refused until the call comes back,
so that a late write can never overtake a newer one and one sick GPU never holds up another. Must never wait for a
hung thread, not even at exit: that is why this is not a ``ThreadPoolExecutor``, which joins its threads.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from agent.ports import DriverError, DriverErrorKind, GpuDriver, GpuInfo, GpuReading

T = TypeVar("T")

WHOLE_DRIVER = ""
"""The key of calls that touch no single GPU."""


@dataclass(slots=True, eq=False)
class _Call:
    work: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    key: str
    ticket: list[None] = field(default_factory=lambda: [None])

    def claim(self) -> bool:
        """True for the first to ask: the thread that makes the call, or the waiter that gives up before it is made."""
        try:
            self.ticket.pop()
        except IndexError:
            return False
        return True


class OffLoopDriver:
    """A ``GpuDriver`` as coroutines. ``timeout_s`` bounds each call, ``threads`` how many run at once."""

    def __init__(
        self,
        driver: GpuDriver,
        *,
        timeout_s: float = 5.0,
        threads: int = 4,
        on_return: Callable[[str], None] | None = None,
    ) -> None:
        self._driver = driver
        self._timeout_s = timeout_s
        self._target = threads
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._threads = 0
        self._busy: dict[str, _Call] = {}
        self._hung: set[str] = set()
        self._on_return = on_return

    @property
    def hung(self) -> frozenset[str]:
        """GPUs whose call did not come back in time and has not come back since ("": the driver as a whole)."""
        return frozenset(self._hung)

    async def enumerate(self) -> Sequence[GpuInfo]:
        """As ``GpuDriver.enumerate``."""
        return await self._run(WHOLE_DRIVER, "enumerate", self._driver.enumerate)

    def failed(self) -> Mapping[str, DriverError]:
        """As ``GpuDriver.failed``: remembered, no call is made."""
        return self._driver.failed()

    async def read(self, gpu: str) -> GpuReading:
        """As ``GpuDriver.read``."""
        return await self._run(gpu, "read", lambda: self._driver.read(gpu))

    async def set_limit(self, gpu: str, mw: int) -> None:
        """As ``GpuDriver.set_limit``."""
        await self._run(gpu, "set_limit", lambda: self._driver.set_limit(gpu, mw))

    async def close(self) -> None:
        """Close the driver unless it hangs, and let the idle threads go."""
        try:
            await self._run(WHOLE_DRIVER, "close", self._driver.close)
        except DriverError:
            pass  # A driver that cannot be closed dies with the process; there is nothing left to save.
        for _ in range(self._threads):
            self._calls.put(None)

    async def _run(self, key: str, name: str, work: Callable[[], T]) -> T:
        mine: list[_Call] = []
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._queued(key, name, work, mine)
        except TimeoutError:
            self._give_up(key, mine)
            message = f"{name}: no answer within {self._timeout_s:g} s"
            raise DriverError(DriverErrorKind.TIMEOUT, message, call=name, gpu=key) from None

    def _give_up(self, key: str, mine: Sequence[_Call]) -> None:
        """Our call that was not begun never will be. One that was is hanging, and another thread takes its place.

        A call of another caller is not cancelled: that caller would never be notified.
        """
        call = self._busy.get(key)
        if call is None or (mine and call not in mine):
            return
        if mine and call.claim():
            self._busy.pop(key)
            call.future.cancel()
            return
        if call.ticket:
            return
        self._hung.add(key)
        self._spawn()

    async def _queued(self, key: str, name: str, work: Callable[[], T], mine: list[_Call]) -> T:
        """One call at a time for each key: wait for a running one, refuse behind a hung one."""
        loop = asyncio.get_running_loop()
        while (busy := self._busy.get(key)) is not None:
            if key in self._hung:
                raise DriverError(DriverErrorKind.TIMEOUT, f"{name}: an earlier call still hangs", call=name, gpu=key)
            await asyncio.wait([busy.future])
        future: asyncio.Future[T] = loop.create_future()
        call = self._busy[key] = _Call(work, loop, future, key)
        mine.append(call)
        self._spawn()
        self._calls.put(call)
        return await asyncio.shield(future)

    def _spawn(self) -> None:
        """Keep ``threads`` of them beside those that hang."""
        if self._threads < self._target + len(self._hung):
            self._threads += 1
            threading.Thread(target=self._work, name=f"gpu-call-{self._threads}", daemon=True).start()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            if not call.claim():
                continue
            result: Any = None
            error: BaseException | None = None
            try:
                result = call.work()
            except BaseException as raised:  # noqa: BLE001 - carried to the caller, whatever it is
                error = raised
            try:
                call.loop.call_soon_threadsafe(self._finish, call, result, error)
            except RuntimeError:
                return  # The loop is closed: the process is ending.

    def _finish(self, call: _Call, result: Any, error: BaseException | None) -> None:
        hung = call.key in self._hung
        self._hung.discard(call.key)
        self._busy.pop(call.key, None)
        if error is None:
            call.future.set_result(result)
        else:
            call.future.set_exception(error)
            call.future.exception()  # Marked as seen: nothing awaits it after a time-out.
        if hung and self._on_return is not None:
            self._on_return(call.key)

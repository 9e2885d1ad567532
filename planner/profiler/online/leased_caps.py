"""Power limits of a run on a node with a power agent: asked for over the bus as a hold, which the planner grants and
the agent carries out. Nothing here writes a limit.

A hold is renewed in the background and released at the end. It ends by itself where this process cannot release it.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from bus_schemas import v1
from bus_schemas.errors import BusError
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import last, last_per_subject
from bus_schemas.jetstream.tasks.task_group import ended
from bus_schemas.jetstream.watch import follow
from bus_schemas.units import mw_from_watts
from planner.profiler.online.guarded_caps import SETTLE_S, CapError, CapLostError, FoundLimit

HOLD_S = 30.0
"""How long a hold lasts that is not renewed."""
RENEWALS = 3
"""How often it is renewed in that time."""
IN_FORCE_WITHIN_S = 120.0
"""Until a hold's caps must be in force: the planner lowers others first where it has to."""
REPORTED_WITHIN_S = 10.0
"""A report of the agent that is older says nothing of now."""
RELEASED_WITHIN_S = 10.0
AGAIN_S = 0.5
REFUSED = "hold_refused"
OUTCOMES = frozenset({"gpu_held", "hold_waits", REFUSED})
"""The codes of the reasons by which the planner's decisions state what became of a hold."""


class LeasedCaps:
    """A hold on GPUs of one node. ``connect``: the bus; ``gpus_of``: the GPUs of an engine of a TP size.

    ``limit_mw``: the limit in force on a GPU now, read from the hardware; None where it cannot be read.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractAsyncContextManager[Bus]],
        models: Mapping[str, str],
        gpus_of: Callable[[int], tuple[str, ...]],
        limit_mw: Callable[[str], int | None],
        *,
        issued_by: str = "",
        settle_s: float = SETTLE_S,
        hold_s: float = HOLD_S,
        within_s: float = IN_FORCE_WITHIN_S,
    ) -> None:
        self._connect = connect
        self._models = models
        self._gpus_of = gpus_of
        self._limit_mw = limit_mw
        self._issued_by = issued_by
        self._settle_s, self._hold_s, self._within_s = settle_s, hold_s, within_s
        self._hold_id = f"profile-{uuid.uuid4().hex[:12]}"
        self._stack = AsyncExitStack()
        self._bus: Bus | None = None
        self._node = ""
        self._decided = 0
        """The sequence of the node's last decision before the run."""
        self._tasks: list[asyncio.Task[None]] = []
        self._reported: dict[str, tuple[int, float]] = {}
        """The limit in force on each GPU by the agent's last report, and when that came."""
        self._fresh = asyncio.Event()
        """Something came: a report, or what became of the hold."""
        self._asked: tuple[tuple[str, ...], int] | None = None
        self._in_force = False
        self._foreign = ""
        self._outcome: v1.Reason | None = None
        self.found: dict[str, FoundLimit] = {}
        self.left: tuple[str, ...] = ()
        """After the end: a line where the hold could not be released."""

    async def __aenter__(self) -> Self:
        """Find the node by its GPUs. Raises CapError where no agent on this bus reports them."""
        try:
            self._bus = await self._stack.enter_async_context(self._connect())
            await self._find()
        except BaseException:
            await self._stack.aclose()
            raise
        watches = (self._watch_reports(self._bus), self._watch_decisions(self._bus), self._renew())
        self._tasks = [asyncio.create_task(each) for each in watches]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await ended(*self._tasks)
            if self._asked is not None:
                await self._release()
        finally:
            await self._stack.aclose()

    async def hold(self, tp: int, watts: float) -> None:
        """Ask for a cap on the GPUs of an engine of ``tp`` GPUs, and wait until the agent reports that it is in force.

        Raises CapError: it is refused, or not in force in time.
        """
        wanted = (self._gpus_of(tp), mw_from_watts(watts))
        if self._asked == wanted and self._in_force:
            return
        self._in_force, self._foreign = False, ""
        if self._asked != wanted:
            self._asked, self._outcome = wanted, None
        await self._state_hold()
        try:
            async with asyncio.timeout(self._within_s):
                while not self._stands(*wanted):
                    if self._outcome is not None and self._outcome.code == REFUSED:
                        raise CapError(f"the planner refuses {self._outcome.text}")
                    await self._something()
        except TimeoutError:
            raise CapError(self._not_in_force(watts)) from None
        self._in_force = True
        await asyncio.sleep(self._settle_s)
        await self.check(tp, watts)

    async def check(self, tp: int, watts: float) -> None:
        """Raises CapLostError where another limit is or was in force since ``hold``, or where that is not known."""
        mw, oldest_s = mw_from_watts(watts), asyncio.get_running_loop().time() - REPORTED_WITHIN_S
        for gpu in self._gpus_of(tp):
            if self._reported[gpu][1] < oldest_s:
                self._foreign = f"GPU {gpu}: its agent has not reported for {REPORTED_WITHIN_S:g} s"
            elif (now_mw := self._limit_mw(gpu)) != mw:
                known = "a limit that cannot be read" if now_mw is None else f"{now_mw / 1000:g} W"
                self._foreign = self._foreign or self._other(gpu, known, mw)
        self._must_go_on()
        if self._foreign:
            self._in_force = False
            raise CapLostError(self._foreign)

    def _stands(self, gpus: Sequence[str], mw: int) -> bool:
        """Whether the agent reports the cap on every GPU, and the hardware has it."""
        return all(self._reported[gpu][0] == mw for gpu in gpus) and all(self._limit_mw(gpu) == mw for gpu in gpus)

    def _other(self, gpu: str, known: str, mw: int) -> str:
        why = f" ({self._outcome.text})" if self._outcome is not None and self._outcome.code != "gpu_held" else ""
        return f"GPU {gpu}: {known} in force instead of the {mw / 1000:g} W that are held{why}"

    def _not_in_force(self, watts: float) -> str:
        why = "no planner has answered" if self._outcome is None else self._outcome.text
        stand = ", ".join(f"{gpu}: {mw / 1000:g} W" for gpu, (mw, _) in sorted(self._reported.items()))
        return f"--caps {watts:g}: not in force within {self._within_s:g} s ({stand}); {why}"

    async def _something(self) -> None:
        """Wait for news, for half a second at most. Raises CapError where none can come any more."""
        self._must_go_on()
        self._fresh.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AGAIN_S):
                await self._fresh.wait()

    def _must_go_on(self) -> None:
        for task in self._tasks:
            if task.done() and not task.cancelled():
                raise CapError(f"the bus can be followed no longer: {task.exception()}")

    def _connected(self) -> Bus:
        if self._bus is None:
            raise RuntimeError("leased caps are used as a context manager")
        return self._bus

    async def _find(self) -> None:
        bus = self._connected()
        for stored in await last_per_subject(bus, bus.subjects.all_of("telemetry", "node")):
            report = stored.message
            if isinstance(report, v1.NodeTelemetry) and any(gpu.gpu in self._models for gpu in report.gpus):
                self._node = report.node
                self._take(report)
        decision = await last(bus, bus.subjects.decision_power(self._node)) if self._node else None
        self._decided = 0 if decision is None else decision.sequence
        if missing := [gpu for gpu in self._models if gpu not in self.found]:
            raise CapError(
                f"no power agent reports GPU {missing[0]} on {', '.join(bus.settings.servers)}; is it this node's bus?"
            )

    def _take(self, report: v1.NodeTelemetry) -> None:
        now_s = asyncio.get_running_loop().time()
        held, held_mw = self._asked or ((), 0)
        for gpu in report.gpus:
            if gpu.gpu not in self._models or gpu.enforced_watts is None:
                continue
            mw = mw_from_watts(gpu.enforced_watts)
            self._reported[gpu.gpu] = (mw, now_s)
            if gpu.gpu not in self.found:
                limits = (mw, mw_from_watts(gpu.min_watts), mw_from_watts(gpu.max_watts))
                self.found[gpu.gpu] = FoundLimit(*limits, self._models[gpu.gpu])
            if self._in_force and gpu.gpu in held and mw != held_mw:
                self._foreign = self._foreign or self._other(gpu.gpu, f"{mw / 1000:g} W were", held_mw)

    async def _watch_reports(self, bus: Bus) -> None:
        async for stored in follow(bus, bus.subjects.telemetry_node(self._node)):
            if isinstance(stored.message, v1.NodeTelemetry):
                self._take(stored.message)
                self._fresh.set()

    async def _watch_decisions(self, bus: Bus) -> None:
        async for stored in follow(bus, bus.subjects.decision_power(self._node), self._decided):
            if isinstance(stored.message, v1.PowerDecision):
                ours = [each for each in stored.message.reasons if self._is_ours(each)]
                self._outcome = ours[-1] if ours else self._outcome
                self._fresh.set()

    def _is_ours(self, reason: v1.Reason) -> bool:
        return reason.code in OUTCOMES and self._hold_id in reason.text.partition(":")[0]

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._hold_s / RENEWALS)
            if self._asked is not None:
                await self._patiently(self._state_hold)

    async def _patiently(self, send: Callable[[], Awaitable[None]]) -> None:
        """Until it is stored: a bus that is away for a while ends no run, whose hold ends by itself."""
        while True:
            try:
                return await send()
            except CapError:
                await asyncio.sleep(AGAIN_S)

    async def _state_hold(self) -> None:
        """Write the hold, or its renewal. Raises CapError."""
        gpus, mw = self._asked or ((), 0)
        await self._send(v1.GpuHold(hold_id=self._hold_id, gpus=gpus, cap_watts=mw / 1000, for_s=self._hold_s))

    async def _send(self, hold: v1.GpuHold) -> None:
        bus = self._connected()
        command = v1.NodeControl(
            time=datetime.now(UTC),
            node=self._node,
            action="restore",
            reason="wattscale profile",
            issued_by=self._issued_by,
            hold=hold,
        )
        try:
            await publish(bus, bus.subjects.control_node(self._node), command, uuid.uuid4().hex)
        except BusError as error:
            raise CapError(f"the hold {self._hold_id} could not be written: {error}") from error

    async def _release(self) -> None:
        try:
            async with asyncio.timeout(RELEASED_WITHIN_S):
                await self._send(v1.GpuHold(hold_id=self._hold_id, release=True))
        except (CapError, TimeoutError):
            self.left = (f"the hold {self._hold_id} is not released; it ends by itself within {self._hold_s:g} s",)

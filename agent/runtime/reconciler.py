"""Carries out the core's writes: the only place where limits are set.

Owns the agent's state and the order of one pass: read, update the state, lower, read back, raise, read back. Never
runs two passes at once, and a sick GPU never delays a healthy one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from agent.core import caps
from agent.core.caps import Acceptance, CapDecision, CapReport, SetLimit, WriteResult
from agent.ports import MonotonicClock
from agent.runtime.hardware import Hardware

log = logging.getLogger(__name__)

ROUNDS = 4
"""Lowers, raises, and two more for what a readback reveals; the rest is tried in the next pass."""


@dataclass(slots=True)
class Counts:
    """Events since the start, for ``/metrics``."""

    writes: int = 0
    write_errors: int = 0
    drifts: int = 0
    resets: int = 0
    clamped: int = 0
    lapses: int = 0
    decisions: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Drift:
    """A limit that another process changed."""

    gpu: str
    ours_mw: int
    found_mw: int

    def __str__(self) -> str:
        return f"another process set {self.found_mw / 1000:g} W where the agent had set {self.ours_mw / 1000:g} W"


class Reconciler:
    """One node's caps. ``managed`` None: all GPUs; else only these are compared with anything or written to."""

    def __init__(self, hardware: Hardware, clock: MonotonicClock, boot: str, *, grace_s: float, hold: bool) -> None:
        self.hardware = hardware
        self.state = caps.initial(boot, clock(), grace_s=grace_s, hold_without_decision=hold)
        self.counts = Counts()
        self.managed: Collection[str] | None = None
        self.drifts: dict[str, Drift] = {}
        """By GPU, until the limit is restored."""
        self.unreported_drifts: deque[Drift] = deque(maxlen=100)
        """Drifts not yet reported as Kubernetes events."""
        self._clock = clock
        self._lock = asyncio.Lock()
        self._last_mw: dict[str, int] = {}

    async def start(self) -> None:
        """Read what is enforced and adopt it."""
        await self.hardware.discover()
        await self.reconcile()

    async def decide(self, decision: CapDecision) -> tuple[Acceptance, CapReport]:
        """Accept a decision and carry it out on the last readings: a cut must not wait for new ones."""
        async with self._lock:
            self.state, verdict = caps.receive(self.state, decision, self._clock())
            self.counts.decisions[verdict.value] = self.counts.decisions.get(verdict.value, 0) + 1
            if verdict is Acceptance.ACCEPTED:
                await self._act()
            return verdict, self.report()

    async def reconcile(self) -> CapReport:
        """Read all GPUs, update the state, and write where a limit differs.

        The reading is done before the lock is taken: a decision that cuts must not wait for a slow GPU. Calls to one
        GPU are made in order, so that a reading never comes after a write that it did not see.
        """
        await self.hardware.read()
        async with self._lock:
            self._note_foreign_values()
            self._take_in(())
            await self._act()
            return self.report()

    async def lapse(self) -> CapReport:
        """Called when the lease ends: act on the last readings, wait for nothing."""
        async with self._lock:
            self._take_in(())
            await self._act()
            return self.report()

    def report(self) -> CapReport:
        """What is in force."""
        return caps.report(self.state, self._readings(), self._clock())

    def deadline_s(self) -> float | None:
        """When the dead-man acts next, in seconds on the clock; None: never."""
        return caps.deadline_s(self.state)

    async def bound(self, upper_bounds: Mapping[str, int]) -> None:
        """Write no limit above these bounds, and lower limits that exceed them now."""
        async with self._lock:
            before = self.state.bounds
            self.state = caps.bounded(self.state, upper_bounds)
            if self.state.bounds != before:
                await self._act()

    async def leave_alone(self, gpus: Collection[str]) -> None:
        """Write no limit of these GPUs, which pods of no deployment hold, until a decision names them."""
        async with self._lock:
            before = self.state.foreign
            self.state = caps.left_alone(self.state, gpus)
            if self.state.foreign != before:
                await self._act()

    def forget(self, gpu: str) -> None:
        """Drop the target of this GPU."""
        self.state = replace(self.state, lines={key: line for key, line in self.state.lines.items() if key != gpu})

    def _readings(self) -> dict[str, caps.LimitReading]:
        readings = self.hardware.for_caps()
        if self.managed is None:
            return readings
        return {gpu: reading for gpu, reading in readings.items() if gpu in self.managed}

    async def _act(self) -> None:
        for _ in range(ROUNDS):
            readings = self._readings()
            orders = caps.actions(self.state, readings, self._clock())
            if not orders:
                break
            lowers = [order for order in orders if _lowers(order, readings[order.gpu])]
            results = await self.hardware.write(lowers or orders)
            self._count(results)
            self._take_in(results)

    def _take_in(self, results: Collection[WriteResult]) -> None:
        now_s = self._clock()
        ends_s = self.state.ends_s
        self.state = caps.observed(self.state, self._readings(), now_s, results)
        if ends_s is not None and self.state.ends_s is None:
            self.counts.lapses += 1
            log.warning("the lease ended without a renewal: caps step down to their fallbacks")
        for gpu, snapshot in self.hardware.snapshots.items():
            if snapshot.error is None and snapshot.reading is not None and snapshot.reading.requested_mw is not None:
                self._last_mw[gpu] = snapshot.reading.requested_mw

    def _count(self, results: Collection[WriteResult]) -> None:
        for result in results:
            self.counts.writes += 1
            self.counts.write_errors += result.error_kind is not None
            snapshot = self.hardware.snapshots[result.gpu]
            if snapshot.reading is not None and result.error_kind is None:
                self.counts.clamped += snapshot.reading.requested_mw != result.mw

    def _note_foreign_values(self) -> None:
        """A limit that changed since the last reading was changed by another process: report the value once."""
        for gpu, snapshot in self.hardware.snapshots.items():
            line, reading = self.state.lines.get(gpu), snapshot.reading
            if line is None or reading is None or snapshot.error is not None or reading.requested_mw is None:
                continue
            ours, found = self._last_mw.get(gpu, reading.requested_mw), reading.requested_mw
            if reading.resets != line.resets:
                self.counts.resets += 1
                log.warning("GPU %s was reset: its limit is back at %.3f W", gpu, found / 1000)
            elif found != ours:
                self.counts.drifts += 1
                self.drifts[gpu] = Drift(gpu, ours, found)
                self.unreported_drifts.append(self.drifts[gpu])
                log.warning("GPU %s: %s", gpu, self.drifts[gpu])
            elif gpu in self.drifts and found == self.drifts[gpu].ours_mw:
                del self.drifts[gpu]


def _lowers(order: SetLimit, reading: caps.LimitReading) -> bool:
    standing = max(reading.enforced_mw or 0, reading.requested_mw or 0)
    return order.mw < standing

"""The power agent of one node: takes decisions from the bus, carries them out, and reports what is in force.

Owns the loops and their order. On start it reads what is enforced and adopts it, and only then listens. It never
restores a default by itself, never answers before the readback, and never acknowledges a message to the server before
its answer is stored: a crash in between repeats the work, which is idempotent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from agent.adapters.bus_channel import NodeChannel
from agent.adapters.kubernetes.event_recorder import KubernetesEvents
from agent.adapters.kubernetes.gpu_owners import NodeGpus
from agent.adapters.messages import decision_of
from agent.core.caps import Acceptance, CapReport, SetLimit
from agent.core.deadman import unsafe
from agent.core.ownership import OWNERS_FIRST_S
from agent.drivers.off_loop import OffLoopDriver
from agent.ports import DriverErrorKind, GpuDriver, GpuOwners, MonotonicClock, monotonic
from agent.runtime.annotation_limits import AnnotationLimits
from agent.runtime.boot import boot_name
from agent.runtime.gpu_owners_loop import GpuOwnersLoop
from agent.runtime.hardware import Hardware
from agent.runtime.node_view import NodeView
from agent.runtime.reconciler import Reconciler
from agent.runtime.settings import OnExit, PowerAgentSettings
from agent.runtime.status_publisher import FIRST_PAUSE_S, LONGEST_PAUSE_S, StatusPublisher
from bus_schemas.jetstream.connect import Bus, BusError
from bus_schemas.jetstream.tasks.backoff import Backoff
from bus_schemas.jetstream.tasks.task_group import run_together
from bus_schemas.subjects import power_consumer
from bus_schemas.v1 import PowerAck, PowerDecision

log = logging.getLogger(__name__)

FOLLOW_UPS_S = (0.05, 0.1, 0.2, 0.4)
"""Delays of the extra readings while a decision is not in force yet: a limit may act with a lag."""
HEARTBEATS_PER_LEASE = 4.0


class LibraryMismatchError(Exception):
    """The GPU library and the kernel module differ: only a new process can load the right one."""


BusSource = Callable[[], Awaitable[Bus]]


class PowerAgentService:
    """Runs until cancelled. ``bus``: connected, or how to connect, or None without a bus.

    The agent does not wait for its bus: what is in force has to be watched in any case.
    Raises BadNameError for a node's name that no subject can carry.
    """

    def __init__(
        self,
        settings: PowerAgentSettings,
        bus: Bus | BusSource | None,
        driver: GpuDriver,
        owners: GpuOwners,
        clock: MonotonicClock = monotonic,
        annotation_limits: AnnotationLimits | None = None,
        events: KubernetesEvents | None = None,
    ) -> None:
        self.settings = settings
        self.boot = settings.boot or boot_name()
        self.last_good_s: float | None = None
        self._wake = asyncio.Event()
        self._off_loop = OffLoopDriver(
            driver, timeout_s=settings.call_timeout_s, threads=settings.call_threads, on_return=lambda _: self.wake()
        )
        self.hardware = Hardware(self._off_loop, dry_run=settings.dry_run, on_late=self.wake)
        self.reconciler = Reconciler(
            self.hardware,
            clock,
            self.boot,
            grace_s=settings.grace_s,
            hold=bus is None or settings.hold_without_decision,
        )
        self.gpu_owners = GpuOwnersLoop(
            owners,
            self.reconciler,
            annotation_limits,
            events,
            interval_s=settings.telemetry_interval_s,
            on_change=self._wake.set,
        )
        self.view = NodeView(settings.node, self.boot, self.reconciler, lambda: self.gpu_owners.owners, clock)
        self.annotation_limits = annotation_limits
        if annotation_limits is not None:
            annotation_limits.adopt(self.reconciler)
        if bus is not None:
            power_consumer(settings.node)  # Raises BadNameError now rather than when the bus is there.
        self.bus: Bus | None = bus if isinstance(bus, Bus) else None
        self._bus_source = bus
        self._publisher = StatusPublisher(clock, heartbeat_s=settings.heartbeat_s)
        self._clock = clock
        self._lease_s = 0.0
        self._discovery: asyncio.Task[None] | None = None
        self._found_mw: dict[str, int] | None = None
        self._follow_up = 0
        self._discovered_s = float("-inf")
        self._began_s = clock()
        self._answered_before: bool | None = None
        """Whether an answer of this node is on the bus; None: not known yet."""

    @property
    def ready(self) -> bool:
        """Whether the limits in force were adopted, and the last good reconcile is recent enough."""
        if self._found_mw is None or self.last_good_s is None or self.hardware.driver_error is not None:
            return False
        return self._clock() - self.last_good_s <= self.settings.ready_within_s

    @property
    def not_ready(self) -> str:
        """Why the agent is not ready; empty where it is."""
        if self.ready:
            return ""
        age_s = self.reconcile_age_s
        return "the GPUs have not been read yet" if age_s is None else f"the GPUs were last read {age_s:.0f} s ago"

    @property
    def reconcile_age_s(self) -> float | None:
        """Seconds since the last good reconcile; None before the first."""
        return None if self.last_good_s is None else self._clock() - self.last_good_s

    @property
    def expects_bus(self) -> bool:
        """Whether decisions come over a bus, connected or not."""
        return self._bus_source is not None

    @property
    def hung_gpus(self) -> int:
        """Number of GPUs whose driver call has not returned."""
        return len(self._off_loop.hung)

    async def run(self) -> None:
        """Adopt what is in force, then serve until cancelled. Raises LibraryMismatchError if only a restart helps."""
        await self._discover()
        await self._reconcile()
        self._found_mw = {
            gpu: snapshot.reading.requested_mw
            for gpu, snapshot in self.hardware.snapshots.items()
            if snapshot.reading is not None and snapshot.reading.requested_mw is not None
        }
        try:
            parts = {"watch": self._watch(), "owners": self.gpu_owners.run()}
            if self._bus_source is not None:
                parts["bus"] = self._serve_bus(self._bus_source)
            await run_together(parts)
        finally:
            await self._stop()

    async def _serve_bus(self, source: Bus | BusSource) -> None:
        self.bus = source if isinstance(source, Bus) else await source()
        channel = NodeChannel(self.bus, self.settings.node, self.boot)
        await run_together({"publish": self._publish(channel), "listen": channel.listen(self._on_decision)})

    async def _publish(self, channel: NodeChannel) -> None:
        backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while self._answered_before is None:
            try:
                self._answered_before = await channel.answered_before()
            except BusError as error:
                log.warning("the last answer of this node could not be read, trying again: %s", error)
                await asyncio.sleep(backoff.next_s())
        await self._publisher.run(channel)

    async def _watch(self) -> None:
        """The loop of the dead-man: nothing in it may block, whatever hangs."""
        while True:
            await self._wait()
            deadline_s = self.reconciler.deadline_s()
            if deadline_s is not None and self._clock() >= deadline_s:
                await self.reconciler.lapse()
            self._discover_when_due()
            await self._reconcile()

    async def _wait(self) -> None:
        """Wait until the next reading is due, the dead-man has to act, or ``wake`` is called."""
        delay_s = self.settings.telemetry_interval_s
        if self._follow_up < len(FOLLOW_UPS_S) and not self._settled():
            delay_s = min(delay_s, FOLLOW_UPS_S[self._follow_up])
            self._follow_up += 1
        deadline_s = self.reconciler.deadline_s()
        if deadline_s is not None:
            delay_s = min(delay_s, max(0.0, deadline_s - self._clock()))
        try:
            async with asyncio.timeout(delay_s):
                await self._wake.wait()
        except TimeoutError:
            pass  # The usual end of the wait.
        self._wake.clear()

    def _settled(self) -> bool:
        report = self.reconciler.report()
        return report.decision_id < 0 or report.status == "applied"

    def _discover_when_due(self) -> None:
        """Enumerate in a task of its own, because it may hang for seconds."""
        if self._discovery is not None and not self._discovery.done():
            return
        due = self._clock() - self._discovered_s >= self.settings.reconcile_interval_s
        if due or self.hardware.driver_error is not None:
            self._discovery = asyncio.create_task(self._discover(), name="discover")

    async def _discover(self) -> None:
        self._discovered_s = self._clock()
        await self.hardware.discover()
        if self.hardware.driver_error is None:
            self.last_good_s = self._clock()

    async def _reconcile(self) -> None:
        report = await self.reconciler.reconcile()
        error = self.hardware.driver_error
        if error is not None and error.kind is DriverErrorKind.LIBRARY_MISMATCH:
            raise LibraryMismatchError(str(error)) from error
        telemetry = self.view.telemetry(report) if self._reportable(report) else None
        self._publisher.update(self._ack(report) if report.decision_id >= 0 else None, telemetry)

    def _reportable(self, report: CapReport) -> bool:
        """Whether the GPUs may be reported: while their owners are unknown, all of them would look free.

        Acknowledgements renew the lease in the meantime. But a node that has never answered a decision must become
        known to a planner, or its GPUs would draw outside every budget.
        """
        if self.gpu_owners.known:
            return True
        new = self._answered_before is False and report.decision_id < 0
        return new and self._clock() - self._began_s >= OWNERS_FIRST_S

    async def _on_decision(self, message: PowerDecision) -> PowerAck:
        verdict, report = await self.reconciler.decide(decision_of(message))
        reason = ""
        if verdict in (Acceptance.OLDER_EPOCH, Acceptance.OLDER_ID):
            reason = f"refused decision {message.decision_id} of epoch {message.epoch}: {verdict.value}"
            log.warning("%s", reason)
        self._fit_lease(message.valid_for_s)
        self._follow_up = 0
        self._wake.set()
        answer = self._ack(report, reason, refused=reason != "")
        self._publisher.answered(answer)
        return answer

    def _fit_lease(self, lease_s: float) -> None:
        """Report often enough for this lease to be renewed; log a warning if that is impossible."""
        if lease_s == self._lease_s:
            return
        self._lease_s = lease_s
        self._publisher.heartbeat_s = min(self.settings.heartbeat_s, lease_s / HEARTBEATS_PER_LEASE)
        telemetry_s = max(self._publisher.heartbeat_s, self.settings.telemetry_interval_s)
        for why in unsafe(lease_s, self.settings.reconcile_interval_s, telemetry_s):
            log.warning("the lease is unsafe with these settings: %s", why)

    def _ack(self, report: CapReport, reason: str = "", *, refused: bool = False) -> PowerAck:
        dry = "dry run: nothing is set" if self.settings.dry_run else ""
        return self.view.ack(report, reason or dry, refused=refused)

    def wake(self) -> None:
        """Run at once: pods, processes or GPUs have changed, or a slow call has returned."""
        self._wake.set()
        self.gpu_owners.wake()

    def node_gpus(self) -> NodeGpus:
        """The GPUs, and the processes on them, for which owners are needed."""
        snapshots = self.hardware.snapshots
        pids = {gpu: snapshot.reading.pids or () for gpu, snapshot in snapshots.items() if snapshot.reading is not None}
        return NodeGpus({gpu: snapshot.info for gpu, snapshot in snapshots.items()}, pids)

    async def _stop(self) -> None:
        """Caps stay. The limits found at the start are restored with ``on_exit: restore`` if no decision came."""
        if self._discovery is not None:
            self._discovery.cancel()
            await asyncio.gather(self._discovery, return_exceptions=True)
        if self.settings.on_exit is OnExit.RESTORE:
            # A write in progress has to be read back, or its limit would be left behind.
            await self.hardware.settle(self.settings.call_timeout_s)
            await self.hardware.read()
            if self.annotation_limits is not None and self.annotation_limits.alone:
                await self.annotation_limits.restore(self.reconciler)
            elif self.reconciler.state.decision_id < 0:
                await self.hardware.write([SetLimit(gpu, mw) for gpu, mw in (self._found_mw or {}).items()])
        await self.hardware.close()

"""Applies pod annotations: without a planner they are the targets; with one, each is a further upper bound.

Owns the path from annotations to the reconciler. Never acts on unknown pods: after a failed list, what is in force
stays.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from agent.adapters.kubernetes.event_recorder import KubernetesEvents
from agent.adapters.kubernetes.gpu_owners import KubernetesOwners, NodePods
from agent.adapters.managed_state import ManagedState
from agent.core.caps import CapDecision, GpuTarget
from agent.core.pod_limits import AnnotationPlan, GpuLimits, Note, NoteKind, bound_of, plan
from agent.ports import MonotonicClock, OwnersUnknownError
from agent.runtime.reconciler import Reconciler
from bus_schemas.units import GpuSetpoint, Milliwatts

log = logging.getLogger(__name__)
VALID_S = 86_400.0
INCARNATION = "annotations"


class AnnotationLimits:
    """``alone``: there is no planner. ``safe_default_mw``: the limit for an unreadable annotation."""

    def __init__(
        self,
        owners: KubernetesOwners,
        *,
        safe_default_mw: int,
        alone: bool,
        clock: MonotonicClock,
        state: ManagedState | None = None,
        events: KubernetesEvents | None = None,
    ) -> None:
        self.alone = alone
        self.malformed = 0
        """Annotations on this node that are unreadable now."""
        self.unknown_since_s: float | None = None
        self._owners = owners
        self._safe_default_mw = safe_default_mw
        self._clock = clock
        self._state = state or ManagedState(None)
        self._events = events
        self._found_mw: dict[str, int] = self._state.read()
        self._targets_mw: Mapping[str, int] = {}
        self._number = -1
        self._decided_s = float("-inf")

    @property
    def found_mw(self) -> Mapping[str, int]:
        """The managed GPUs, and the limit found on each."""
        return self._found_mw

    def adopt(self, reconciler: Reconciler) -> None:
        """Before the first reading: without a planner, only the GPUs in the state file are managed."""
        if self.alone:
            reconciler.managed = frozenset(self._found_mw)

    async def apply(self, reconciler: Reconciler) -> None:
        """One pass."""
        try:
            found = await self._owners.node_pods()
        except OwnersUnknownError as error:
            if self.unknown_since_s is None:
                self.unknown_since_s = self._clock()
                log.warning("pods are unknown, caps stay unchanged: %s", error)
            return
        self.unknown_since_s = None
        if self.alone:
            await self._aim(reconciler, found)
        else:
            await self._bound(reconciler, found)

    async def _bound(self, reconciler: Reconciler, found: NodePods) -> None:
        bounds: dict[str, int] = {}
        notes: list[Note] = []
        for gpu, pods in found.pods.items():
            bound, found_notes = bound_of(gpu, pods, self._safe_default_mw)
            notes.extend(found_notes)
            if bound is not None:
                bounds[gpu] = bound
        await reconciler.bound(bounds)
        await self._report(tuple(notes))

    async def _aim(self, reconciler: Reconciler, found: NodePods) -> None:
        limits = {
            gpu: GpuLimits(snapshot.info.min_mw, snapshot.info.max_mw, snapshot.reading.requested_mw)
            for gpu, snapshot in reconciler.hardware.snapshots.items()
            if snapshot.error is None and snapshot.reading is not None and snapshot.reading.requested_mw is not None
        }
        aims = plan(limits, found.pods, self._found_mw, self._safe_default_mw)
        # Stored before the first write: after a crash in between, the GPU is still known to be managed.
        self._found_mw = dict(aims.found_mw)
        self._state.write(self._found_mw)
        reconciler.managed = frozenset(self._found_mw)
        await self._decide(reconciler, aims)
        self._release(reconciler, aims)
        await self._report(aims.notes)

    async def _decide(self, reconciler: Reconciler, plan: AnnotationPlan) -> None:
        now_s = self._clock()
        if plan.targets_mw == self._targets_mw and now_s - self._decided_s < VALID_S / 2:
            return
        self._number += 1
        self._targets_mw, self._decided_s = plan.targets_mw, now_s
        # The fallback is the target itself: an annotation does not expire.
        caps = tuple(GpuTarget(gpu, GpuSetpoint(Milliwatts(mw)), mw) for gpu, mw in plan.targets_mw.items())
        await reconciler.decide(CapDecision(0, self._number, INCARNATION, VALID_S, caps))

    def _release(self, reconciler: Reconciler, plan: AnnotationPlan) -> None:
        """A GPU whose limit is back at the value found is no longer managed."""
        for gpu in plan.released:
            snapshot = reconciler.hardware.snapshots[gpu]
            if snapshot.reading is not None and snapshot.reading.requested_mw == plan.targets_mw[gpu]:
                del self._found_mw[gpu]
                reconciler.forget(gpu)
                log.info("GPU %s is released at %.3f W", gpu, plan.targets_mw[gpu] / 1000)
        self._state.write(self._found_mw)
        reconciler.managed = frozenset(self._found_mw)

    async def restore(self, reconciler: Reconciler) -> None:
        """Restore the limits found on all managed GPUs, on an orderly stop with ``on_exit: restore``."""
        if not self.alone or not self._found_mw:
            return
        self._number += 1
        caps = tuple(GpuTarget(gpu, GpuSetpoint(Milliwatts(mw)), mw) for gpu, mw in self._found_mw.items())
        await reconciler.decide(CapDecision(0, self._number, INCARNATION, VALID_S, caps))
        self._found_mw = {}
        self._state.write(self._found_mw)

    async def _report(self, notes: tuple[Note, ...]) -> None:
        self.malformed = sum(note.kind is NoteKind.MALFORMED for note in notes)
        if self._events is not None:
            for note in notes:
                await self._events.warn(note.pod, note.kind.value, note.text)

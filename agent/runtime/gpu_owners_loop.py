"""Keeps the owners of the GPUs current, apart from the GPUs themselves: the kubelet or the API server may be slow.

Owns the loop over owners, annotations and events. Never delays the loop that watches the hardware.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from agent.adapters.kubernetes.event_recorder import KubernetesEvents
from agent.ports import GpuOwner, GpuOwners, OwnersUnknownError
from agent.runtime.annotation_limits import AnnotationLimits
from agent.runtime.reconciler import Reconciler

log = logging.getLogger(__name__)

OWNERS_TIMEOUT_S = 5.0


class GpuOwnersLoop:
    """Runs every ``interval_s``, and at once when woken. ``on_change`` is called when an owner changed."""

    def __init__(
        self,
        source: GpuOwners,
        reconciler: Reconciler,
        annotation_limits: AnnotationLimits | None,
        events: KubernetesEvents | None,
        *,
        interval_s: float,
        on_change: Callable[[], None],
    ) -> None:
        self.owners: Mapping[str, GpuOwner] = {}
        self.known = False
        """Whether ``owners`` was ever read. Until then a GPU without an owner may have one."""
        self._source = source
        self._reconciler = reconciler
        self._annotation_limits = annotation_limits
        self._events = events
        self._interval_s = interval_s
        self._on_change = on_change
        self._wake = asyncio.Event()
        self._missed = False

    def wake(self) -> None:
        """Run at once."""
        self._wake.set()

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            await self._update_owners()
            if self._annotation_limits is not None:
                await self._annotation_limits.apply(self._reconciler)
            await self._report_drifts()
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._wake.wait()
            except TimeoutError:
                pass  # The usual end of the wait.
            self._wake.clear()

    async def _update_owners(self) -> None:
        try:
            async with asyncio.timeout(OWNERS_TIMEOUT_S):
                owners = await self._source.owners()
        except (OwnersUnknownError, TimeoutError) as error:
            if not self._missed:
                why = error if isinstance(error, OwnersUnknownError) else "no answer in time"
                log.warning("owners of GPUs are unknown, keeping the last known ones: %s", why)
            self._missed = True
            return
        self._missed = False
        if not self.known or owners != self.owners:
            self.known, self.owners = True, owners
            await self._reconciler.leave_alone([gpu for gpu, owner in owners.items() if not owner.deployment])
            self._on_change()

    async def _report_drifts(self) -> None:
        """Write an event on the node for each limit that another process has set."""
        while self._events is not None and self._reconciler.unreported_drifts:
            drift = self._reconciler.unreported_drifts.popleft()
            await self._events.warn_node("ForeignGpuPowerLimit", f"GPU {drift.gpu}: {drift}")

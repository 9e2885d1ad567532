"""What a node looks like now, in the words of answers, telemetry and metrics.

Owns the putting together of looks, grants, owners and notes. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent.adapters.messages import ack_of
from agent.adapters.telemetry import NOBODY, GpuView, telemetry_of
from agent.core.caps import CapReport
from agent.ports import GpuOwner, MonotonicClock
from agent.runtime.reconciler import Reconciler
from bus_schemas.v1 import NodeTelemetry, PowerAck


class NodeView:
    """One node. ``owners`` tells who is on which GPU."""

    def __init__(
        self,
        node: str,
        boot: str,
        enforcer: Reconciler,
        owners: Callable[[], Mapping[str, GpuOwner]],
        clock: MonotonicClock,
    ) -> None:
        self._node = node
        self._boot = boot
        self._enforcer = enforcer
        self._owners = owners
        self._clock = clock

    def notes(self) -> dict[str, str]:
        """Why a GPU stands as it does, where there is something to say."""
        looks = self._enforcer.hardware.looks
        notes = {gpu: str(look.error) for gpu, look in looks.items() if look.error is not None}
        for gpu, drift in self._enforcer.drifts.items():
            notes.setdefault(gpu, str(drift))
        return notes

    def views(self) -> dict[str, GpuView]:
        """All GPUs with everything known of them."""
        notes, lines, owners = self.notes(), self._enforcer.state.lines, self._owners()
        found = {}
        for gpu, look in self._enforcer.hardware.looks.items():
            line = lines.get(gpu)
            found[gpu] = GpuView(
                info=look.info,
                reading=look.reading if look.error is None else None,
                health=look.for_caps().health,
                granted_mw=line.ceiling_mw if line is not None else None,
                error=notes.get(gpu, ""),
                owner=owners.get(gpu, NOBODY),
            )
        return found

    def ack(self, report: CapReport, reason: str = "") -> PowerAck:
        """The answer to the newest decision."""
        return ack_of(
            report,
            node=self._node,
            boot=self._boot,
            clock_s=self._clock(),
            incarnation=self._enforcer.state.incarnation,
            reason=reason,
            reasons=self.notes(),
        )

    def telemetry(self, report: CapReport) -> NodeTelemetry:
        """All GPUs as the bus carries them."""
        return telemetry_of(
            self.views(), node=self._node, boot=self._boot, clock_s=self._clock(), applied_id=report.applied_id
        )

"""The current state of a node as acknowledgements, telemetry and metrics show it.

Combines snapshots, grants, owners and notes. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent.adapters.messages import ack_of
from agent.adapters.telemetry import NO_OWNER, GpuView, telemetry_of
from agent.core.caps import CapReport
from agent.ports import GpuOwner, MonotonicClock
from agent.runtime.reconciler import Reconciler
from bus_schemas.v1 import NodeTelemetry, PowerAck


class NodeView:
    """One node. ``owners`` returns the owner of each GPU."""

    def __init__(
        self,
        node: str,
        boot: str,
        reconciler: Reconciler,
        owners: Callable[[], Mapping[str, GpuOwner]],
        clock: MonotonicClock,
    ) -> None:
        self._node = node
        self._boot = boot
        self._reconciler = reconciler
        self._owners = owners
        self._clock = clock

    def notes(self) -> dict[str, str]:
        """By GPU: the error or the drift that explains its state, if there is one."""
        snapshots = self._reconciler.hardware.snapshots
        notes = {gpu: str(snapshot.error) for gpu, snapshot in snapshots.items() if snapshot.error is not None}
        for gpu, drift in self._reconciler.drifts.items():
            notes.setdefault(gpu, str(drift))
        return notes

    def views(self) -> dict[str, GpuView]:
        """All GPUs with everything known about them."""
        notes, lines, owners = self.notes(), self._reconciler.state.lines, self._owners()
        found = {}
        for gpu, snapshot in self._reconciler.hardware.snapshots.items():
            line = lines.get(gpu)
            found[gpu] = GpuView(
                info=snapshot.info,
                reading=snapshot.reading if snapshot.error is None else None,
                health=snapshot.for_caps().health,
                granted_mw=line.ceiling_mw if line is not None else None,
                error=notes.get(gpu, ""),
                owner=owners.get(gpu, NO_OWNER),
            )
        return found

    def ack(self, report: CapReport, reason: str = "", *, refused: bool = False) -> PowerAck:
        """The acknowledgement of the newest decision; ``refused``: the answer to another one, which was refused."""
        return ack_of(
            report,
            node=self._node,
            boot=self._boot,
            clock_s=self._clock(),
            incarnation=self._reconciler.state.incarnation,
            reason=reason,
            reasons=self.notes(),
            refused=refused,
        )

    def telemetry(self, report: CapReport) -> NodeTelemetry:
        """The wire message about all GPUs."""
        return telemetry_of(
            self.views(), node=self._node, boot=self._boot, clock_s=self._clock(), applied_id=report.applied_id
        )

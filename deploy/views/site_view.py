"""Folds bus messages into one view of a site: the newest of each kind, and a short history.

Pure: fed by the live view of `up` and by `wattscale status`; never talks to a server.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from bus_schemas import v1
from bus_schemas.visible_text import visible_parts

HISTORY = 200


@dataclass(slots=True)
class DeploymentSummary:
    """The newest of each message about one deployment."""

    record: v1.PlanRecord | None = None
    decision: v1.ScalingDecision | None = None
    ack: v1.ScalingAck | None = None
    claim: v1.Lease | None = None
    """The connector that scales it, with its notes; None where none is known."""

    @property
    def decision_id(self) -> int:
        return self.decision.decision_id if self.decision else -1

    @property
    def scaled_decision_id(self) -> int:
        return self.ack.scaled_decision_id if self.ack else -1


class _NodeSums:
    """Sums over a node's GPUs, of three messages, which never change."""

    __slots__ = ("_ack", "_decision", "_telemetry", "drawn_watts", "enforced_watts", "outside", "outside_watts")

    def __init__(
        self, telemetry: v1.NodeTelemetry | None, decision: v1.PowerDecision | None, ack: v1.PowerAck | None
    ) -> None:
        self._telemetry, self._decision, self._ack = telemetry, decision, ack
        left_out = () if decision is None else (*(decision.outside_gpus or ()), *(decision.released_gpus or ()))
        outside = self.outside = frozenset(left_out)
        gpus = telemetry.gpus if telemetry is not None else ()
        covered: Sequence[v1.GpuTelemetry] = gpus
        limits: Sequence[v1.GpuTelemetry | v1.GpuInForce] = gpus
        if ack is not None and (telemetry is None or ack.time >= telemetry.time):
            limits = ack.gpus
        self.outside_watts = 0.0
        if outside:
            covered = [gpu for gpu in gpus if gpu.gpu not in outside]
            limits = [gpu for gpu in limits if gpu.gpu not in outside]
            self.outside_watts = sum([gpu.enforced_watts or 0.0 for gpu in gpus if gpu.gpu in outside])
        self.drawn_watts = sum([gpu.draw_watts or 0.0 for gpu in covered])
        self.enforced_watts = sum([gpu.enforced_watts or 0.0 for gpu in limits])

    def of(
        self, telemetry: v1.NodeTelemetry | None, decision: v1.PowerDecision | None, ack: v1.PowerAck | None
    ) -> bool:
        """Whether these are the sums of these very messages."""
        return self._telemetry is telemetry and self._decision is decision and self._ack is ack


@dataclass(slots=True)
class NodeSummary:
    """The newest of each message about one node."""

    telemetry: v1.NodeTelemetry | None = None
    decision: v1.PowerDecision | None = None
    ack: v1.PowerAck | None = None
    _sums: _NodeSums | None = field(default=None, repr=False, compare=False)

    def summed(self) -> _NodeSums:
        """What follows from all GPUs, computed once for the three messages: a view of a large site asks often."""
        known = self._sums
        if known is None or not known.of(self.telemetry, self.decision, self.ack):
            known = self._sums = _NodeSums(self.telemetry, self.decision, self.ack)
        return known

    @property
    def outside(self) -> frozenset[str]:
        """GPUs that the budget does not cover, because it covers workers only, by the newest decision."""
        return self.summed().outside

    @property
    def outside_watts(self) -> float:
        """What the GPUs outside the budget may draw by the newest telemetry."""
        return self.summed().outside_watts

    @property
    def drawn_watts(self) -> float:
        """What the GPUs draw that the budget covers."""
        return self.summed().drawn_watts

    @property
    def seen(self) -> datetime | None:
        """When the agent last reported, by its own clock; None where it never did."""
        report, ack = self.telemetry, self.ack
        if report is None or ack is None:
            one = report or ack
            return None if one is None else one.time
        return max(report.time, ack.time)

    @property
    def site(self) -> str:
        """The site of the newest decision; empty where there is none."""
        return self.decision.site if self.decision else ""

    @property
    def charged_watts(self) -> float:
        """The most that the caps come to: those in force, or those of a decision that is not yet applied."""
        if self.decision is None or (self.ack and self.ack.applied_decision_id >= self.decision.decision_id):
            return self.enforced_watts
        return max(self.enforced_watts, sum(cap.cap_watts for cap in self.decision.caps if cap.gpu not in self.outside))

    @property
    def least_watts(self) -> float:
        """The smallest limits of the GPUs that the budget covers, by the newest telemetry."""
        gpus = self.telemetry.gpus if self.telemetry else ()
        return sum(gpu.min_watts for gpu in gpus if gpu.gpu not in self.outside)

    @property
    def enforced_watts(self) -> float:
        """Caps in force of the GPUs that the budget covers, by the newer of acknowledgement and telemetry."""
        return self.summed().enforced_watts


class _SiteSums:
    """A site's nodes, and the sums over all of their GPUs."""

    __slots__ = ("drawn_watts", "enforced_watts", "nodes", "outside_gpus", "outside_watts")

    def __init__(self, nodes: dict[str, NodeSummary]) -> None:
        self.nodes = nodes
        sums = [node.summed() for node in nodes.values()]
        self.drawn_watts = sum([one.drawn_watts for one in sums])
        self.enforced_watts = sum([one.enforced_watts for one in sums])
        self.outside_gpus = sum([len(one.outside) for one in sums])
        self.outside_watts = sum([one.outside_watts for one in sums])


@dataclass(slots=True)
class SiteView:
    """Everything received so far. ``history`` holds decisions and acknowledgements, oldest first.

    ``scaling`` holds those about replicas only, which are few: the power decisions of a minute would push them out.
    """

    deployments: dict[str, DeploymentSummary] = field(default_factory=dict)
    nodes: dict[str, NodeSummary] = field(default_factory=dict)
    budgets: dict[str, v1.BudgetChange] = field(default_factory=dict)
    history: deque[v1.Message] = field(default_factory=lambda: deque(maxlen=HISTORY))
    scaling: deque[v1.ScalingDecision | v1.ScalingAck] = field(default_factory=lambda: deque(maxlen=HISTORY))
    lease: v1.Lease | None = None
    """The newest lease of a leader, as far as it can be read."""
    standby: dict[str, v1.Lease] = field(default_factory=dict)
    """The newest sign of each planner that waits for the lead, by its name."""
    lease_flaw: str = ""
    """Why the message on the lease's subject is not a leader's lease; empty where it is one."""
    decisions: int = 0
    acks: int = 0
    _removed: dict[str, datetime] = field(default_factory=dict)
    """When nodes were removed by command."""
    _sites: list[str] | None = None
    _sums: dict[str, _SiteSums] = field(default_factory=dict)
    _budgets: dict[str, tuple[float, datetime] | None] = field(default_factory=dict)
    """By site. All three are of what is known since the last message: a view of a large site is asked for them
    often.
    """
    _left: dict[str, NodeSummary] = field(default_factory=dict)
    """Nodes without a sign of life since their removal: apart, because one of them may still come back."""

    def add(self, message: v1.Message) -> None:
        """Add one message. A message older than the known one is ignored; ids decide, not times."""
        self.add_visible(visible_parts(message))

    def add_visible(self, message: v1.Message) -> None:
        """As `add`, of a message as `visible_parts` returns it."""
        self._sites, self._sums, self._budgets = None, {}, {}
        match message:
            case v1.PlanRecord():
                self._deployment(message.deployment).record = message
            case v1.ScalingDecision():
                self._deployment(message.deployment).decision = message
                self._count(message, decision=True)
            case v1.PowerDecision():
                self._node(message.node).decision = message
                self._count(message, decision=True)
            case v1.ScalingAck():
                self._deployment(message.deployment).ack = message
                self._count(message, decision=False)
            case v1.PowerAck():
                self._node(message.node).ack = message
                self._count(message, decision=False)
            case v1.NodeTelemetry():
                self._node(message.node).telemetry = message
            case v1.Lease():
                self.lease = message
            case v1.BudgetChange():
                self.budgets[message.site] = message
            case v1.NodeControl():
                self._command_node(message)
        if self._removed and isinstance(message, v1.PowerDecision | v1.PowerAck | v1.NodeTelemetry):
            self._place(message.node)

    def _command_node(self, command: v1.NodeControl) -> None:
        if command.action == "remove":
            self._removed[command.node] = command.time
        else:
            self._removed.pop(command.node, None)
        self._place(command.node)

    def _place(self, name: str) -> None:
        """Put a node among those that are there, or those that left: a sign of life outdates a removal."""
        gone_at = self._removed.get(name)
        found = self.nodes.pop(name, None) or self._left.pop(name, None)
        if found is None:
            return
        left = gone_at is not None and (found.seen is None or found.seen <= gone_at)
        (self._left if left else self.nodes)[name] = found

    def claimed(self, deployment: str, claim: v1.Lease) -> None:
        """Add the claim of the connector that scales a deployment."""
        self._deployment(deployment).claim = None if claim.released else visible_parts(claim)

    def _count(self, message: v1.Message, *, decision: bool) -> None:
        self.history.append(message)
        if isinstance(message, v1.ScalingDecision | v1.ScalingAck):
            self.scaling.append(message)
        if decision:
            self.decisions += 1
        else:
            self.acks += 1

    def _deployment(self, name: str) -> DeploymentSummary:
        return self.deployments.setdefault(name, DeploymentSummary())

    def _node(self, name: str) -> NodeSummary:
        return self.nodes.get(name) or self._left.get(name) or self.nodes.setdefault(name, NodeSummary())

    @property
    def drawn_watts(self) -> float:
        return sum(node.drawn_watts for node in self.nodes.values())

    @property
    def enforced_watts(self) -> float:
        return sum(node.enforced_watts for node in self.nodes.values())

    def sites(self) -> list[str]:
        """Every site that a planner has decided for, sorted."""
        if self._sites is None:
            planned = {view.record.site for view in self.deployments.values() if view.record}
            self._sites = sorted((planned | {node.site for node in self.nodes.values()}) - {""})
        return self._sites

    def nodes_of(self, site: str) -> dict[str, NodeSummary]:
        """The nodes that draw from the site's budget; those of an unnamed site belong to an only one."""
        return self._summed(site).nodes

    def _summed(self, site: str) -> _SiteSums:
        known = self._sums.get(site)
        if known is None:
            alone = len(self.sites()) <= 1
            nodes = {name: node for name, node in self.nodes.items() if (at := node.site) == site or (alone and not at)}
            known = self._sums[site] = _SiteSums(nodes)
        return known

    def outside_of(self, site: str) -> tuple[int, float]:
        """How many GPUs of the site its budget does not cover, and what they may draw, in watts."""
        sums = self._summed(site)
        return sums.outside_gpus, sums.outside_watts

    def enforced_of(self, site: str) -> float:
        """The caps in force of the site's GPUs that its budget covers, in watts."""
        return self._summed(site).enforced_watts

    def drawn_of(self, site: str) -> float:
        """What they draw, in watts."""
        return self._summed(site).drawn_watts

    def budget_of(self, site: str) -> tuple[float, datetime] | None:
        """The budget under which a planner last decided for the site, in watts, and when."""
        if site not in self._budgets:
            self._budgets[site] = self._newest_budget(site)
        return self._budgets[site]

    def _newest_budget(self, site: str) -> tuple[float, datetime] | None:
        found = [
            (one.time, one.budget_watts)
            for one in (
                *(view.record for view in self.deployments.values()),
                *(node.decision for node in self.nodes.values()),
            )
            if one is not None and one.site == site and one.budget_watts is not None
        ]
        if not found:
            return None
        time, watts = max(found)
        return watts, time

    @property
    def budget_watts(self) -> float | None:
        """The budget of the newest plan record, in watts; a deployment's record carries that of its whole site."""
        by_site = {
            view.record.site: view.record.budget_watts
            for view in self.deployments.values()
            if view.record and view.record.budget_watts is not None
        }
        return sum(by_site.values()) if by_site else None

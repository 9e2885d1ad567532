"""What has arrived on the bus and not yet been decided on. Fed by the listener, emptied by the loop; never waits.

Acknowledgements and commands are events: each is handed over once, and handed back when a step failed. Telemetry is a
state: the newest of each node stays until a newer one comes, as the same object, by which the core recognises it. What
no correct sender writes is left out (`planner.adapters.plausibility`): a node counts then as one that did not report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from bus_schemas import v1
from bus_schemas.v1 import Message
from planner.adapters import from_wire, plausibility
from planner.adapters.plausibility import ReportBounds
from planner.core import gpu_pools
from planner.core.power.incarnation import FOREIGN_EPOCH
from planner.domain.config import DeploymentConfig
from planner.domain.ids import DeploymentId, NodeId
from planner.domain.observation import (
    BudgetCommand,
    DeploymentCommand,
    DeploymentObservation,
    HoldCommand,
    NodeCommand,
    NodeObservation,
    Observation,
    PowerAckSeen,
    ScalingAckSeen,
)


class Inbox:
    """Collects messages. ``urgent`` is called for what must be answered at once, ``telemetry`` for what may wait for
    more, ``reported`` with node and boot of each report, ``implausible`` with what a message is about and its flaw.

    ``bounds``: those of a node's reports.
    """

    def __init__(
        self,
        urgent: Callable[[], None],
        telemetry: Callable[[], None],
        clock: Callable[[], float],
        offset_s: float,
        deployments: Mapping[DeploymentId, DeploymentConfig] | None = None,
        reported: Callable[[str, str], None] = lambda node, boot: None,
        implausible: Callable[[str, str], None] = lambda who, flaw: None,
        bounds: Callable[[str], ReportBounds] = lambda node: ReportBounds(),
    ) -> None:
        self._implausible = implausible
        self._bounds = bounds
        self._reported = reported
        self._configured = deployments or {}
        self._urgent = urgent
        self._telemetry = telemetry
        self._clock = clock
        self.offset_s = offset_s
        """UTC minus the clock."""
        self._nodes: dict[NodeId, NodeObservation] = {}
        self._received_s: dict[NodeId, float] = {}
        self._scaling: dict[DeploymentId, ScalingAckSeen] = {}
        self._scaling_replicas: dict[DeploymentId, Mapping[str, int]] = {}
        self._power: list[PowerAckSeen] = []
        self._budgets: list[BudgetCommand] = []
        self._deployments: list[DeploymentCommand] = []
        self._node_commands: list[NodeCommand] = []
        self._holds: list[HoldCommand] = []
        self._incarnations: dict[DeploymentId, str] = {}
        self._power_incarnations: dict[NodeId, str] = {}
        self._collecting = False

    def fresh_nodes(self, max_age_s: float) -> list[NodeObservation]:
        """The newest telemetry of each node that was received within ``max_age_s``."""
        now_s = self._clock()
        return [seen for node, seen in self._nodes.items() if now_s - self._received_s[node] <= max_age_s]

    def acked_replicas(self, deployment: DeploymentId) -> Mapping[str, int]:
        """Ready replicas by pool as last acknowledged by the deployment's actuator; empty where it never did."""
        return self._scaling_replicas.get(deployment, {})

    def expect(self, deployment: DeploymentId, incarnation: str) -> None:
        """From now on ignore acknowledgements of another incarnation, because they refer to other decision ids."""
        self._incarnations[deployment] = incarnation

    def expect_power(self, node: NodeId, incarnation: str) -> None:
        """As ``expect``, for a node's power decisions; but what the node reports of its hardware still counts."""
        self._power_incarnations[node] = incarnation

    def _read(self, ack: PowerAckSeen) -> PowerAckSeen:
        """The answer; one to another incarnation counts as a predecessor's: it may raise a charge, not free one."""
        ours = self._power_incarnations.get(ack.node, ack.incarnation)
        return ack if ack.incarnation in {"", ours} else replace(ack, epoch=FOREIGN_EPOCH)

    def _of_our_incarnation(self, ack: v1.ScalingAck) -> bool:
        ours = self._incarnations.get(DeploymentId(ack.deployment))
        return ours is None or ack.incarnation in {"", ours}

    def plausible(self, message: Message) -> Message | None:
        """The message as far as it can be true: as it is, without impossible draws, or None where it is left out."""
        who, bounds = _about(message), self._bounds(_about(message))
        if flaw := plausibility.flaw(message, bounds):
            self._implausible(who, f"a {message.type} is left out: {flaw}")
            return None
        if isinstance(message, v1.NodeTelemetry) and (flaw := plausibility.impossible_draw(message, bounds)):
            self._implausible(who, f"a draw is taken as unknown: {flaw}")
            return plausibility.without_impossible_draws(message, bounds)
        return message

    def received(self, message: Message, sequence: int) -> None:
        """Take one message in. Kinds that are not for the planner, and implausible ones, are ignored."""
        found = self.plausible(message)
        if found is not None:
            self._take_in(found, sequence)

    def _take_in(self, message: Message, sequence: int) -> None:
        match message:
            case v1.NodeTelemetry():
                now_s = self._clock()
                self._reported(message.node, message.boot)
                self._nodes[NodeId(message.node)] = self._node(message, 0.0, sequence)
                self._received_s[NodeId(message.node)] = now_s
                if self._collecting:
                    self._telemetry()
                return
            case _ if not self._collecting:
                return
            case v1.ScalingAck():
                if not self._of_our_incarnation(message):
                    return
                self._scaling[DeploymentId(message.deployment)] = from_wire.scaling_ack(message, sequence=sequence)
                if message.replicas:
                    self._scaling_replicas[DeploymentId(message.deployment)] = message.replicas
            case v1.PowerAck():
                self._power.append(from_wire.power_ack(message, sequence=sequence))
            case v1.BudgetChange():
                self._budgets.append(from_wire.budget_command(message, sequence=sequence, clock_offset_s=self.offset_s))
            case v1.DeploymentControl():
                self._deployments.append(from_wire.deployment_command(message, sequence=sequence))
            case v1.NodeControl():
                hold = from_wire.hold_command(message, sequence=sequence, clock_offset_s=self.offset_s)
                if hold is not None:
                    self._holds.append(hold)
                else:
                    self._node_commands.append(
                        from_wire.node_command(message, sequence=sequence, clock_offset_s=self.offset_s)
                    )
            case _:
                return
        self._urgent()

    def _node(self, message: v1.NodeTelemetry, age_s: float, sequence: int) -> NodeObservation:
        """A node's report, its GPUs in the pools that the settings name."""
        return gpu_pools.matched(from_wire.node(message, age_s=age_s, sequence=sequence), self._configured)

    def begin(self) -> None:
        """A term begins: collect events from now on. To be called BEFORE the streams are read, so that none falls
        between the reading and the listening.
        """
        self._forget_events()
        self._collecting = True

    def rest(self) -> None:
        """A term is over: stop collecting events, which must not pile up while another planner leads."""
        self._forget_events()
        self._collecting = False

    def _forget_events(self) -> None:
        self._scaling, self._power = {}, []
        self._budgets, self._deployments, self._node_commands, self._holds = [], [], [], []

    def restart(self, past: tuple[tuple[Message, int], ...]) -> None:
        """Put what the streams hold before what came since ``begin``. A message in both counts once, by its id.

        ``past``: as `plausible` left it.

        Telemetry that was received live is younger than the stream's; what only the stream has gets its age from it.
        """
        now_s = self._clock()
        live, received, since = self._nodes, self._received_s, self.take({})
        scaling = self._scaling
        self._nodes, self._received_s = {}, {}
        self._forget_events()
        for message, sequence in past:
            if isinstance(message, v1.NodeTelemetry):
                age_s = max(0.0, now_s + self.offset_s - message.time.timestamp())
                self._nodes[NodeId(message.node)] = self._node(message, age_s, sequence)
                self._received_s[NodeId(message.node)] = now_s - age_s
            else:
                self._take_in(message, sequence)
        for node, seen in live.items():
            self._nodes[node] = replace(seen, age_s=max(0.0, now_s - received[node]))
            self._received_s[node] = received[node]
        self._scaling.update(scaling)
        self._power += since.power_acks
        self._budgets += since.budget_commands
        self._deployments += since.deployment_commands
        self._node_commands += since.node_commands
        self._holds += since.hold_commands

    def take(self, deployments: Mapping[DeploymentId, DeploymentObservation]) -> Observation:
        """Everything new as one observation, together with what was read of the deployments."""
        observation = Observation(
            deployments=deployments,
            nodes=dict(self._nodes),
            scaling_acks=dict(self._scaling),
            power_acks=tuple(map(self._read, self._power)),
            budget_commands=tuple(self._budgets),
            deployment_commands=tuple(self._deployments),
            node_commands=tuple(self._node_commands),
            hold_commands=tuple(self._holds),
        )
        self._power, self._budgets, self._deployments, self._node_commands, self._holds = [], [], [], [], []
        return observation

    def put_back(self, observation: Observation) -> None:
        """A step failed: its events are handled again, before those that came since."""
        self._power[:0] = observation.power_acks
        self._budgets[:0] = observation.budget_commands
        self._deployments[:0] = observation.deployment_commands
        self._node_commands[:0] = observation.node_commands
        self._holds[:0] = observation.hold_commands


def _about(message: Message) -> str:
    """The node, deployment or site that a message is about; empty where it is about none."""
    names = (getattr(message, name, "") for name in ("node", "deployment", "site"))
    return next(filter(None, names), "")

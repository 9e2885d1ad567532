"""Nodes, agents and an orchestrator that obey with delays and fail on demand, in virtual time and without chance.

Not the product's simulator, so that a change of the simulator changes no golden.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from planner.domain.config import DeploymentConfig
from planner.domain.ids import DeploymentId, GpuId, NodeId, PoolId
from planner.domain.observation import GpuCapInForce, GpuObservation, NodeObservation, PowerAckSeen, ScalingAckSeen
from planner.domain.plan import PowerDecision, ScalingDecision
from planner.domain.pool import Replicas, Role
from planner.domain.power import PowerCurve

DRAIN_S = 20.0


@dataclass
class FleetCard:
    """One GPU."""

    gpu: GpuId
    requested_mw: int
    fallback_mw: int
    holder: Replica | None = None
    healthy: bool = True
    reset: bool = False


@dataclass(eq=False)
class Replica:
    """One worker. Without ``cards`` it waits for GPUs, unless its deployment needs none here."""

    deployment: DeploymentId
    pool: PoolId
    role: Role
    name: str
    ready_s: float
    cards: list[FleetCard] = field(default_factory=list)
    pending: bool = False
    gone_s: float | None = None


@dataclass
class FleetNode:
    """One node with its agent. ``silent`` loses orders and reports both ways."""

    node: NodeId
    cards: list[FleetCard]
    boot: int = 1
    decision_id: int = -1
    lease_until_s: float = float("inf")
    silent: bool = False

    def obey(
        self, order: PowerDecision, epoch: int, now_s: float, highest_mw: int, lowest_mw: int
    ) -> PowerAckSeen | None:
        """Set the limits, read them back, and answer; None where the order is lost or old."""
        if self.silent or order.decision_id <= self.decision_id:
            return None
        self.decision_id = order.decision_id
        heard_s = now_s if order.heard_clock_s is None else order.heard_clock_s
        self.lease_until_s = heard_s + order.valid_for_s
        wanted = {cap.gpu: cap for cap in order.caps}
        for card in self.cards:
            if card.healthy and (cap := wanted.get(card.gpu)) is not None:
                card.fallback_mw = cap.fallback_mw
                if not (order.only_lowers and cap.setpoint.cap_mw > card.requested_mw):
                    card.requested_mw = min(highest_mw, max(lowest_mw, cap.setpoint.cap_mw))
        return self.answer(epoch, now_s)

    def answer(self, epoch: int, now_s: float) -> PowerAckSeen:
        """What is in force."""
        gpus = []
        for card in self.cards:
            shown = card.requested_mw if card.healthy else None
            gpus.append(GpuCapInForce(card.gpu, shown, shown, healthy=card.healthy, reset=card.reset))
            card.reset = False
        ids = (self.decision_id, self.decision_id)
        return PowerAckSeen(self.node, epoch, *ids, "applied", tuple(gpus), "", f"boot-{self.boot}", now_s)

    def expire(self, now_s: float) -> None:
        """A lease that ran out leaves the fallbacks."""
        if now_s > self.lease_until_s:
            self.lease_until_s = float("inf")
            for card in self.cards:
                card.requested_mw = min(card.requested_mw, card.fallback_mw)


@dataclass
class GoldenFleet:
    """Everything that a planner commands."""

    curve: PowerCurve
    nodes: list[FleetNode]
    replicas: list[Replica] = field(default_factory=list)
    targets: dict[DeploymentId, ScalingDecision] = field(default_factory=dict)
    carried_out: dict[DeploymentId, int] = field(default_factory=dict)
    busy: dict[tuple[DeploymentId, PoolId], float] = field(default_factory=dict)
    started: int = 0

    @classmethod
    def of(cls, curve: PowerCurve, names: Iterable[str], gpus: int) -> GoldenFleet:
        nodes = []
        for name in names:
            cards = [FleetCard(GpuId(f"{name}-g{n}"), curve.max_mw, curve.min_mw) for n in range(gpus)]
            nodes.append(FleetNode(NodeId(name), cards))
        return cls(curve, nodes)

    @property
    def cards(self) -> Iterator[FleetCard]:
        for node in self.nodes:
            yield from node.cards

    def of_pool(self, deployment: DeploymentId, pool: PoolId) -> list[Replica]:
        return [r for r in self.replicas if (r.deployment, r.pool) == (deployment, pool)]

    def counts(self, deployment: DeploymentId, pool: PoolId, now_s: float) -> Replicas:
        """Workers by the state they are in."""
        found = self.of_pool(deployment, pool)
        living = [r for r in found if r.gone_s is None]
        pending = sum(r.pending for r in living)
        ready = sum(not r.pending and r.ready_s <= now_s for r in living)
        return Replicas(ready, len(living) - pending - ready, len(found) - len(living), pending)

    def scale(
        self, config: DeploymentConfig, pool: PoolId, count: int, now_s: float, hints: Iterable[GpuId] = ()
    ) -> None:
        """Start and end workers until ``count`` live; on GPUs where the deployment's site has nodes."""
        living = [r for r in self.of_pool(config.deployment, pool) if r.gone_s is None]
        for replica in living[count:]:
            replica.gone_s = now_s + DRAIN_S
        settings = config.pools[pool]
        for _ in range(count - len(living)):
            self.started += 1
            name = f"{config.deployment}-{pool}-{self.started}"
            replica = Replica(config.deployment, pool, settings.role, name, now_s + settings.startup_s)
            self.replicas.append(replica)
            if self.nodes:
                self._bind(replica, settings.gpus_per_replica, hints)

    def _bind(self, replica: Replica, size: int, hints: Iterable[GpuId] = ()) -> None:
        hinted = list(hints)
        for node in sorted(self.nodes, key=lambda n: not any(card.gpu in hinted for card in n.cards)):
            free = [card for card in node.cards if card.holder is None and card.healthy]
            free.sort(key=lambda card: card.gpu not in hinted)
            if len(free) >= size:
                replica.cards, replica.pending = free[:size], False
                for card in replica.cards:
                    card.holder = replica
                return
        replica.pending = True

    def obey(self, config: DeploymentConfig, order: ScalingDecision, now_s: float) -> None:
        """Begin to carry a decision out."""
        self.targets[order.deployment] = order
        for pool, count in order.replicas.items():
            hints = [gpu for hint in order.placements if hint.pool == pool for gpu in hint.gpus]
            self.scale(config, pool, count, now_s, hints)

    def advance(self, configs: Iterable[DeploymentConfig], now_s: float) -> None:
        """Leavers go, GPUs are bound, leases expire, and decisions count as carried out once all serve."""
        for replica in [r for r in self.replicas if r.gone_s is not None and r.gone_s <= now_s]:
            self.replicas.remove(replica)
            for card in replica.cards:
                card.holder = None
        by_name = {config.deployment: config for config in configs}
        for replica in self.replicas:
            if replica.pending and replica.gone_s is None:
                settings = by_name[replica.deployment].pools[replica.pool]
                self._bind(replica, settings.gpus_per_replica)
                replica.ready_s = now_s + settings.startup_s
        for node in self.nodes:
            node.expire(now_s)
        for name, order in self.targets.items():
            wanted = {pool: Replicas(ready=count) for pool, count in order.replicas.items()}
            if all(self.counts(name, pool, now_s) == count for pool, count in wanted.items()):
                self.carried_out[name] = order.decision_id

    def scaling_acks(self) -> dict[DeploymentId, ScalingAckSeen]:
        """The newest of each deployment."""
        found = {}
        for name, order in self.targets.items():
            done = self.carried_out.get(name, -1)
            status = "applied" if done >= order.decision_id else "accepted"
            found[name] = ScalingAckSeen(name, order.decision_id, done, status)
        return found

    def telemetry(self, now_s: float) -> dict[NodeId, NodeObservation]:
        """Reports of all nodes that are not silent."""
        found = {}
        for node in self.nodes:
            if not node.silent:
                gpus = {card.gpu: self._seen(card, now_s) for card in node.cards}
                found[node.node] = NodeObservation(node.node, gpus, 0.5, f"boot-{node.boot}", now_s - 0.5)
        return found

    def _seen(self, card: FleetCard, now_s: float) -> GpuObservation:
        held, curve = card.holder, self.curve
        limit = card.requested_mw if card.healthy else None
        draw = curve.idle_mw
        if held is not None and held.ready_s <= now_s:
            share = self.busy.get((held.deployment, held.pool), 0.5)
            draw = min(card.requested_mw, curve.idle_mw + round(share * 0.9 * (curve.p_u_mw - curve.idle_mw)))
        return GpuObservation(
            gpu=card.gpu,
            draw_mw=draw if card.healthy else None,
            requested_mw=limit,
            enforced_mw=limit,
            default_mw=curve.max_mw,
            min_mw=curve.min_mw,
            max_mw=curve.max_mw,
            healthy=card.healthy,
            deployment=held.deployment if held else None,
            pool=held.pool if held else None,
            role=held.role if held else None,
            worker=held.name if held else None,
            terminating=held is not None and held.gone_s is not None,
        )

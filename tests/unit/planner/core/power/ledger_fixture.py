"""A ledger with hand-made nodes around it: the tests of the ledger send messages through it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from planner.core.power import invariants, site_ledger
from planner.core.power.site_state import PowerState
from planner.domain.config import SiteConfig
from planner.domain.ids import GpuId, NodeId, SiteId
from planner.domain.observation import GpuCapInForce, GpuObservation, NodeObservation, Observation, PowerAckSeen
from planner.domain.plan import PowerDecision
from planner.domain.units import GpuSetpoint, Milliwatts

HIGH, LOW = 700_000, 200_000
CONFIG = SiteConfig(SiteId("s"), budget_mw=Milliwatts(2_000_000), answer_s=3.0, settle_s=2.0)
A, B = NodeId("a"), NodeId("b")


def at(mw: int) -> GpuSetpoint:
    """The setpoint with this cap."""
    return GpuSetpoint(Milliwatts(mw))


def g(node: str, n: int = 0) -> GpuId:
    return GpuId(f"{node}-{n}")


def seen(
    node: str,
    limits: tuple[int | None, ...],
    clock_s: float,
    *,
    boot: str = "1",
    age_s: float = 0.0,
    healthy: bool = True,
    worker: str | None = None,
    draw: int | None = None,
) -> NodeObservation:
    gpus = {
        g(node, n): GpuObservation(g(node, n), draw, mw, mw, HIGH, LOW, HIGH, healthy=healthy, worker=worker)
        for n, mw in enumerate(limits)
    }
    return NodeObservation(NodeId(node), gpus, age_s, boot, clock_s)


def answer(
    order: PowerDecision,
    clock_s: float,
    limits: Mapping[GpuId, int | None] | None = None,
    *,
    boot: str = "1",
    epoch: int = 1,
    status: str = "applied",
    reset: bool = False,
    healthy: bool = True,
) -> PowerAckSeen:
    told = limits if limits is not None else {cap.gpu: cap.setpoint.cap_mw for cap in order.caps}
    gpus = tuple(GpuCapInForce(gpu, mw, mw, healthy, reset) for gpu, mw in told.items())
    return PowerAckSeen(
        order.node, epoch, order.decision_id, order.decision_id, status, gpus, boot=boot, clock_s=clock_s
    )


@dataclass
class Desk:
    """A ledger with its clock; every step is checked against the invariants."""

    config: SiteConfig = CONFIG
    now_s: float = 100.0
    power: PowerState = field(init=False)

    def __post_init__(self) -> None:
        self.power = site_ledger.initial(replace(self.config, answer_s=0.0), 1, self.now_s, ())

    def receive(self, *nodes: NodeObservation) -> None:
        self.power = site_ledger.absorb(
            self.power, Observation(nodes={n.node: n for n in nodes}), self.config, self.now_s
        )

    def take(self, *acks: PowerAckSeen) -> None:
        self.power = site_ledger.absorb(self.power, Observation(power_acks=acks), self.config, self.now_s)

    def want(self, caps: Mapping[GpuId, int]) -> None:
        self.power = site_ledger.want(self.power, {gpu: at(mw) for gpu, mw in caps.items()})

    def advance(self, after_s: float = 0.0) -> dict[str, PowerDecision]:
        self.now_s += after_s
        before = self.power
        self.power, orders = site_ledger.advance(before, self.config, self.now_s)
        found = (*invariants.step_taken(before, self.power, orders, self.config, self.now_s),)
        assert not found, found
        assert not invariants.wrong_charges(self.power.nodes.values())
        return {str(order.node): order for order in orders}

    def charge(self, gpu: GpuId) -> int:
        page = self.power.nodes[self.power.where[gpu]]
        return page.charge_mw[page.cards.gpus.index(gpu)]

    def settled(self, caps: Mapping[GpuId, int]) -> None:
        """Everything answered and settled at ``caps``."""
        self.want(caps)
        for _ in range(12):
            for order in self.advance(0.1).values():
                self.take(answer(order, self.now_s))
            self.now_s += 2.1
            self.receive(*self.reports())

    def reports(self) -> list[NodeObservation]:
        return [
            NodeObservation(
                name,
                {
                    gpu: GpuObservation(gpu, None, hw, hw, HIGH, LOW, HIGH)
                    for gpu, hw in zip(page.cards.gpus, page.hardware_mw, strict=True)
                },
                0.0,
                "1",
                self.now_s,
            )
            for name, page in self.power.nodes.items()
        ]

    def caps(self, orders: Mapping[str, PowerDecision]) -> dict[GpuId, int]:
        return {cap.gpu: cap.setpoint.cap_mw for order in orders.values() for cap in order.caps}


def desk(config: SiteConfig = CONFIG, nodes: str = "ab", per_node: int = 2) -> Desk:
    found = Desk(config)
    found.receive(*(seen(name, (HIGH,) * per_node, found.now_s) for name in nodes))
    return found

"""A fleet of agents and one actuator, as far as the bus can tell: they carry out, acknowledge, and send telemetry.

Stands where real agents stand in tests of the planner alone; its caps are what the planner's promises are checked on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from bus_schemas import v1
from bus_schemas.errors import BusError
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.watch import follow

DEFAULT_WATTS, MIN_WATTS = 700.0, 200.0
PATIENCE = 100
"""Attempts at one message: a server that restarts is away for a moment."""


@dataclass(slots=True)
class FleetGpu:
    """One GPU's cap and who holds it."""

    name: str
    cap_watts: float = DEFAULT_WATTS
    holder: tuple[str, str, str] | None = None
    """(deployment, pool, worker)."""


@dataclass(slots=True)
class Fleet:
    """``nodes`` x ``gpus_per_node`` GPUs and the workers of one deployment. ``on_workers`` hears of every change."""

    bus: Bus
    deployment: str
    nodes: int = 2
    gpus_per_node: int = 4
    telemetry_every_s: float = 0.25
    on_workers: Callable[[dict[str, list[str]]], None] = lambda workers: None
    gpus: dict[str, list[FleetGpu]] = field(default_factory=dict)
    workers: dict[str, list[str]] = field(default_factory=dict)
    power: list[v1.PowerDecision] = field(default_factory=list)
    scaling: list[v1.ScalingDecision] = field(default_factory=list)
    answers_power: bool = True
    born: int = 0

    def __post_init__(self) -> None:
        self.spread(self.nodes, self.gpus_per_node)

    def spread(self, nodes: int, gpus_per_node: int) -> None:
        """Have so many GPUs; those that are there already stay as they are."""
        for n in range(nodes):
            there = self.gpus.setdefault(f"node-{n}", [])
            there.extend(FleetGpu(f"GPU-{n}-{g}") for g in range(len(there), gpus_per_node))

    @property
    def enforced_watts(self) -> float:
        """The sum of all caps."""
        return sum(gpu.cap_watts for gpus in self.gpus.values() for gpu in gpus)

    def place(self, pool: str, count: int) -> None:
        """Start or stop workers of ``pool`` until there are ``count``."""
        held = self.workers.setdefault(pool, [])
        while len(held) < count:
            free = next(gpu for gpus in self.gpus.values() for gpu in gpus if gpu.holder is None)
            name = f"{pool}-{self.born}"
            self.born += 1
            free.holder = (self.deployment, pool, name)
            held.append(name)
        while len(held) > count:
            gone = held.pop()
            for gpus in self.gpus.values():
                for gpu in gpus:
                    if gpu.holder is not None and gpu.holder[2] == gone:
                        gpu.holder = None
        self.on_workers(self.workers)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._telemetry())
            tasks.create_task(self._caps())
            tasks.create_task(self._scale())

    async def _telemetry(self) -> None:
        while True:
            for node, gpus in self.gpus.items():
                await self._send(self.bus.subjects.telemetry_node(node), self._seen(node, gpus))
            await asyncio.sleep(self.telemetry_every_s)

    def _seen(self, node: str, gpus: list[FleetGpu]) -> v1.NodeTelemetry:
        told = []
        for gpu in gpus:
            deployment, pool, worker = gpu.holder or ("", "", "")
            told.append(
                v1.GpuTelemetry(
                    gpu=gpu.name,
                    draw_watts=min(gpu.cap_watts, 400.0 if gpu.holder else 90.0),
                    requested_watts=gpu.cap_watts,
                    enforced_watts=gpu.cap_watts,
                    default_watts=DEFAULT_WATTS,
                    min_watts=MIN_WATTS,
                    max_watts=DEFAULT_WATTS,
                    deployment=deployment,
                    pool=pool,
                    role=pool,
                    worker=worker,
                )
            )
        return v1.NodeTelemetry(
            time=datetime.now(UTC), node=node, boot="one", clock_s=time.monotonic(), gpus=tuple(told)
        )

    async def _caps(self) -> None:
        async for stored in follow(self.bus, self.bus.subjects.all_of("decision", "power"), 0):
            decision = stored.message
            assert isinstance(decision, v1.PowerDecision)
            self.power.append(decision)
            if not self.answers_power:
                continue
            await self._send(self.bus.subjects.ack_power(decision.node), self.apply_caps(decision))

    def apply_caps(self, decision: v1.PowerDecision) -> v1.PowerAck:
        """Set a node's caps; the acknowledgement."""
        by_name = {gpu.name: gpu for gpu in self.gpus[decision.node]}
        for cap in decision.caps:
            by_name[cap.gpu].cap_watts = max(MIN_WATTS, cap.cap_watts)
        return v1.PowerAck(
            time=datetime.now(UTC),
            node=decision.node,
            decision_id=decision.decision_id,
            applied_decision_id=decision.decision_id,
            incarnation=decision.incarnation,
            epoch=decision.epoch,
            status=v1.AckStatus.APPLIED,
            gpus=tuple(
                v1.GpuInForce(gpu=gpu.name, requested_watts=gpu.cap_watts, enforced_watts=gpu.cap_watts)
                for gpu in by_name.values()
            ),
            boot="one",
            clock_s=time.monotonic(),
        )

    async def _scale(self) -> None:
        async for stored in follow(self.bus, self.bus.subjects.all_of("decision", "scaling"), 0):
            decision = stored.message
            assert isinstance(decision, v1.ScalingDecision)
            self.scaling.append(decision)
            for pool, target in decision.pools.items():
                self.place(pool, target.replicas)
            ack = v1.ScalingAck(
                time=datetime.now(UTC),
                deployment=decision.deployment,
                decision_id=decision.decision_id,
                scaled_decision_id=decision.decision_id,
                incarnation=decision.incarnation,
                status=v1.AckStatus.APPLIED,
                replicas={pool: len(names) for pool, names in self.workers.items()},
            )
            await self._send(self.bus.subjects.ack_scaling(decision.deployment), ack)

    async def _send(self, subject: str, message: v1.Message) -> None:
        msg_id = f"{subject}-{time.time_ns()}"
        for _ in range(PATIENCE):
            try:
                await publish(self.bus, subject, message, msg_id)
            except BusError:
                await asyncio.sleep(0.1)
            else:
                return
        raise AssertionError(f"{subject}: the bus stayed away")

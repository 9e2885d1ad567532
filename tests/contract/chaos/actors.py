"""Planners and agents for chaos runs: the real parts of the bus, deciding at random and recording the answers."""

from __future__ import annotations

import asyncio
import random

from bus_schemas import v1
from bus_schemas.errors import BusAwayError, LeadershipLostError, NotStoredError
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.consumer import Consumer, Delivery, Durable
from bus_schemas.jetstream.leader_election import Leadership
from bus_schemas.jetstream.publisher import Publisher
from bus_schemas.jetstream.reader import last_per_subject
from tests.contract.bus import applied, outgoing, power
from tests.contract.chaos.history import History


class ChaosPlanner:
    """Leads when it can; then decides for some nodes at a time, each id one above the last that is stored."""

    def __init__(
        self, bus: Bus, name: str, nodes: list[str], history: History, seed: int, *, ttl_s: float = 2.0
    ) -> None:
        self.bus = bus
        self.name = name
        self.nodes = nodes
        self.history = history
        self.random = random.Random(seed)
        self.leadership = Leadership(bus, name, ttl_s)
        self.publisher = Publisher(bus, self.leadership)
        self.stored = 0
        self.terms = 0
        self.pause_s = 0.01

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with self.leadership.lead() as epoch:
                    self.terms += 1
                    await self._term(epoch)
            except LeadershipLostError:
                continue

    async def _term(self, epoch: int) -> None:
        ids = await self._past()
        while True:
            some = self.random.sample(self.nodes, self.random.randint(1, len(self.nodes)))
            items = [outgoing(self.bus, power(node, ids[node] + 1, epoch=epoch)) for node in some]
            while True:
                try:
                    await self.publisher.publish_batch(items)
                    break
                except NotStoredError:
                    # In doubt: only the very same batch may follow, so that no id is left out or used twice.
                    await asyncio.sleep(0.05)
            for node, item in zip(some, items, strict=True):
                ids[node] += 1
                self.history.acknowledged.append((item.subject, "one", ids[node]))
            self.stored += len(items)
            await asyncio.sleep(self.pause_s * self.random.random())

    async def _past(self) -> dict[str, int]:
        """The last id of each node, read after the lead was taken."""
        ids = dict.fromkeys(self.nodes, -1)
        while True:
            try:
                found = await last_per_subject(self.bus, self.bus.subjects.all_of("decision", "power"))
            except BusAwayError:
                await asyncio.sleep(0.1)
                continue
            for one in found:
                if isinstance(one.message, v1.PowerDecision):
                    ids[one.message.node] = one.message.decision_id
            return ids


class ChaosAgent:
    """One node's real loop, which notes what it was given to carry out."""

    def __init__(self, bus: Bus, node: str, history: History, *, ack_wait_s: float = 30.0, work_s: float = 0.0) -> None:
        self.node = node
        self.history = history
        self.work_s = work_s
        durable = Durable.power(bus, node)
        self.consumer = Consumer(
            bus,
            durable.stream,
            durable.name,
            durable.subject,
            self._carry_out,
            result_subject=bus.subjects.ack_power(node),
            ack_wait_s=ack_wait_s,
        )

    async def _carry_out(self, delivery: Delivery) -> v1.Message:
        assert isinstance(delivery.message, v1.PowerDecision)
        self.history.carried[self.node].append((delivery.message.incarnation, delivery.message.decision_id))
        await asyncio.sleep(self.work_s)
        return applied(delivery.message)


async def all_current(bus: Bus, nodes: list[str]) -> bool:
    """Whether every node's newest decision is acknowledged as applied."""
    try:
        decisions = await last_per_subject(bus, bus.subjects.all_of("decision", "power"))
        acks = await last_per_subject(bus, bus.subjects.all_of("ack", "power"))
    except BusAwayError:
        return False
    wanted = {
        one.message.node: one.message.decision_id for one in decisions if isinstance(one.message, v1.PowerDecision)
    }
    done = {one.message.node: one.message.applied_decision_id for one in acks if isinstance(one.message, v1.PowerAck)}
    return set(wanted) == set(nodes) and wanted == done

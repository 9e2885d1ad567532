"""One node's connection to the bus: decisions in, acknowledgements and telemetry out.

Owns subjects, consumer names and message ids. The planner creates the consumer (an agent may not), so the agent waits
until it exists. Decisions are states: only the newest one matters, and the same holds for acknowledgements.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable

from nats.errors import Error as NatsError

from bus_schemas.jetstream.connect import Bus, BusError
from bus_schemas.jetstream.consumer import CannotCarryOutError, Consumer, Delivery
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.pull import HEARTBEAT_S
from bus_schemas.jetstream.reader import last_raw
from bus_schemas.streams import DECISIONS
from bus_schemas.subjects import power_consumer
from bus_schemas.v1 import Message, NodeTelemetry, PowerAck, PowerDecision

BEATS_PER_LEASE = 6.0
SHORTEST_BEAT_S = 0.5


class NotPublishedError(Exception):
    """The server did not store a message."""


class NodeChannel:
    """The subjects of one node. Raises BadNameError if the node's name cannot be part of a subject."""

    def __init__(self, bus: Bus, node: str, boot: str) -> None:
        self._bus = bus
        self._node = node
        self._process = boot.rpartition("/")[2]
        self._numbers = itertools.count()
        self._decisions = bus.subjects.decision_power(node)
        self._answers = bus.subjects.ack_power(node)
        self._telemetry = bus.subjects.telemetry_node(node)
        self._trace: tuple[tuple[str, int, int] | None, str | None] = None, None
        """The decision that was delivered last and its trace context."""

    async def listen(self, handle: Callable[[PowerDecision], Awaitable[PowerAck]]) -> None:
        """Receive decisions until cancelled. A decision is acknowledged to the server after its answer is stored."""

        async def carry_out(delivery: Delivery) -> PowerAck:
            message = delivery.message
            if not isinstance(message, PowerDecision):
                raise CannotCarryOutError(f"not a power decision but {message.type}")
            if message.node != self._node:
                raise CannotCarryOutError(f"meant for node {message.node}, not {self._node}")
            self._trace = _key(message), delivery.traceparent
            consumer.heartbeat_s = heartbeat_s(message.valid_for_s)
            return await handle(message)

        durable = power_consumer(self._node)
        consumer = Consumer(
            self._bus, DECISIONS, durable, self._decisions, carry_out, result_subject=self._answers, newest_only=True
        )
        await consumer.run()

    async def answered_before(self) -> bool:
        """Whether this node has ever answered a decision: then a planner knows its GPUs. Raises BusError."""
        return await last_raw(self._bus, self._answers) is not None

    async def answer(self, message: PowerAck) -> None:
        """Publish an acknowledgement that was not requested. Raises NotPublishedError."""
        key, traceparent = self._trace
        await self._publish(self._answers, message, traceparent if key == _key(message) else None)

    async def telemetry(self, message: NodeTelemetry) -> None:
        """Publish telemetry. Raises NotPublishedError."""
        await self._publish(self._telemetry, message)

    async def _publish(self, subject: str, message: Message, traceparent: str | None = None) -> None:
        # A new id for every attempt: if the reply was lost, the same state is stored twice, which is harmless.
        msg_id = f"{self._process}-{next(self._numbers)}"
        try:
            await publish(self._bus, subject, message, msg_id, traceparent)
        except (BusError, NatsError, TimeoutError, OSError) as error:
            raise NotPublishedError(f"{subject}: {str(error) or type(error).__name__}") from error


def heartbeat_s(lease_s: float) -> float:
    """How often the server must show a node's agent that its request still stands.

    A request is lost without a word when the server that led the consumer is killed. The agent asks again after
    `MISSED_BEATS`, before half a lease has passed: in time for the next renewal.
    """
    return min(HEARTBEAT_S, max(SHORTEST_BEAT_S, lease_s / BEATS_PER_LEASE))


def _key(message: PowerDecision | PowerAck) -> tuple[str, int, int]:
    """Identifies a decision of this node, from the decision itself or from an acknowledgement of it."""
    return message.incarnation, message.epoch, message.decision_id

"""Publishes unsolicited acknowledgements and telemetry, always the newest state, across reconnects.

Owns one slot for each and the pace. Never queues: an outdated state is not worth sending.
"""

from __future__ import annotations

import asyncio
import logging

from agent.adapters.bus_channel import NodeChannel, NotPublishedError
from agent.adapters.telemetry import worth_publishing
from agent.ports import MonotonicClock
from bus_schemas.jetstream.tasks.backoff import Backoff
from bus_schemas.v1 import NodeTelemetry, PowerAck

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0


class StatusPublisher:
    """Publishes for one node; keeps the newest state until there is a connection."""

    def __init__(self, clock: MonotonicClock, *, heartbeat_s: float) -> None:
        self.heartbeat_s = heartbeat_s
        self._clock = clock
        self._new = asyncio.Event()
        self._answer: PowerAck | None = None
        self._telemetry: NodeTelemetry | None = None
        self._published_answer: PowerAck | None = None
        self._published_telemetry: NodeTelemetry | None = None
        self._published_s = float("-inf")

    def answered(self, answer: PowerAck) -> None:
        """Note an answer that is published elsewhere, with the decision that it answers."""
        self._published_answer = answer
        self._answer = None

    def update(self, answer: PowerAck | None, telemetry: NodeTelemetry | None) -> None:
        """Take the current state; what changed is published. None: there is nothing to publish yet."""
        if answer is not None and _differs(self._published_answer, answer):
            self._answer = answer
            self._new.set()
        if telemetry is None:
            return
        due = self._clock() - self._published_s >= self.heartbeat_s
        if due or worth_publishing(self._published_telemetry, telemetry):
            self._telemetry = telemetry
            self._new.set()

    async def run(self, channel: NodeChannel) -> None:
        """Publish until cancelled. While the server is away, retries with growing pauses."""
        backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while True:
            await self._new.wait()
            self._new.clear()
            try:
                await self._flush(channel)
                backoff.reset()
            except NotPublishedError as error:
                log.warning("not published, trying again with the state at that time: %s", error)
                await asyncio.sleep(backoff.next_s())
                self._new.set()

    async def _flush(self, channel: NodeChannel) -> None:
        if (answer := self._answer) is not None:
            await channel.answer(answer)
            self._published_answer = answer
            if self._answer is answer:
                self._answer = None
        if (telemetry := self._telemetry) is not None:
            await channel.telemetry(telemetry)
            self._published_telemetry, self._published_s = telemetry, self._clock()
            if self._telemetry is telemetry:
                self._telemetry = None


def _differs(before: PowerAck | None, now: PowerAck) -> bool:
    if before is None:
        return True
    moving = {"time": now.time, "clock_s": now.clock_s, "reason": now.reason}
    return before.model_copy(update=moving) != now

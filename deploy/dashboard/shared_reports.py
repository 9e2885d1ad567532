"""The reports and acknowledgements that a planner takes in for itself, shared with the page that it serves.

They are decoded already, so a page in a planner neither subscribes to them nor decodes them a second time. As in
`fleet_reader`, the nodes' reports are taken in turn: to show each of a thousand a second would cost more than to decode
them. What the planner gets is only noted; all work is done when the page asks. A report out of turn is not even noted:
to hold it until the next one came cost as much as a third of what it costs to decode it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import datetime

from bus_schemas import v1
from bus_schemas.jetstream.reader import StoredMessage
from deploy.dashboard.fleet_reader import turn_s

Share = Callable[[Callable[[v1.Message, int], None]], AbstractContextManager[None]]
"""Inside its context, what it was given gets every message that the planner takes in, with its sequence."""
AT_ONCE = 32
"""Reports between two pauses in which the planner's own work goes on."""
MOST_ACKS = 20_000
"""Acknowledgements that wait for the page: more come only while nothing runs, and the newest ones matter."""


class SharedReports:
    """``take`` gets what is new, each time that `drain` is called, which is every ``step_s``."""

    def __init__(self, take: Callable[[v1.Message], None], step_s: float) -> None:
        self._take, self._step_s = take, step_s
        self._reports: dict[str, v1.NodeTelemetry] = {}
        """Those in turn that came since the last step, by node."""
        self._step, self._turn_steps = 0, 1
        self._due: dict[str, int] = {}
        """By node the first step in which its next report is taken."""
        self._acks: list[tuple[v1.PowerAck | v1.ScalingAck, int]] = []
        self._loaded: dict[str, tuple[datetime, int]] = {}

    def note(self, message: v1.NodeTelemetry | v1.PowerAck | v1.ScalingAck, sequence: int) -> None:
        """Keep what the planner received until it is shown."""
        match message:
            case v1.NodeTelemetry():
                if self._due.get(message.node, 0) <= self._step:
                    self._reports[message.node] = message
            case _:
                self._acks.append((message, sequence))
                del self._acks[:-MOST_ACKS]

    def loaded(self, found: Iterable[StoredMessage]) -> None:
        """These acknowledgements were read from the stream: what is not newer is not news."""
        self._loaded = {
            _sender_of(one.message): (one.message.time, one.sequence)
            for one in found
            if isinstance(one.message, v1.PowerAck | v1.ScalingAck)
        }

    async def drain(self) -> None:
        """Hand over the acknowledgements that came, and the reports of the nodes whose turn it is."""
        acks, self._acks = self._acks, []
        for number, (ack, sequence) in enumerate(acks):
            if self._is_news(ack, sequence):
                self._take(ack)
            if number % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
        reports, self._reports = self._reports, {}
        self._step += 1
        self._turn_steps = max(1, round(turn_s(len(self._due.keys() | reports)) / self._step_s))
        for number, (node, report) in enumerate(reports.items()):
            self._due[node] = self._step + self._pause(node) - 1
            self._take(report)
            if number % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)

    def _pause(self, node: str) -> int:
        """Steps until a node's next report is taken; at first as many as spread the nodes over their turn evenly."""
        return self._turn_steps if node in self._due else 1 + len(self._due) % self._turn_steps

    def _is_news(self, ack: v1.PowerAck | v1.ScalingAck, sequence: int) -> bool:
        """Neither alone: a lost stream numbers from 1 again, and a sender's clock may be set back."""
        time, number = self._loaded.get(_sender_of(ack), (None, 0))
        return time is None or sequence > number or ack.time > time


def _sender_of(ack: v1.PowerAck | v1.ScalingAck) -> str:
    """Who acknowledged: nodes and deployments may have the same names."""
    return f"node {ack.node}" if isinstance(ack, v1.PowerAck) else f"deployment {ack.deployment}"

"""What `wattscale top` shows, from a running bus: the dashboard's feed, and the explanations of its page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from bus_schemas.errors import BusError
from deploy.dashboard.feed import RETRY_S, Feed, Update
from deploy.dashboard.history import explained, no_record, power_explained
from deploy.top.table_rows import DecisionQuestion


class LiveSource:
    """``feed``: kept running by somebody else."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    async def updates(self) -> AsyncIterator[Update]:
        """Everything first, then what changes, without end; what was missed is caught up with."""
        last_id = ""
        while True:
            watching = self._feed.watch(last_id)
            try:
                async for update in watching:
                    last_id = self._feed.event_id(update)
                    yield update
            finally:
                await watching.aclose()
            await asyncio.sleep(RETRY_S)

    async def explained(self, question: DecisionQuestion) -> str:
        """What ``wattscale explain`` prints of a decision about replicas, or what the page shows of one about watts."""
        who, number, bus = question.who, question.decision_id, self._feed.bus
        try:
            if question.kind == "watts" and number is not None:
                text = await power_explained(bus, who, number)
            else:
                text = await explained(bus, who, number, datetime.now(UTC))
        except BusError as error:
            return f"the bus does not answer: {error}"
        return no_record(number, who) if text is None else text

"""Which decisions the reader hands over after a fail-over, with a stream that the test keeps in the server's place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import pytest
from nats.aio.msg import Msg

from bus_schemas import codec, v1
from bus_schemas.jetstream.reader import StoredMessage, stored
from bus_schemas.subjects import Subjects
from deploy.dashboard import decision_reader
from deploy.dashboard.decision_reader import DecisionReader
from deploy.dashboard.document import Document
from tests.doubles.seen_site import decision

STEP_S = 0.01


class DecisionStream:
    """A stream of decisions; ``bus`` is what a reader knows of it."""

    def __init__(self) -> None:
        self.subjects = Subjects()
        self.messages: list[Msg] = []

    def store(self, one: v1.ScalingDecision) -> int:
        """Store a decision; its place."""
        headers = {"Nats-Sequence": str(len(self.messages) + 1)}
        raw: Any = Msg(_client=None, subject="decision", data=codec.encode(one), headers=headers)  # type: ignore[arg-type]
        self.messages.append(raw)
        return len(self.messages)

    async def last(self, *_: object) -> Msg:
        return self.messages[-1]

    async def next(self, _: object, __: str, after: int) -> list[Msg]:
        return self.messages[after:]

    async def follow(self, _: object, __: str, after: int) -> AsyncGenerator[StoredMessage]:
        for raw in self.messages[after:]:
            found = stored(raw)
            assert found is not None
            yield found
        await asyncio.Event().wait()


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> DecisionStream:
    found = DecisionStream()
    monkeypatch.setattr(decision_reader, "last_raw", found.last)
    monkeypatch.setattr(decision_reader, "next_raw", found.next)
    monkeypatch.setattr(decision_reader, "follow", found.follow)
    return found


async def test_what_another_planner_decided_after_this_one_is_handed_over_once(stream: DecisionStream) -> None:
    """Its decision was read from the stream before this planner's own ones, which lie before it, were looked at."""
    document, taken = Document(), list[int]()

    def take(message: v1.Message) -> None:
        assert isinstance(message, v1.ScalingDecision)
        taken.append(message.decision_id)
        document.add(message)

    reader = DecisionReader(stream, take, document.knows, STEP_S, verify_s=STEP_S)  # type: ignore[arg-type]
    running = asyncio.create_task(reader.run(0))
    try:
        async with asyncio.timeout(20):
            own = decision(0, 2)
            reader.note(own, stream.store(own))
            stream.store(decision(1, 3))
            while 1 not in taken:
                await asyncio.sleep(STEP_S)
            reader.drain()
            stream.store(decision(2, 4))
            while 2 not in taken:
                await asyncio.sleep(STEP_S)
        assert taken == [0, 1, 2]
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

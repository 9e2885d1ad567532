"""What a follower yields while its reader is behind, with a stream and copies that the test hands it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from nats.aio.msg import Msg

from bus_schemas.jetstream import reader, watch
from bus_schemas.subjects import Subjects


class ReadingStream:
    """A stream of nodes' readings, in place of the server; ``bus`` is what a follower knows of it."""

    def __init__(self) -> None:
        self.subjects = Subjects()
        self.on_reconnect: set[Any] = set()
        self.nc = self
        self.stored: list[Msg] = []

    async def ready(self) -> None:
        """It always is."""

    async def subscribe(self, *_: object, **__: object) -> ReadingStream:
        return self

    def store(self, node: str) -> Msg:
        subject, sequence = self.subjects.telemetry_node(node), len(self.stored) + 1
        before = max((reader.sequence_of(one) for one in self.stored if one.subject == subject), default=0)
        headers = {"Nats-Sequence": str(sequence), "Nats-Last-Sequence": str(before), "Nats-Subject": subject}
        self.stored.append(Msg(_client=self, subject=subject, headers=headers))  # type: ignore[arg-type]
        return self.stored[-1]

    async def last(self, *_: object) -> Msg | None:
        return self.stored[-1] if self.stored else None

    async def next(self, _: object, __: str, after: int, count: int = 4) -> list[Msg]:
        return self.stored[after : after + count]

    async def newest(self, _: object, __: str, until_sequence: int) -> list[Msg]:
        by_subject = {one.subject: one for one in self.stored[:until_sequence]}
        return sorted(by_subject.values(), key=reader.sequence_of)


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> ReadingStream:
    found = ReadingStream()
    monkeypatch.setattr(watch, "MOST_WAITING", 4)
    monkeypatch.setattr(reader, "BATCH", 4)
    monkeypatch.setattr(reader, "last_raw", found.last)
    monkeypatch.setattr(reader, "next_raw", found.next)
    monkeypatch.setattr(reader, "last_raw_per_subject", found.newest)
    return found


async def every(follower: watch._Follower) -> AsyncGenerator[Msg]:
    while True:
        async for raw in follower.news():
            yield raw


async def all_newest(stream: ReadingStream, news: AsyncGenerator[Msg], found: list[Msg]) -> None:
    """Read on until each node's newest reading was yielded: each once, and in order."""
    async with asyncio.timeout(60):
        while any(newest not in found for newest in await stream.newest(None, "", len(stream.stored))):
            found.append(await anext(news))
    for subject in {one.subject for one in found}:
        mine = [reader.sequence_of(one) for one in found if one.subject == subject]
        assert mine == sorted(set(mine))


async def test_one_that_falls_behind_while_it_reads_the_stream_gets_each_nodes_readings_in_order(
    stream: ReadingStream,
) -> None:
    """Copies come in, too many, while a long read of the stream is under way."""
    follower = watch._Follower(stream, stream.subjects.all_of("telemetry", "node"))  # type: ignore[arg-type]
    for _ in range(4):
        stream.store("old")
    await follower.open(0)
    news = every(follower)
    found = [await anext(news)]
    for name in ("a", "b", "c", "d", "e"):
        follower._put(stream.store(name))
    for name in ("a", "a", "b"):
        stream.store(name)  # Their copies are still on their way.
    await all_newest(stream, news, found)


async def test_the_last_reading_of_a_node_that_died_is_yielded_to_one_that_falls_behind_before_it_read_that_far(
    stream: ReadingStream,
) -> None:
    """The dead node's reading lies beyond the first batch of a long read, and no copy of it comes."""
    follower = watch._Follower(stream, stream.subjects.all_of("telemetry", "node"))  # type: ignore[arg-type]
    for name in ("a", "b", "a", "b", "a", "dead"):
        stream.store(name)
    await follower.open(0)
    news = every(follower)
    found = [await anext(news)]
    for name in ("a", "b", "c", "d", "e"):
        follower._put(stream.store(name))
    await all_newest(stream, news, found)

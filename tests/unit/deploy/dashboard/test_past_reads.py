"""Reads of the past: a few at once, some more wait in order, and the rest is refused at once."""

from __future__ import annotations

import asyncio

import pytest

from deploy.dashboard.past_reads import PastReads, TooManyReadsError


async def test_some_run_some_wait_and_the_rest_is_refused() -> None:
    reads, go, began = PastReads(at_once=2, most_waiting=3), asyncio.Event(), list[int]()

    async def read(number: int) -> None:
        async with reads.place():
            began.append(number)
            await go.wait()

    tasks = [asyncio.create_task(read(number)) for number in range(6)]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    assert done == {tasks[5]}
    assert isinstance(tasks[5].exception(), TooManyReadsError)
    assert began == [0, 1]
    # One that gives up gives its place back.
    tasks[3].cancel()
    await asyncio.wait([tasks[3]])
    tasks.append(asyncio.create_task(read(6)))
    go.set()
    await asyncio.gather(*tasks[:3], tasks[4], tasks[6])
    assert began == [0, 1, 2, 4, 6]
    async with reads.place():
        pass


async def test_a_read_that_fails_gives_its_place_back() -> None:
    reads = PastReads(at_once=1, most_waiting=0)
    for _ in range(2):
        with pytest.raises(ValueError, match="lost"):
            async with reads.place():
                raise ValueError("lost")

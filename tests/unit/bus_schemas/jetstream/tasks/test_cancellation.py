"""A cancellation that comes in the same instant as the answer counts, whatever the answer is."""

from __future__ import annotations

import asyncio

import pytest
from nats.errors import NoRespondersError

from bus_schemas.jetstream.tasks.cancellation import cancellation_kept


@pytest.mark.parametrize("refused", [False, True], ids=["a good answer", "a refusal"])
async def test_a_cancellation_that_comes_with_the_answer_counts(*, refused: bool) -> None:
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def ask() -> None:
        with cancellation_kept():
            await asyncio.wait_for(answer, 30.0)
            if refused:
                raise NoRespondersError

    task = asyncio.create_task(ask())
    await asyncio.sleep(0)
    answer.set_result(None)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_without_a_cancellation_comes_through() -> None:
    with pytest.raises(NoRespondersError), cancellation_kept():
        raise NoRespondersError


async def test_a_cancellation_that_was_not_asked_for_is_an_error_of_the_connection() -> None:
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    answer.cancel()
    with pytest.raises(ConnectionAbortedError), cancellation_kept():
        await answer


async def test_a_cancellation_that_was_asked_for_is_one() -> None:
    async def ask() -> None:
        with cancellation_kept():
            await asyncio.Event().wait()

    task = asyncio.create_task(ask())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_time_out_around_it_stays_a_time_out() -> None:
    async def ask() -> None:
        async with asyncio.timeout(0.01):
            with cancellation_kept():
                await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await ask()

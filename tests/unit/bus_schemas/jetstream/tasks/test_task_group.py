"""No part of a service ends unnoticed: not by an error, not by returning, not as cancelled by something inside."""

from __future__ import annotations

import asyncio

import pytest

from bus_schemas.jetstream.tasks.task_group import PartEndedError, ended, run_together


class RecordedPart:
    """Runs forever, or ends in the requested way once ``gate`` opens."""

    def __init__(self, how: str = "") -> None:
        self.how = how
        self.gate = asyncio.Event()
        self.ended = False

    async def run(self) -> None:
        try:
            await self.gate.wait()
            if self.how == "raises":
                raise OSError("no more")
            if self.how == "is cancelled inside":
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                future.cancel()
                await future
        finally:
            self.ended = True


@pytest.mark.parametrize(
    ("how", "error"), [("raises", OSError), ("returns", PartEndedError), ("is cancelled inside", PartEndedError)]
)
async def test_the_first_that_ends_ends_all(how: str, error: type[Exception]) -> None:
    failing, other = RecordedPart(how), RecordedPart()
    failing.gate.set()
    with pytest.raises(error):
        await run_together({"failing": failing.run(), "other": other.run()})
    assert other.ended
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_cancellation_ends_all_and_is_one() -> None:
    parts = [RecordedPart(), RecordedPart()]
    running = asyncio.create_task(run_together({str(index): part.run() for index, part in enumerate(parts)}))
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert all(part.ended for part in parts)


async def test_an_error_while_the_others_end_is_logged_and_the_first_is_raised(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def bad_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("while ending")

    failing = RecordedPart("raises")
    failing.gate.set()
    with pytest.raises(OSError, match="no more"):
        await run_together({"failing": failing.run(), "other": bad_end()})
    assert "other failed as well: ValueError('while ending')" in caplog.text


async def test_a_cancellation_that_was_lost_is_repeated() -> None:
    lost = 0

    async def losing() -> None:
        nonlocal lost
        while lost < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(losing())
    await asyncio.sleep(0)
    await asyncio.wait_for(ended(task, again_s=0.01), 60)
    assert lost == 3
    assert task.cancelled()

"""The service under leads that are lost: it keeps campaigning, and ends at once when it is asked to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from bus_schemas.jetstream.connect import Bus as Connection
from bus_schemas.jetstream.tasks.cancellation import cancellation_kept
from bus_schemas.jetstream.tasks.task_group import PartEndedError
from planner.domain.plan import Plan
from planner.ports import LinkAwayError, Term, TermEndedError
from planner.runtime import leader_term
from planner.runtime.service import PlannerService
from tests.contract.bus import until
from tests.integration.planner.stage import config, ended
from tests.unit.planner.runtime.test_leader_term import ORDER, ScriptedLink


async def uncaused_cancellation() -> None:
    """As a client library can bring one about: of what is waited for, not of the one who waits."""
    await asyncio.sleep(0.01)
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


class Losing(ScriptedLink):
    """A term that ends as prescribed: ``lost`` by the lease, ``refused`` at the first batch, or ``dropped``: what
    was waited for was cancelled from within.
    """

    def __init__(self, how: str) -> None:
        super().__init__(answers=[TermEndedError("fenced off")] if how == "refused" else [])
        self.how = how

    async def end(self) -> None:
        if self.how == "lost":
            await asyncio.sleep(0.01)
            raise TermEndedError("the lease ran out")
        with cancellation_kept():
            await (uncaused_cancellation() if self.how == "dropped" else asyncio.Event().wait())


class Election(ScriptedLink):
    """A link whose leads end as listed, one after another; then one that stays."""

    def __init__(self, *ends: str) -> None:
        super().__init__()
        self.ends = list(ends)

    @asynccontextmanager
    async def lead(self) -> AsyncIterator[Term]:
        end = self.ends.pop(0) if self.ends else "kept"
        if end == "away":
            raise LinkAwayError("the lease could not be asked for")
        term = Losing(end)
        try:
            async with asyncio.TaskGroup() as tasks:
                ending = tasks.create_task(term.end())
                yield term
                ending.cancel()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None


@pytest.mark.parametrize(
    "ends", [("lost",), ("refused",), ("away",), ("dropped",), ("lost", "refused", "away", "lost")]
)
async def test_a_planner_that_lost_the_lead_leads_again(monkeypatch: pytest.MonkeyPatch, ends: tuple[str, ...]) -> None:
    monkeypatch.setattr(leader_term, "react", lambda state, *_: (state, Plan(power=(ORDER,))))
    terms = sum(end != "away" for end in ends) + 1
    # The connection is only looked at where no link is given.
    service = PlannerService(config(), cast("Connection", None), [], link=Election(*ends))
    task = asyncio.create_task(service.run())
    try:
        await until(lambda: service.vitals.terms == terms and service.vitals.epoch is not None, "leading again")
        await asyncio.sleep(0.05)
        assert service.vitals.epoch is not None
    finally:
        await ended(task)


class Deaf(Election):
    """A link that stops listening without a word."""

    async def listen(self, listener: object) -> None:
        await uncaused_cancellation()


async def test_a_planner_that_receives_nothing_any_more_does_not_go_on() -> None:
    service = PlannerService(config(), cast("Connection", None), [], link=Deaf())
    with pytest.raises(PartEndedError, match="listen"):
        await asyncio.wait_for(service.run(), 60)

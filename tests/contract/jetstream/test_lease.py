"""One leader at a time: taken over within the lease plus a second after a crash, at once after an orderly stop."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from bus_schemas import codec, v1
from bus_schemas.errors import LeadershipLostError
from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.leader_election import Leadership
from bus_schemas.jetstream.reader import last
from bus_schemas.streams import DECISIONS
from planner.adapters.jetstream_link import BusLink
from planner.ports import TermEndedError
from tests.contract.bus import bench, connected, until


async def test_epochs_rise_from_term_to_term_and_the_fence_with_each_renewal() -> None:
    async with bench() as (_, bus):
        first = Leadership(bus, "a", 30)
        epoch = await first.acquire()
        assert await first.renew() > epoch
        assert first.epoch == epoch
        fence = first.fence
        await first.release()
        second = Leadership(bus, "b", 30)
        assert fence is not None
        assert await second.acquire() > fence


async def test_an_orderly_stop_lets_another_lead_at_once() -> None:
    async with bench() as (server, bus), connected(server.url) as other:
        first, second = Leadership(bus, "a", 60), Leadership(other, "b", 60)
        await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await first.release()
        # Long before the lease would have run out.
        await asyncio.wait_for(waiting, 20)
        with pytest.raises(LeadershipLostError):
            await first.renew()


async def test_after_a_crash_another_leads_within_the_lease_and_a_second() -> None:
    ttl_s = 6.0
    async with bench() as (server, bus), connected(server.url) as other:
        first, second = Leadership(bus, "a", ttl_s), Leadership(other, "b", ttl_s)
        before = time.monotonic()
        await first.acquire()
        await asyncio.wait_for(second.acquire(), 2 * ttl_s)
        # A second for the server's own rounding, the rest for a busy machine: less than another lease.
        assert ttl_s - 1.0 < time.monotonic() - before < 2 * ttl_s
        with pytest.raises(LeadershipLostError):
            await first.renew()
        assert not first.held


async def test_of_many_candidates_one_leads() -> None:
    async with bench() as (_, bus):
        candidates = [Leadership(bus, f"p{i}", 30) for i in range(8)]
        won = await asyncio.gather(*(one.try_acquire() for one in candidates))
        assert sum(won) == 1


async def test_a_renewed_lease_outlives_its_time_to_live() -> None:
    async with bench() as (_, bus):
        leadership = Leadership(bus, "a", 3)
        async with leadership.lead() as epoch:
            began, first = time.monotonic(), leadership.fence
            assert first is not None
            # More than a lease later, and renewed more often than one lease takes.
            await until(lambda: time.monotonic() - began > 4.5 and (leadership.fence or 0) >= first + 4, "renewals")
            assert (leadership.held, leadership.epoch) == (True, epoch)
        found = await last(bus, bus.subjects.lease())
        assert found is not None
        assert isinstance(found.message, v1.Lease)
        assert found.message.released


async def test_the_lead_lost_inside_ends_the_body_and_says_why() -> None:
    async with bench() as (_, bus):
        leadership = Leadership(bus, "a", 60)

        async def body() -> None:
            async with leadership.lead():
                leadership.lose("told so")
                await asyncio.Event().wait()

        with pytest.raises(LeadershipLostError, match="told so"):
            await asyncio.wait_for(body(), 60)


async def test_a_renewal_that_the_client_gave_up_ends_the_body() -> None:
    async with bench() as (_, bus):
        leadership = Leadership(bus, "a", 3)

        async def given_up() -> int:
            raise asyncio.CancelledError

        async def body() -> None:
            async with leadership.lead():
                leadership.renew = given_up  # type: ignore[method-assign]
                await asyncio.Event().wait()

        with pytest.raises(ConnectionAbortedError, match="gave up the call"):
            await asyncio.wait_for(body(), 60)
        assert await Leadership(bus, "b", 60).try_acquire(), "the lease is released"


async def test_the_bodys_own_error_comes_out_as_it_is() -> None:
    async with bench() as (_, bus):

        async def body() -> None:
            async with Leadership(bus, "a", 30).lead():
                raise ValueError("mine")

        with pytest.raises(ValueError, match="mine"):
            await body()


async def test_a_renewal_whose_answer_was_lost_is_recognised() -> None:
    async with bench() as (_, bus):
        leadership = Leadership(bus, "a", 30)
        await leadership.acquire()
        real = bus.nc.request
        lost: list[object] = []

        async def losing(subject: str, *args: object, **kwargs: Any) -> object:
            answer = await real(subject, *args, **kwargs)  # type: ignore[arg-type]
            if subject == bus.subjects.lease() and not lost:
                lost.append(subject)
                raise TimeoutError
            return answer

        bus.nc.request = losing  # type: ignore[method-assign,assignment]
        with pytest.raises(TimeoutError):
            await leadership.renew()
        await leadership.renew()
        assert leadership.held


async def test_a_leader_whose_server_is_gone_gives_up_after_its_lease() -> None:
    async with bench() as (server, bus):
        leadership = Leadership(bus, "a", 1)
        await leadership.acquire()
        keeping = asyncio.create_task(leadership.keep())
        await server.kill()
        with pytest.raises(LeadershipLostError, match="could not be renewed"):
            await asyncio.wait_for(keeping, 30)
        await server.start()
        await until(lambda: bus.connected, "reconnection")
        await asyncio.wait_for(leadership.acquire(), 60)


async def test_a_planner_that_loses_the_lease_is_stopped_in_the_middle_of_its_work() -> None:
    async with bench() as (_, bus):

        async def term() -> None:
            async with BusLink(bus, "a", 3.0).lead() as term:
                assert term.epoch > 0
                # Anything newer on the subject: the next renewal is refused.
                await bus.js.publish(bus.subjects.lease(), b"{}")
                await asyncio.Event().wait()

        with pytest.raises(TermEndedError, match="another planner holds the lease"):
            await asyncio.wait_for(term(), 60)


async def test_a_planner_that_stops_in_order_releases_the_lease() -> None:
    async with bench() as (_, bus):
        with pytest.raises(ValueError, match="mine"):
            async with BusLink(bus, "a", 60.0).lead():
                raise ValueError("mine")
        assert await Leadership(bus, "b", 60).try_acquire()


def lease_body(holder: str, ttl_s: float) -> bytes:
    return codec.encode(v1.Lease(time=datetime.now(UTC), holder=holder, ttl_s=ttl_s))


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"x", {}),
        (b'{"type":"wattscale.v1.lease","holder":"evil"}', {}),
        (lease_body("evil", 3600.0), {}),
        (lease_body("evil", 1.0), {"Nats-TTL": "3600s"}),
    ],
    ids=["a byte", "half a lease", "a lease that never expires", "a lease that outlives its term"],
)
async def test_a_message_that_is_no_leaders_lease_is_overwritten_after_one_term(
    body: bytes, headers: dict[str, str]
) -> None:
    ttl_s = 2.0
    async with bench() as (_, bus):
        before = time.monotonic()
        await bus.js.publish(bus.subjects.lease(), body, headers=headers or None)
        waiting = Leadership(bus, "a", ttl_s)
        assert not await waiting.try_acquire()
        assert "overwritten" in waiting.hindrance
        assert "message 1" in waiting.hindrance
        await asyncio.wait_for(waiting.acquire(), 60)
        assert time.monotonic() - before >= ttl_s
        assert waiting.hindrance == ""


async def test_a_living_leaders_lease_is_never_overwritten_by_one_with_a_shorter_term() -> None:
    async with bench() as (server, bus), connected(server.url) as other:
        leader, hasty = Leadership(bus, "a", 6.0), Leadership(other, "b", 1.0)
        await leader.acquire()
        waiting = asyncio.create_task(hasty.acquire())
        # Longer than the hasty one's term, shorter than the leader's.
        await asyncio.sleep(3.5)
        assert not waiting.done()
        assert (hasty.hindrance, hasty.leader and hasty.leader.holder) == ("", "a")
        assert await leader.renew() > 0
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_a_leader_whose_lease_was_overwritten_by_a_byte_leads_again_after_one_term() -> None:
    async with bench() as (_, bus):
        leadership = Leadership(bus, "a", 2.0)
        await leadership.acquire()
        await bus.js.publish(bus.subjects.lease(), b"x")
        with pytest.raises(LeadershipLostError):
            await leadership.renew()
        before = time.monotonic()
        await asyncio.wait_for(leadership.acquire(), 60)
        assert time.monotonic() - before >= 1.0


async def test_why_the_lease_cannot_be_taken_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    async with bench() as (_, bus):
        await bus.js.delete_stream(DECISIONS)
        leadership = Leadership(bus, "a", 2.0)
        waiting = asyncio.create_task(leadership.acquire())
        await until(lambda: leadership.hindrance, "the reason")
        await asyncio.sleep(1.0)
        assert "the lease cannot be taken" in leadership.hindrance
        assert sum("not leading" in record.message for record in caplog.records) == 1
        await stream_admin.apply(bus)
        await asyncio.wait_for(waiting, 20)
        assert leadership.hindrance == ""


async def test_a_cancellation_that_comes_with_the_loss_of_the_lead_is_kept() -> None:
    """Else a planner told to stop at that moment would campaign again and never end."""
    async with bench() as (_, bus):
        leadership, led = Leadership(bus, "me", 2.0), asyncio.Event()

        async def term() -> None:
            async with leadership.lead():
                led.set()
                await asyncio.Event().wait()

        for lost_first in (True, False):
            led.clear()
            task = asyncio.create_task(term())
            await asyncio.wait_for(led.wait(), 60)
            if lost_first:
                leadership.lose("another planner holds the lease")
            task.cancel()
            if not lost_first:
                leadership.lose("another planner holds the lease")
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 10.0)
